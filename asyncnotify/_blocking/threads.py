"""Plain functions of the caller's, which the event loop calls in worker threads."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

from asyncnotify._arguments import check_callback, check_ran, is_async
from asyncnotify._subscriptions.running import Running
from asyncnotify._tasks import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable

_this_thread = threading.local()


class InWorkerThread:
    """
    An async function that calls a plain one in a worker thread, for one listener.

    Each call at the same time gets a thread of its own: one that blocks delays no other. The
    subscription limits how many calls of one function there are.

    When a call is cancelled, its thread goes on by itself, and counts as one of the ``limit`` that
    may run at the same time until it has returned. A call that is cancelled before it has begun is
    not made; a ``shielded`` one is made also then.
    """

    def __init__(
        self,
        function: Callable[..., object],
        owner: object,
        *,
        shielded: bool = False,
        limit: int | None = None,
    ) -> None:
        self._function = function
        self._owner = owner
        self._shielded = shielded
        self._running = Running(limit)

    async def __call__(self, *args: object) -> None:
        """Call the function; return when it has returned, or raise what it raised."""
        call = self._called(args)
        await (asyncio.shield(call) if self._shielded else call)

    async def _called(self, args: tuple[object, ...]) -> None:
        from anyio import CapacityLimiter, to_thread  # noqa: PLC0415 - only threads need anyio

        await self._running.enter()
        beginning = _Beginning()
        try:
            outcome = await to_thread.run_sync(
                self._outcome, args, beginning, limiter=CapacityLimiter(1)
            )
        except BaseException:
            if beginning.prevent():
                self._running.leave()
            raise
        try:
            outcome.open()
        finally:
            del outcome  # the traceback of its error holds this frame

    def _outcome(self, args: tuple[object, ...], beginning: _Beginning) -> Sealed[None]:
        if not beginning.begin():
            return Sealed()
        _this_thread.owner = self._owner
        try:
            _refuse_unrun(self._function(*args))
        except (KeyboardInterrupt, SystemExit) as error:
            name = type(error).__name__
            exit_error = RuntimeError(f"a worker thread cannot end the program by {name}")
            exit_error.__cause__ = error
            return Sealed(error=exit_error)
        except BaseException as error:  # noqa: BLE001 - the task that awaits the call raises it
            return Sealed(error=error)
        finally:
            _this_thread.owner = None
            self._running.leave()
        return Sealed()


class _Beginning:
    """Decides whether a call begins in its thread, or has been cancelled before."""

    def __init__(self) -> None:
        self._decided = threading.Lock()  # taken by who comes first

    def begin(self) -> bool:
        """Return whether the call is to be made: in its thread."""
        return self._decided.acquire(blocking=False)

    def prevent(self) -> bool:
        """Return whether the call will never be made: in the task that was cancelled."""
        return self._decided.acquire(blocking=False)


def in_worker_thread(
    name: str,
    function: Any,  # noqa: ANN401 - any object, which is checked here
    owner: object,
    *,
    shielded: bool = False,
    limit: int | None = None,
) -> InWorkerThread | None:
    """
    Return an async function that calls a plain one in a worker thread; None for None.

    Raises:
        TypeError: The function cannot be called as it would be, or would have to be awaited.
    """
    if function is None:
        return None
    check_callback(name, function)
    if is_async(function):
        msg = f"an async {name} needs an event loop: use Listener, or make {name} a plain function"
        raise TypeError(msg)
    return InWorkerThread(function, owner, shielded=shielded, limit=limit)


def is_served_here(owner: object) -> bool:
    """Whether this code was called by a worker thread for this listener."""
    return getattr(_this_thread, "owner", None) is owner


def _refuse_unrun(result: object) -> None:
    """Raise TypeError for what a function has returned of which nothing, or not all, has run."""
    check_ran("the function", result)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        msg = "the function returned an awaitable, which needs an event loop: use Listener"
        raise TypeError(msg)
