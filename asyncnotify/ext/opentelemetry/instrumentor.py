"""What ``opentelemetry-instrument`` finds: it instruments every object that is made."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # mypy reads nothing of it
    BaseInstrumentor,
)

from asyncnotify import BlockingListener, BlockingNotifier, Listener, Notifier
from asyncnotify.ext.opentelemetry._instrument import instrument_by_itself, undo_by_itself
from asyncnotify.log import BlockingLog, Log

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AsyncNotifyInstrumentor"]

_CLASSES: Final = (Listener, BlockingListener, Notifier, BlockingNotifier, Log, BlockingLog)

_FOR_THE_PROGRAM: Final = "asyncnotify.ext"
"""The integrations: what they make is what the program has asked them for."""

_FOR_ITSELF: Final = ("asyncnotify.ext._validation", "asyncnotify.ext.reporting")
"""Those of its modules that make what the program never gets."""


class AsyncNotifyInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # it has no types
    """
    Instruments each listener, notifier and log that the program makes from then on.

    ``AsyncNotifyInstrumentor().instrument()`` takes the options of ``instrument()``, without the
    object. ``uninstrument()`` takes all of it back. What an integration makes for the program, as
    ``lifespan(dsn)`` and Django's ``get_listener()`` do, is among them; what asyncnotify makes for
    itself, such as the listener that wakes the readers of a log, is left out. An object that is
    given to ``instrument()`` as well is recorded once, with the options of that call.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what has to be installed: nothing but asyncnotify, which this is part of."""
        return ()

    def _instrument(self, **options: Any) -> None:  # noqa: ANN401 - as instrument() takes them
        known = ("template", "tracer_provider", "meter_provider")
        given = {name: options[name] for name in known if name in options}
        self._undoing: list[Callable[[], None]] = []
        for cls in _CLASSES:
            self._undoing.append(_instrument_all(cls, given))

    def _uninstrument(self, **_: Any) -> None:  # noqa: ANN401 - as the base class says
        while self._undoing:
            self._undoing.pop()()


def _instrument_all(cls: Any, options: dict[str, Any]) -> Callable[[], None]:  # noqa: ANN401 - each of several classes
    original = cls.__init__
    made: weakref.WeakSet[Any] = weakref.WeakSet()

    @functools.wraps(original)
    def initialise(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - as the class takes them
        original(self, *arguments, **named)
        if not _is_made_for_itself():
            instrument_by_itself(self, **options)
            made.add(self)

    cls.__init__ = initialise

    def undo() -> None:
        if cls.__init__ is initialise:
            cls.__init__ = original
        for target in tuple(made):
            undo_by_itself(target)

    return undo


def _is_made_for_itself() -> bool:
    """Return whether asyncnotify makes the object for itself, and not for the program."""
    here = inspect.currentframe()
    frame = None if here is None or here.f_back is None else here.f_back.f_back
    if frame is not None and frame.f_code.co_name == "from_sqlalchemy":
        frame = frame.f_back
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    if _is_in(module, _FOR_THE_PROGRAM):
        return any(_is_in(module, one) for one in _FOR_ITSELF)
    return _is_in(module, "asyncnotify")


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
