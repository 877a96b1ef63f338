"""Sharing the buckets of a consumer: each who serves it has as many as any other, or one more."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from asyncnotify._backoff import Delays
from asyncnotify._tasks import cancel
from asyncnotify.log._errors import BucketCountError, UnknownConsumerError
from asyncnotify.log._ports import Statement
from asyncnotify.log._reading.failures import PASSING, needs_repair, raise_if_final
from asyncnotify.log._sessions import session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._backoff import Backoff
    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSession, LogSessions
    from asyncnotify.log._reporting import Reports

_LOOK_AGAIN: Final = 0.25
"""Seconds, about, between looks at who else shares the buckets, and at which of them are free."""


class View(NamedTuple):
    """
    Who shares the buckets of a consumer, as one of them sees it.

    Attributes:
        members: How many share them.
        rank: Which of these one is, from 0 on.
        held: The numbers of the buckets that are served, by whomever.
        is_paused: Whether nobody is to serve any.
    """

    members: int
    rank: int
    held: frozenset[int]
    is_paused: bool

    def share(self, count: int) -> int:
        """Return how many of so many buckets are one's own to serve."""
        if self.is_paused:
            return 0
        each, over = divmod(count, self.members)
        return each + (self.rank < over)


class Served(Protocol):
    """A bucket that this process serves, or is about to serve."""

    task: asyncio.Task[bool]
    """Ends when the bucket is not served any more; returns whether it may be served here again."""

    is_released: bool

    @property
    def is_busy(self) -> bool:
        """Whether an event of it is being handled."""
        ...

    def release(self) -> None:
        """End as soon as what is being handled is done. Never waits."""
        ...


class Sharing:
    """
    Has this process serve its share of a consumer's buckets, as others come and go.

    Everyone who shares them has a session that holds one lock together with the others: so each
    can count all, and one whose process dies is not counted any more, without a clock. A bucket
    has a lock and a session of its own. Nobody hands a bucket over: who has too many gives some
    up, who has too few takes free ones.

    Args:
        sessions: Makes connections.
        names: Of the log.
        consumer: The checked name.
        count: How many buckets it has.
        begin: Called with the number of a bucket: begins to serve it.
        backoff: Of attempts to connect.
        reports: Of what happens to the consumer.
    """

    def __init__(
        self,
        sessions: LogSessions,
        names: Names,
        consumer: str,
        *,
        count: int,
        begin: Callable[[int], Served],
        backoff: Backoff,
        reports: Reports,
    ) -> None:
        self._reports = reports
        self._sessions = sessions
        self._consumer = consumer
        self._begin = begin
        self._backoff = backoff
        self._delays = Delays(backoff)
        self._membership = names.members_lock(consumer)
        self._locks = {names.bucket_lock(consumer, number): number for number in range(count)}
        self._query = _query(names)
        self._served: dict[int, Served] = {}
        self._ended: set[int] = set()
        self._stop = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether a bucket is served here, or is about to be."""
        return any(not served.task.done() for served in self._served.values())

    def stop(self) -> None:
        """Have ``run()`` end, after what is being handled."""
        self._stop.set()
        for served in self._served.values():
            served.release()

    async def run(self) -> None:
        """
        Run until stopped or cancelled. Then no bucket is served here any more.

        Raises:
            UnknownConsumerError: The consumer has been dropped.
            BucketCountError: It has been made anew, with another number of buckets.
            Exception: What retrying will not help against.
        """
        try:
            while not self._stop.is_set():
                try:
                    await self._take_part()
                except PASSING as error:
                    raise_if_final(error, is_new=not self._reports.has_succeeded)
                    delay = self._delays.next()
                    repair = needs_repair(error)
                    self._reports.interrupted(self, error, delay, needs_repair=repair)
                    await self._pause(delay)
            if tasks := self._tasks():
                await asyncio.wait(tasks)
        finally:
            self._reports.gone(self)
            await cancel(self._tasks())

    async def _take_part(self) -> None:
        """Be counted, and share, as long as the session lasts."""
        async with session_of(self._sessions) as session:
            lock = f"SELECT pg_catalog.pg_advisory_lock_shared({self._membership})"
            await session.execute(Statement("lock_shared", lock, (self._membership,)))
            while not self._stop.is_set():
                view = await self._look(session)
                if not self._stop.is_set():  # what begins later would not be told to end
                    self._share(view)
                self._reports.succeeded(self)
                self._delays = Delays(self._backoff)
                await self._pause(_LOOK_AGAIN * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            unlock = f"SELECT pg_catalog.pg_advisory_unlock_shared({self._membership})"
            await session.execute(Statement("unlock_shared", unlock, (self._membership,)))

    async def _look(self, session: LogSession) -> View:
        locks = [self._membership, *self._locks]
        rows = await session.fetch(self._query, self._consumer, list(map(str, locks)))
        if not rows:
            raise UnknownConsumerError(self._consumer)
        if (present := rows[0]["buckets"]) != len(self._locks):
            raise BucketCountError(self._consumer, len(self._locks), present)
        members = sorted(row["pid"] for row in rows if row["lock"] == self._membership)
        held = frozenset(self._locks[row["lock"]] for row in rows if row["lock"] in self._locks)
        return View(len(members), members.index(rows[0]["own"]), held, rows[0]["is_paused"])

    def _share(self, view: View) -> None:
        """Give up what is too much, or take what is missing and free."""
        self._forget_ended()
        surplus = len(self._served) - view.share(len(self._locks))
        if surplus > 0:
            # What ends already first, then what keeps nobody waiting for the end of its work
            for served in sorted(self._served.values(), key=_reluctance)[:surplus]:
                served.release()
        elif surplus < 0:
            free = set(self._locks.values()) - view.held - self._served.keys() - self._ended
            for number in random.sample(sorted(free), min(-surplus, len(free))):
                self._served[number] = self._begin(number)

    def _forget_ended(self) -> None:
        for number, served in [*self._served.items()]:
            if served.task.done():
                del self._served[number]
                if not served.task.cancelled() and not served.task.result():
                    self._ended.add(number)

    def _tasks(self) -> list[asyncio.Task[bool]]:
        return [served.task for served in self._served.values()]

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


def _reluctance(served: Served) -> tuple[bool, bool]:
    return not served.is_released, served.is_busy


def _query(names: Names) -> Statement:
    """Who holds which of the locks ``$2``: at least one row, unless the consumer is not there."""
    # As texts: for an array of another type the driver takes the caller's codec of its elements
    sql = f"""
        SELECT paused AS is_paused, buckets, pg_catalog.pg_backend_pid() AS own, held.pid, held.lock
        FROM (
            SELECT * FROM {names.consumers} WHERE consumer = $1 AND bucket = 0
            ORDER BY generation DESC LIMIT 1
        ) AS newest LEFT JOIN (
            SELECT pid, (classid::pg_catalog.int8 << 32) | objid::pg_catalog.int8 AS lock
            FROM pg_catalog.pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = (
                SELECT oid FROM pg_catalog.pg_database
                WHERE datname = pg_catalog.current_database()
            )
        ) AS held ON held.lock = ANY ($2::pg_catalog.text[]::pg_catalog.int8[])
    """
    return Statement("look", sql)
