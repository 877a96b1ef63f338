"""What is done in a session: locks are released, tried, and given tokens, in batches."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify._asyncpg import failures
from asyncnotify._errors import ClosedError, describe_error, own_copy
from asyncnotify._logs import Log, WarningLimit
from asyncnotify.lock._errors import LockNotInstalledError
from asyncnotify.lock._names import key_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asyncnotify.lock._queue import Entry, Queue
    from asyncnotify.lock._session import LockSession

log = Log("lock")

TICK: Final = 1.0
"""Seconds between the attempts that are made without being woken: for holders that have died."""

_HANDOVER: Final = 0.010
"""Seconds after a release until the same process tries again, if nothing wakes it before: others
are woken by the same notification, and have the same chance."""

CLOSED: Final = "the locks are being closed"


class Request(NamedTuple):
    """
    A statement that somebody wants to be sent.

    Attributes:
        send: Sends it.
        done: Gets the outcome.
        once: Whether it fails with the session, and is not sent in the next one.
    """

    send: Callable[[LockSession], Awaitable[None]]
    done: asyncio.Future[None]
    once: bool


class Serving:
    """
    Gives a session the commands for what a process has asked for. One task at a time calls it.

    Args:
        queue: What locks are waited for and held.
        on_wait: Called when a lock was not free.
    """

    def __init__(self, queue: Queue, on_wait: Callable[[], None]) -> None:
        self.requests: list[Request] = []
        self._queue = queue
        self._on_wait = on_wait
        self._loop = asyncio.get_running_loop()
        self._next_tick = 0.0
        self._warnings = WarningLimit()

    def try_all(self) -> None:
        """Have all locks tried that are waited for: what has happened to them is not known."""
        self._next_tick = 0.0

    async def work(self, session: LockSession) -> None:
        """Do what is due."""
        await self._send(session)
        await self._try(session)
        await self._number(session)
        if self._loop.time() - session.asked >= session.beat_after:
            await session.beat()
        self._queue.forget_unused()

    def rest_of(self, session: LockSession) -> float:
        """Return the seconds until something is to be done, if nothing new comes."""
        if self._queue.to_release() or self.requests:
            return 0.0
        due = self._queue.next_due()
        at = session.asked + session.beat_after
        return max(0.0, (at if due is None else min(due, at)) - self._loop.time())

    async def release(self, session: LockSession) -> None:
        """Release what nobody needs any more, and wake who waits for it."""
        entries = self._queue.to_release()
        if not entries:
            return
        keys = {key_of(entry.name): entry for entry in entries}
        try:
            held = await session.release(keys)
        except Exception as error:
            if not failures.is_refusal(error):
                raise
            held = set(keys)  # a full queue refuses the notification, and undoes no unlocking
            await session.unlock(keys)
            text = "a release was not notified: processes that wait try again within a second: %s"
            log.warning(self._warnings, "release", text, describe_error(error))
        for key, entry in keys.items():
            self._was_released(entry, was_held=key in held)
        self._queue.forget_unused()

    def _was_released(self, entry: Entry, *, was_held: bool) -> None:
        holding, released = entry.holding, entry.released
        entry.is_free()
        entry.released = None
        entry.due = self._loop.time() + _HANDOVER
        if holding is not None and not was_held:
            holding.lose("its session did not have the lock any more")
        if released is not None and not released.done():
            released.set_result(None)

    async def _send(self, session: LockSession) -> None:
        while self.requests:
            request = self.requests.pop(0)
            try:
                await request.send(session)
            except BaseException as error:
                _fail([request], error if isinstance(error, Exception) else ClosedError(CLOSED))
                if not isinstance(error, LockNotInstalledError) and not failures.is_refusal(error):
                    raise
            else:
                if not request.done.done():
                    request.done.set_result(None)

    async def _try(self, session: LockSession) -> None:
        now = self._loop.time()
        is_tick = now >= self._next_tick
        entries = self._queue.wanted(float("inf") if is_tick else now)
        if is_tick:
            self._next_tick = now + TICK * random.uniform(0.9, 1.0)  # noqa: S311 - jitter, not a secret
        if not entries:
            return
        for entry in entries:
            entry.due = self._next_tick  # before: a release may be told of while the answer comes
        async with _Undoing(session, entries):
            if is_tick:
                await session.end_frozen([entry.name for entry in entries])
            taken = await session.try_locks(key_of(entry.name) for entry in entries)
            for entry in entries:
                self._was_tried(entry, is_taken=key_of(entry.name) in taken)

    def _was_tried(self, entry: Entry, *, is_taken: bool) -> None:
        entry.is_taken = is_taken
        if is_taken:
            entry.due = 0.0
        else:
            entry.busy()
            self._on_wait()

    async def _number(self, session: LockSession) -> None:
        entries = self._queue.unnumbered(self._loop.time())
        if not entries:
            return
        async with _Undoing(session, entries):
            tokens = await session.number([entry.name for entry in entries])
            for entry in entries:
                if entry.name in tokens:
                    entry.hand_over(tokens[entry.name])
                else:  # the last holder's transaction is open: for one attempt it is not free
                    entry.busy()
                    entry.put_off(self._loop.time())

    def lose_all(self, reason: str, cause: BaseException | None) -> None:
        """Lose what the session had."""
        for entry in self._queue:
            holding, released = entry.holding, entry.released
            entry.is_free()
            entry.released = None
            if holding is not None:
                holding.lose(reason, cause)
            if released is not None and not released.done():
                released.set_result(None)  # who waits for it asks whether the lock was lost
        self._queue.forget_unused()

    def fail_all(self, error: Exception, *, only_once: bool = False) -> None:
        """Tell those who wait, or those of them who asked for one attempt, why they get nothing."""
        for entry in self._queue:
            entry.fail(error, only_once=only_once)
        failed = [request for request in self.requests if request.once or not only_once]
        self.requests = [request for request in self.requests if request not in failed]
        _fail(failed, error)
        self._queue.forget_unused()


def _fail(requests: Iterable[Request], error: Exception) -> None:
    for request in requests:
        if not request.done.done():
            request.done.set_exception(own_copy(error))


class _Undoing:
    """If the server refuses what is done in here: gives the locks back, and tells who waits why."""

    def __init__(self, session: LockSession, entries: list[Entry]) -> None:
        self._session = session
        self._entries = entries

    async def __aenter__(self) -> None:
        for entry in self._entries:
            entry.in_flight = True

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        for entry in self._entries:
            entry.in_flight = False
        is_refused = error is not None and (
            failures.is_refusal(error) or isinstance(error, LockNotInstalledError)
        )
        if not is_refused or not isinstance(error, Exception):
            return False
        # Of a batch that was refused, some may have been locked: an abort unlocks nothing
        await self._session.unlock(key_of(entry.name) for entry in self._entries)
        for entry in self._entries:
            entry.is_free()
            entry.fail(error)
        return True
