"""Plain functions of the caller's, which the event loop calls in worker threads."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

from asyncnotify._arguments import check_callback, check_ran, is_async
from asyncnotify._tasks import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable

_this_thread = threading.local()


class InWorkerThread:
    """
    An async function that calls a plain one in a worker thread, for one listener.

    Each call at the same time gets a thread of its own: one that blocks delays no other. The
    subscription limits how many calls of one function there are.

    When a call is cancelled, its thread goes on by itself. A ``shielded`` call is made also when
    the task is cancelled.
    """

    def __init__(
        self, function: Callable[..., object], owner: object, *, shielded: bool = False
    ) -> None:
        self._function = function
        self._owner = owner
        self._shielded = shielded

    async def __call__(self, *args: object) -> None:
        """Call the function; return when it has returned, or raise what it raised."""
        call = self._called(args)
        await (asyncio.shield(call) if self._shielded else call)

    async def _called(self, args: tuple[object, ...]) -> None:
        from anyio import CapacityLimiter, to_thread  # noqa: PLC0415 - only threads need anyio

        outcome = await to_thread.run_sync(self._outcome, args, limiter=CapacityLimiter(1))
        try:
            outcome.open()
        finally:
            del outcome  # the traceback of its error holds this frame

    def _outcome(self, args: tuple[object, ...]) -> Sealed[None]:
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
        return Sealed()


def in_worker_thread(
    name: str,
    function: Any,  # noqa: ANN401 - any object, which is checked here
    owner: object,
    *,
    shielded: bool = False,
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
    return InWorkerThread(function, owner, shielded=shielded)


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
