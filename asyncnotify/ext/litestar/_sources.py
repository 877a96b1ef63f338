"""A listener, or a log, for as long as an application runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

from asyncnotify import Listener, NotStartedError, State
from asyncnotify._arguments import check_present
from asyncnotify.log import Log
from asyncnotify.typing import Dsn

ListenerSource: TypeAlias = Dsn | Listener | Callable[[], Listener] | None
LogSource: TypeAlias = Log | Callable[[], Log]


class _Closable(Protocol):
    async def start(self) -> None: ...

    async def aclose(self, timeout: float | None = None) -> None: ...


T = TypeVar("T", bound=_Closable)


class Running(Generic[T]):
    """
    Starts what an application uses, and closes it at the end; as often as the application runs.

    Args:
        kind: Listener or Log.
        make: Returns one, the same or another at each start.
    """

    def __init__(self, kind: type[T], make: Callable[[], T]) -> None:
        self._kind = kind
        self._make = make
        self._present: T | None = None
        self._is_ours = False

    @classmethod
    def given(cls, kind: type[T], source: T | Callable[[], T]) -> Self:
        """
        Return what runs an object that is given, or those that a function returns.

        Raises:
            TypeError: It is neither.
        """
        if callable(source):
            return cls(kind, source)
        check_present(kind.__name__.lower(), source, kind)
        return cls(kind, lambda: source)

    @property
    def present(self) -> T:
        """
        What runs.

        Raises:
            NotStartedError: The application does not run.
        """
        if self._present is None:
            msg = (
                f"the {self._kind.__name__.lower()} runs while the application does: its lifespan"
                " has not begun, or is over"
            )
            raise NotStartedError(msg)
        return self._present

    @property
    def is_running(self) -> bool:
        """Whether there is something that runs."""
        return self._present is not None

    async def start(self) -> T:
        """
        Start it, unless somebody else has; that one then closes it, too.

        Raises:
            TypeError: The function has returned something else.
            AsyncNotifyError: As of the method ``start()``.
        """
        made = self._make()
        check_present(self._kind.__name__.lower(), made, self._kind)
        self._is_ours = not (isinstance(made, Listener) and _runs(made))
        try:
            await made.start()
        except BaseException:
            if self._is_ours:
                await made.aclose()
            raise
        self._present = made
        return made

    async def close(self) -> None:
        """Close it, if it was started here. Idempotent."""
        present, self._present = self._present, None
        if present is not None and self._is_ours:
            await present.aclose()


def _runs(listener: Listener) -> bool:
    return listener.state not in {State.NEW, State.CLOSED}


def listener_from(source: ListenerSource) -> Running[Listener]:
    """
    Return what runs the listener of a source.

    Raises:
        TypeError: The source is of another kind.
    """
    if not isinstance(source, Listener) and not callable(source):
        source = Listener(source)
    return Running.given(Listener, source)


def log_from(source: LogSource) -> Running[Log]:
    """
    Return what runs the log of a source.

    Raises:
        TypeError: The source is of another kind.
    """
    return Running.given(Log, source)
