"""
The event loop that serves all blocking listeners and notifiers of a process, in one thread.

Under gevent, which makes all threads one, no second loop could run. The thread begins with the
first that attaches itself, and ends when the last one has detached itself. It is a daemon, as are
those of the handlers: none of them keeps the interpreter from ending.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import selectors
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from asyncnotify._blocking.waiting import Instances, Outcome
from asyncnotify._errors import ConnectError, describe_error
from asyncnotify._logs import Log
from asyncnotify._owner import leave_to_parent
from asyncnotify._tasks import cancel

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

log = Log("connection")

_EARLIER_LIMIT: Final = 5.0
"""Seconds for which a loop waits for the end of the earlier one, which a callback may block."""

_PAUSE_LIMIT: Final = 5.0
"""Seconds after which a loop that was paused goes on by itself."""

_BEFORE_FORK: Final = 0.5
"""Seconds in which the loop pauses before a fork; a blocked loop does not pause."""


class User(Protocol):
    """What runs something in the loop."""

    thread: LoopThread | None
    """The thread that it is attached to."""

    def loop_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to use the loop, if not done yet. Called in the loop, once or more."""
        ...

    def loop_ended(self, failure: BaseException | None) -> None:
        """Use the loop no more, because of this failure, if any. Called once."""
        ...


class LoopThread:
    """
    An event loop in a thread of its own, from its beginning to its end.

    Args:
        earlier: The one before, which ends first: under gevent it runs in the same thread.
    """

    def __init__(self, earlier: LoopThread | None) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._earlier = earlier
        self._process = os.getpid()
        self._users: set[User] = set()
        self._closed = False
        self._ended: Outcome[None] = Outcome()
        self._stopped: asyncio.Future[None]
        self._ident: int | None = None
        self._paused: threading.Lock | None = None
        self._thread = threading.Thread(target=self._run, name="asyncnotify", daemon=True)
        _threads.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it takes further users: it does until the last one has left."""
        return not self._closed and not self.is_other_process

    @property
    def is_other_process(self) -> bool:
        """Whether this is a fork of the process in which the loop runs."""
        return os.getpid() != self._process

    @property
    def is_here(self) -> bool:
        """Whether the caller is the loop's own thread."""
        return threading.get_ident() == self._ident and not self.is_other_process

    def wake(self) -> None:
        """Let the loop meet the users that it has not met yet. From any thread."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended, and tells them so
                self.loop.call_soon_threadsafe(self._meet_users)

    def detach(self, user: User) -> None:
        """End the loop if this was the last user. Called in the loop."""
        with _shared.lock:
            self._users.discard(user)
            if self._users:
                return
            self._closed = True
        if not self._stopped.done():
            self._stopped.set_result(None)

    def join(self, timeout: float) -> None:
        """Return when the thread has ended, or other users keep it, or the seconds are over."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(TimeoutError):
            if self._closed:
                self._ended.result(timeout)
                if self._thread.ident is not None:
                    self._thread.join(max(0.0, deadline - time.monotonic()))

    def pause(self, deadline: float) -> None:
        """Pause the loop between two callbacks, until resume(); return by the deadline."""
        if self.loop is not None and self.is_open and not self.is_here:
            paused, standing = threading.Lock(), Outcome[None]()
            paused.acquire()
            self._paused = paused
            with contextlib.suppress(RuntimeError, TimeoutError):
                self.loop.call_soon_threadsafe(_stand_still, standing, paused)
                standing.result(max(0.0, deadline - time.monotonic()))

    def resume(self) -> None:
        """Resume the loop."""
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.release()

    # -- the beginning ------------------------------------------------------------------------

    def add(self, user: User) -> None:
        """Take a further user."""
        # After the first step the user is known here: a signal handler runs after a call only
        user.thread = self
        self._users.add(user)
        self.wake()

    def launch(self, user: User) -> None:
        """
        Start the thread for its first user, without waiting for it.

        Raises:
            ConnectError: The system has no more threads.
        """
        self._users.add(user)
        try:
            # Here no signal handler runs between one step and the next. Thread.start() waits for
            # the thread by an Event, which must not be interrupted: it is called in a thread
            # where no signal handler runs
            _shared.thread = user.thread = self
            _thread.start_new_thread(self._start_thread, ())
        except RuntimeError as error:
            self._end(error)
            raise failed_error(error) from error

    def _start_thread(self) -> None:
        try:
            self._thread.start()
        except BaseException as error:  # noqa: BLE001 - the users are told
            self._end(error)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            earlier, self._earlier = self._earlier, None
            if earlier is not None:
                earlier.join(_EARLIER_LIMIT)
            _check_thread()
            loop = _new_loop()
        except BaseException as error:  # noqa: BLE001 - the users are told
            self._end(error)
        else:
            self._end(self._run_in(loop))

    def _run_in(self, loop: asyncio.AbstractEventLoop) -> BaseException | None:
        """Run the loop to its end; return what kept it from running, or None."""
        try:
            self._run_on(loop, loop.create_task(self._keep(loop)))
        except BaseException as error:
            if self.loop is None:
                return error
            log.critical(
                "an exception has ended the event loop that the blocking listeners, notifiers and"
                " logs of this process share: all of them are closed",
                exc_info=error,
            )
        finally:
            self._closed = True
            _end_tasks(loop)
            loop.close()
        return None

    def _run_on(self, loop: asyncio.AbstractEventLoop, keeping: asyncio.Task[None]) -> None:
        """Run until the last user has left: one of them does not end the others by SystemExit."""
        while not keeping.done():
            try:
                loop.run_until_complete(keeping)
            except SystemExit as error:
                log.critical(
                    "a function that was called in the event loop raised SystemExit, which cannot"
                    " end the program from this thread; the event loop goes on",
                    exc_info=error,
                )
        keeping.result()

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_default_executor(_DaemonThreads())
        self._stopped = loop.create_future()
        self.loop = loop
        self._meet_users()  # a later one finds the loop
        await self._stopped

    def _meet_users(self) -> None:
        if self.loop is not None:
            for user in list(self._users):
                user.loop_runs(self.loop)

    def _end(self, failure: BaseException | None) -> None:
        """Tell every user: none may wait for the loop any more."""
        with _shared.lock:
            self._closed = True
        self._ident = None  # the system may give it to another thread
        for user in list(self._users):
            user.loop_ended(failure)
        self._ended.set_result(None)


class _Shared:
    """The newest thread. A thread that holds the lock must not wait for a loop."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread: LoopThread | None = None


_threads: Final[Instances[LoopThread]] = Instances()
_shared: Final = _Shared()


def attach(user: User) -> None:
    """
    Attach a user to the loop of this process; begin one if there is none.

    If interrupted, the user is attached, or as it was.

    Raises:
        ConnectError: The system has no more threads.
    """
    with _shared.lock:
        current = _shared.thread
        if current is not None and current.is_open:
            current.add(user)
        else:
            LoopThread(earlier=current).launch(user)


def failed_error(error: BaseException) -> ConnectError:
    """Return the error of a thread or loop that could not be started, for one caller."""
    failed = ConnectError(f"the event loop could not be started: {describe_error(error)}")
    failed.__cause__ = error
    return failed


# -- forks ----------------------------------------------------------------------------------------


def _before_fork() -> None:
    """Pause the loops, whose callbacks may hold locks of libraries."""
    deadline = time.monotonic() + _BEFORE_FORK
    for thread in _threads:
        thread.pause(deadline)


def _after_fork_in_parent() -> None:
    for thread in _threads:
        thread.resume()


def _after_fork_in_child() -> None:
    """Replace the lock, which a thread of the parent may hold, and start again."""
    _shared.lock = threading.RLock()
    leave_to_parent(_shared.thread)
    _shared.thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


# -- the loop -------------------------------------------------------------------------------------


class _DaemonThreads(ThreadPoolExecutor):
    """
    The loop's default executor, which looks names up: a daemon thread for each.

    Those of concurrent.futures hold up the end of the interpreter, and serve nobody any more
    once its main thread has ended, though other threads go on.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401 - passed on
        """Call the function in a thread of its own."""
        call: Future[T] = Future()

        def run() -> None:
            if call.set_running_or_notify_cancel():
                try:
                    call.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - the caller gets it
                    call.set_exception(error)

        threading.Thread(target=run, name="asyncnotify lookup", daemon=True).start()
        return call


def _check_thread() -> None:
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - get_running_loop() raises
        msg = (
            "another event loop runs in this thread: gevent makes all threads one, in which asyncio"
            " and the blocking classes cannot both run"
        )
        raise RuntimeError(msg)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of asyncio's own, whatever policy the program has set."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return _SelectorEventLoop(selectors.DefaultSelector())


class _SelectorEventLoop(asyncio.SelectorEventLoop):
    """A loop that is closed if there are not enough file descriptors for it."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        try:
            super().__init__(selector)
        except BaseException:
            selector.close()
            asyncio.BaseEventLoop.close(self)  # its own close() needs what could not be opened
            raise


def _stand_still(standing: Outcome[None], paused: threading.Lock) -> None:
    standing.set_result(None)
    paused.acquire(timeout=_PAUSE_LIMIT)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(Exception):
        loop.run_until_complete(cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
