"""Users' plain functions, called in worker threads on behalf of the event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

from asyncnotify._arguments import check_callback, is_async

if TYPE_CHECKING:
    from collections.abc import Callable

_this_thread = threading.local()


class InWorkerThread:
    """
    An async function that calls a plain one in a worker thread, for one owner.

    However many are called at once, each gets a thread: one that blocks delays no other. How
    many calls of the same function there may be is for the subscription to say.

    Cancelling leaves a thread to itself. A call that is ``shielded`` is made even so.
    """

    def __init__(
        self, function: Callable[..., object], owner: object, *, shielded: bool = False
    ) -> None:
        self._function = function
        self._owner = owner
        self._shielded = shielded

    async def __call__(self, *args: object) -> None:
        """Call it; return when it has returned, or raise what it raised."""
        call = self._called(args)
        await (asyncio.shield(call) if self._shielded else call)

    async def _called(self, args: tuple[object, ...]) -> None:
        from anyio import CapacityLimiter, to_thread  # noqa: PLC0415 - who has no threads needs none

        error = await to_thread.run_sync(self._error_of_call, args, limiter=CapacityLimiter(1))
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def _error_of_call(self, args: tuple[object, ...]) -> BaseException | None:
        _this_thread.owner = self._owner
        try:
            _refuse_awaitable(self._function(*args))
        except (KeyboardInterrupt, SystemExit) as error:
            exit_error = RuntimeError(f"a thread cannot end the program by {type(error).__name__}")
            exit_error.__cause__ = error
            return exit_error
        except BaseException as error:  # noqa: BLE001 - it is told there where it is awaited
            return error
        finally:
            _this_thread.owner = None
        return None


def in_worker_thread(
    name: str,
    function: Any,  # noqa: ANN401 - what it is remains to be seen
    owner: object,
    *,
    shielded: bool = False,
) -> InWorkerThread | None:
    """
    Return the async function that calls a plain one in a worker thread; of None, None.

    Raises:
        TypeError: It cannot be called, or would have to be awaited.
    """
    if function is None:
        return None
    check_callback(name, function)
    if is_async(function):
        msg = f"an async {name} needs an event loop: give it to Listener, or make it a plain def"
        raise TypeError(msg)
    return InWorkerThread(function, owner, shielded=shielded)


def is_served_here(owner: object) -> bool:
    """Whether this code was called by a worker thread, on behalf of this owner."""
    return getattr(_this_thread, "owner", None) is owner


def _refuse_awaitable(result: object) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        msg = "it returned an awaitable, which needs an event loop: give it to Listener"
        raise TypeError(msg)
