"""
Let streams end when the process is asked to stop, for web servers that wait for all responses.

::

    from asyncnotify.ext.shutdown import end_streams_on_signal

    @asynccontextmanager
    async def lifespan(app):
        async with listener, end_streams_on_signal(listener):
            yield

A streaming response does not end by itself: uvicorn waits for it forever. The
module's path is its API, with the names in ``__all__``.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias, runtime_checkable

from asyncnotify import AlreadyEnteredError
from asyncnotify._arguments import check_iterable, check_plain_function
from asyncnotify._logs import Log

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["EndsStreams", "SignalScope", "Target", "end_streams_on_signal"]

STOPPING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)
"""What process managers and terminals send; SIGBREAK is that of Windows."""

_UNCATCHABLE: Final = ("SIGKILL", "SIGSTOP")

_log: Final = Log("shutdown")


@runtime_checkable
class EndsStreams(Protocol):
    """What has streams: Listener, BlockingListener, Log, BlockingLog; or an object of yours."""

    def end_streams(self, *, also_new: bool = ...) -> None:
        """
        End what is open, and with ``also_new`` also what begins later; see Listener.

        Raises:
            TypeError: ``also_new`` is not a bool.
        """


Target: TypeAlias = EndsStreams | Callable[[], EndsStreams]
"""What has streams, or a function without arguments that returns it."""


def end_streams_on_signal(*targets: Target, signals: Iterable[int] = STOPPING) -> SignalScope:
    """
    Return a context manager in which a signal to stop ends all streams.

    For ``with`` or ``async with``; to be entered in the lifespan of the application, where servers
    have installed their handlers of signals already. It installs its own before them: that ends the
    streams, those included that begin later, and then calls the server's. Handlers of
    ``loop.add_signal_handler()`` are called as well. At the end of the context the former handlers
    are back, except where another one has been installed meanwhile, which then stays.

    A signal that the process ignores ends the streams that are open, and no later ones: workers of
    hypercorn ignore Ctrl-C, as their parent process ends them.

    Only the main thread can handle signals. In another thread, such as that of Starlette's
    TestClient, the context does nothing, as uvicorn does there.

    Args:
        targets: Listeners, logs, or functions that return the present one when a signal comes, for
            applications that create it again at each start.
        signals: Numbers of signals; by default SIGINT and SIGTERM, on Windows also SIGBREAK.

    Raises:
        TypeError: There is no target, or one has no ``end_streams()`` and is no plain function
            without arguments; or ``signals`` is no list.
        ValueError: A signal does not exist, or cannot be handled.
    """
    if not targets:
        msg = "end_streams_on_signal() needs at least one listener or log"
        raise TypeError(msg)
    for target in targets:
        _check_target(target)
    check_iterable("signals", signals, "a list of signals, as [signal.SIGTERM]")
    return SignalScope(targets, tuple(map(_checked, signals)))


def _check_target(target: object) -> None:
    is_class = isinstance(target, type)
    if isinstance(target, EndsStreams) and not is_class:
        return
    if callable(target):
        check_plain_function("a function that returns a listener or a log", target)
    else:
        kind = type(target).__name__
        msg = f"a listener, a log, or a function that returns one is needed, not of type {kind}"
        raise TypeError(msg)


def _checked(number: int) -> signal.Signals:
    try:
        found = signal.Signals(number)
    except ValueError:
        msg = f"signals are numbers that this system has, as signal.SIGTERM, not {number!r}"
        raise ValueError(msg) from None
    if found.name in _UNCATCHABLE:
        msg = f"no process can handle {found.name}"
        raise ValueError(msg)
    return found


class SignalScope:
    """The context manager that ``end_streams_on_signal()`` returns, to be used again or not."""

    def __init__(self, targets: tuple[Target, ...], signals: tuple[signal.Signals, ...]) -> None:
        self._targets = targets
        self._signals = signals
        self._is_entered = False
        self._handlers: list[_Handler] = []

    def __enter__(self) -> Self:
        """
        Install the handlers; in another thread than the main one, do nothing.

        Raises:
            AlreadyEnteredError: The context has been entered before, and not left.
        """
        if self._is_entered:
            msg = "the context of end_streams_on_signal() has been entered already: make another"
            raise AlreadyEnteredError(msg)
        self._is_entered = True
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._install(number)
        else:
            _log.info("a signal does not end streams here: this is not the main thread")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_entered = False
        while self._handlers:
            self._handlers.pop().uninstall()

    async def __aenter__(self) -> Self:
        """Install the handlers, as ``__enter__()`` does."""
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _install(self, number: signal.Signals) -> None:
        previous = signal.getsignal(number)
        if (
            previous is not None
        ):  # else it is not Python's, and could be neither called nor restored
            self._handlers.append(_Handler(number, previous, self._targets))


class _Handler:
    """
    Handles a signal before another handler does.

    A handler that was installed since may call this one, also after it was uninstalled: from
    then on it only passes signals on.
    """

    def __init__(self, number: int, previous: Any, targets: Iterable[Target]) -> None:  # noqa: ANN401 - as signal.getsignal() returns it
        self._number = number
        self._previous = previous
        self._targets = targets
        self._is_active = True
        signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._is_active:
            for target in self._targets:
                self._end_streams(target)
        self._pass_on(number, frame)

    def uninstall(self) -> None:
        """Put the former handler back, unless another one has been installed since."""
        self._is_active = False
        present: object = signal.getsignal(self._number)
        if present is self:
            signal.signal(self._number, self._previous)

    def _end_streams(self, target: Target) -> None:
        try:
            found = target if isinstance(target, EndsStreams) else target()
            found.end_streams(also_new=self._previous is not signal.SIG_IGN)
        except Exception:  # noqa: BLE001 - the server has to learn of the signal in any case
            _log.exception("the streams of %r could not be ended", target)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._previous is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # nearly always this is the end of the process
            signal.signal(number, self)
        elif self._previous is not signal.SIG_IGN:
            self._previous(number, frame)
