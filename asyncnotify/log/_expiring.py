"""The task of a log that removes old events now and then."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._errors import describe_error
from asyncnotify._logs import Log

if TYPE_CHECKING:
    import weakref

log = Log("log")

_EXPIRY: Final = 60.0
"""Seconds, about, between attempts of a process to remove old events."""


async def expire_now_and_then(expire: weakref.WeakMethod[Any], log_name: str) -> None:
    """Empty partitions, each minute about; only one process at a time does."""
    while True:
        await asyncio.sleep(_EXPIRY * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        call = expire()
        if call is None:
            return
        try:
            count: int = await call()
        except Exception as error:  # noqa: BLE001 - the next attempt comes soon
            text = "old events of log %r were not removed; the next attempt follows within 90 s: %s"
            log.info(text, log_name, describe_error(error))
        else:
            log.debug("partitions of old events that were emptied in log %r: %d", log_name, count)
        del call


def cancel_from_anywhere(task: asyncio.Task[None]) -> None:
    """Cancel a task, from whatever thread; in a fork there is nobody who would run it."""
    with contextlib.suppress(RuntimeError):  # its loop has been closed
        task.get_loop().call_soon_threadsafe(task.cancel)
