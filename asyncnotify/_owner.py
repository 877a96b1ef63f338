"""A listener or notifier may be used only in the event loop and process that started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import warnings
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, NoReturn, SupportsIndex

from asyncnotify._errors import WrongLoopError
from asyncnotify._logs import Log, WarningLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

log = Log("connection")
_warnings = WarningLimit()

_OTHER_PROCESS: Final = (
    "the listener, notifier or log was started by another process, and a fork cannot share"
    " its connection: start it in this process too"
)
_OTHER_LOOP: Final = (
    "the listener, notifier or log belongs to another event loop than the one that runs now, of"
    " which each asyncio.run() makes one, and pytest-asyncio one for each test: start it in this"
    " loop; in tests give the fixture that starts it and the tests the same loop_scope="
    " (asyncio_default_fixture_loop_scope and asyncio_default_test_loop_scope)"
)
_OTHER_THREAD: Final = (
    "the listener, notifier or log belongs to another event loop: from another thread use"
    " asyncio.run_coroutine_threadsafe(…, loop) with the loop that started it; in a program"
    " without an event loop use BlockingListener, BlockingNotifier or BlockingLog"
)
_OTHER_THREADS_LOOP: Final = (
    "the listener, notifier or log belongs to another event loop, which runs in another thread. An"
    " async view under WSGI (Flask, Django) runs in an event loop that ends with its request: use a"
    " BlockingNotifier there, as `await sync_to_async(notifier.notify)(…)`. From other event loops"
    " use asyncio.run_coroutine_threadsafe(…, loop) with the loop that started it"
)
_TRIO: Final = (
    "this code is run by trio, and asyncnotify needs the event loop of asyncio: run it with"
    " asyncio.run(); or use a BlockingListener or BlockingNotifier, in threads"
    " (trio.to_thread.run_sync)"
)
_NO_LOOP: Final = (
    "no event loop of asyncio runs here: use asyncio.run() for this code; in a program without an"
    " event loop use BlockingListener, BlockingNotifier or BlockingLog"
)


class Owner:
    """
    The event loop and the process in which this object was made.

    Raises:
        WrongLoopError: No event loop of asyncio runs here.
    """

    def __init__(self) -> None:
        try:
            self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongLoopError(_TRIO if _runs_in_trio() else _NO_LOOP) from None
        self._process = os.getpid()
        self._thread = threading.get_ident()

    @property
    def is_here(self) -> bool:
        """Whether the caller runs in this event loop. In a fork no loop is running at first."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def check(self) -> None:
        """
        Return if the call comes from this event loop. Touches no socket.

        Raises:
            WrongLoopError: The call comes from another event loop, thread or process.
        """
        if self.is_here:
            return
        if self.is_other_process:
            raise WrongLoopError(_OTHER_PROCESS)
        if _runs_in_trio():
            raise WrongLoopError(_TRIO)
        if not _runs_loop():
            raise WrongLoopError(_OTHER_THREAD)
        is_same_thread = threading.get_ident() == self._thread
        raise WrongLoopError(_OTHER_LOOP if is_same_thread else _OTHER_THREADS_LOOP)

    @property
    def is_other_process(self) -> bool:
        """Whether the caller runs in a fork of the process in which this object was made."""
        return os.getpid() != self._process


def _runs_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _runs_in_trio() -> bool:
    """Return whether the caller is run by trio, which need not be installed for anything."""
    trio = sys.modules.get("trio")
    try:
        return trio is not None and trio.lowlevel.current_task() is not None
    except RuntimeError:
        return False


class OfOneProcess:
    """What holds connections or tasks, or is to: it can be neither pickled nor copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        msg = (
            f"an object of the class {type(self).__name__} cannot be pickled or copied, because its"
            " connection belongs to one process: make another one with the same arguments, in the"
            " process that is to use it"
        )
        raise TypeError(msg)


def leave_to_parent(*things: object) -> None:
    """In a fork, keep inherited objects: if collected, they would close the parent's connection."""
    _left_to_parent.extend(things)


def keep(thing: object) -> None:
    """Keep what runs on though nothing refers to it: if collected, its tasks would be destroyed."""
    _kept.append(thing)


def see_to_unclosed(
    thing: object,
    close: Callable[[], Coroutine[Any, Any, object]],
    loop: asyncio.AbstractEventLoop,
) -> bool:
    """
    See to a listener, notifier or log that runs, and of which the last reference is lost.

    As a rule that is a ResourceWarning. In IPython, and so in Jupyter, a cell that is run again
    puts another one in the place of a variable, and nobody could close the first one any more. So
    it is closed there, and a line says so.

    Args:
        thing: What is lost.
        close: Returns a coroutine that closes what runs of it, and does not refer to it.
        loop: In which it runs.

    Returns:
        Whether it is being closed.
    """
    if not _is_in_ipython():
        warnings.warn(
            f"{thing!r} was not closed, and runs on: keep a reference to it, and close it with"
            " aclose(), or use `async with`",
            ResourceWarning,
            stacklevel=3,
            source=thing,
        )
        return False
    with contextlib.suppress(RuntimeError):  # the loop has been closed: the process ends
        loop.call_soon_threadsafe(_begin, close, context=Context())
        text = (
            "%r is being closed, because nothing refers to it any more: a cell that is run again"
            " puts another one in its place; aclose() before that would wait for its end"
        )
        log.warning(_warnings, type(thing).__name__, text, thing)
    return True


def _is_in_ipython() -> bool:
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and get_shell() is not None


def _begin(close: Callable[[], Coroutine[Any, Any, object]]) -> None:
    task = asyncio.ensure_future(close())
    _closing.add(task)
    task.add_done_callback(_closed)


def _closed(task: asyncio.Future[object]) -> None:
    _closing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("an object that nothing refers to could not be closed", exc_info=error)


_kept: Final[list[object]] = []
_left_to_parent: Final[list[object]] = []
_closing: Final[set[asyncio.Future[object]]] = set()
