"""Instrumenting one object, and taking that back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from asyncnotify import BlockingListener, BlockingNotifier, Listener, Notifier
from asyncnotify._arguments import check_kind, check_plain_function
from asyncnotify.ext.opentelemetry._destinations import Destinations
from asyncnotify.ext.opentelemetry._observed import Observed, observers_of
from asyncnotify.ext.opentelemetry._operations import Operations, check_provider, meter_of
from asyncnotify.ext.opentelemetry._wrapped import (
    middleware_of,
    registers,
    sends_many,
    sends_one,
)
from asyncnotify.log import BlockingLog, Log

Instrumented: TypeAlias = (
    Listener | BlockingListener | Notifier | BlockingNotifier | Log | BlockingLog
)
"""What ``instrument()`` takes."""


_UNDO: Final = "_undo_instrument"
"""The attribute of an object that is instrumented: what takes it back. That refers to the object:
kept in a mapping, it would keep the object as well."""

_BY_ITSELF: Final = "_instrumented_by_itself"
"""The attribute of an object of which nobody has asked for that."""


def instrument(
    target: Instrumented,
    *,
    template: Callable[[str], str | None] | None = None,
    client_id: str | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Callable[[], None]:
    """
    Record the traces and metrics of a listener, a notifier or a log; return what ends that.

    Each notification or event that is sent has a span ``send CHANNEL``, each call of a handler a
    span ``process CHANNEL``, which is the root of a trace of its own. The event of a log carries
    the context of its sender in its headers, and its ``process`` span has a link to that. A
    notification has no headers: ``Channel(…, context=current_traceparent)`` does that for it.
    Streams, consumers that are iterated over, heartbeats, LISTEN and
    what a log does by itself have no spans. A span has neither a payload nor the text of an
    exception.

    A log is to be instrumented before its handlers are registered. An object is instrumented once:
    what AsyncNotifyInstrumentor has done to it is replaced, and a second call is refused.

    Args:
        target: The object; its methods are replaced on the object itself, until the end.
        template: Returns what stands for a channel that is one of many, such as ``user_{id}`` for
            ``user_42``, and None for one of few. Without it, the channels beyond the first 100
            share ``{other}`` in metrics and in the names of spans.
        client_id: ``messaging.client.id`` of the metrics of a listener; None: ``listener-1`` and so
            on.
        tracer_provider: Makes the spans; None: the global provider.
        meter_provider: Makes the metrics; None: the global provider.

    Returns:
        A function that takes it back.

    Raises:
        TypeError: The object is of another kind, ``template`` is no plain function of one
            argument, or another argument is of the wrong type.
        RuntimeError: The object is instrumented already.
        WrongLoopError: The listener runs in another event loop.
    """
    _check(target)
    if template is not None:
        check_plain_function("template", template, "the channel")
    check_provider("tracer", tracer_provider)
    check_provider("meter", meter_provider)
    check_kind("client_id", client_id, str)
    _check_is_free(target)
    operations = Operations(Destinations(template), tracer_provider, meter_provider)
    undoing: list[Callable[[], None]] = [operations.end]
    if isinstance(target, Listener | BlockingListener):
        undoing.append(target.add_middleware(middleware_of(operations)))
        observed = Observed(target, client_id)
        observers_of(meter_provider, meter_of(meter_provider)).add(observed)
        undoing.append(observed.stop)
    _replace(target, operations, undoing)

    def undo() -> None:
        while undoing:
            undoing.pop()()
        if vars(target).get(_UNDO) is undo:
            vars(target).pop(_UNDO)
            vars(target).pop(_BY_ITSELF, None)

    vars(target)[_UNDO] = undo
    return undo


def instrument_by_itself(target: Instrumented, **options: Any) -> None:  # noqa: ANN401 - as instrument() takes them
    """Do the same without being asked for this object: ``instrument()`` may replace it."""
    instrument(target, **options)
    vars(target)[_BY_ITSELF] = True


def undo_by_itself(target: Instrumented) -> None:
    """Take that back, unless ``instrument()`` has replaced it, or it has been taken back."""
    if _BY_ITSELF in vars(target):
        vars(target)[_UNDO]()


def _check_is_free(target: Instrumented) -> None:
    """Refuse what is instrumented already; take back what was not asked for."""
    undo_by_itself(target)
    if _UNDO in vars(target):
        msg = (
            f"{target!r} is instrumented already, and would be recorded twice: to change the"
            " options call first what the earlier instrument() returned, which takes it back"
        )
        raise RuntimeError(msg)


def _check(target: object) -> None:
    if not isinstance(target, Instrumented):
        msg = f"target must be a Listener, Notifier or Log, not of type {type(target).__name__}"
        raise TypeError(msg)


def _replace(target: Any, operations: Operations, undoing: list[Callable[[], None]]) -> None:  # noqa: ANN401 - one of several classes
    """Put methods on the object before those of its class."""
    wrappers = {
        "notify": sends_one,
        "append": sends_one,
        "notify_many": sends_many,
        "append_many": sends_many,
    }
    if isinstance(target, Log | BlockingLog):
        wrappers["on"] = registers
    for name, wrap in wrappers.items():
        method = getattr(target, name, None)
        if method is not None:
            setattr(target, name, wrap(method, operations))
            undoing.append(_restoring(target, name, target.__dict__[name]))


def _restoring(target: Any, name: str, ours: object) -> Callable[[], None]:  # noqa: ANN401 - one of several classes
    def restore() -> None:
        if target.__dict__.get(name) is ours:
            delattr(target, name)

    return restore
