"""A session that serves a consumer: it holds the consumer's lock, and a token that proves it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._logs import Log
from asyncnotify.log._consuming.ahead import AheadSession
from asyncnotify.log._errors import BucketCountError, LogError, UnknownConsumerError
from asyncnotify.log._ports import Statement
from asyncnotify.log._schema.tables import buckets_query
from asyncnotify.log._values import Position
from asyncnotify.log._walk.buckets import WHOLE
from asyncnotify.log._walk.cursor import Behind, Cursor, Expired
from asyncnotify.log._walk.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSessions
    from asyncnotify.log._walk.buckets import Bucket
    from asyncnotify.log._walk.columns import Columns
    from asyncnotify.log._walk.statements import Statements
    from asyncnotify.log._walk.walk import Size

log = Log("log")

PROGRESS: Final = 10.0
"""Seconds, at least, between commits of a cursor behind which nothing was handled: it holds events
of other channels back from being removed."""

_TRY_AGAIN: Final = 0.25
"""Seconds, about, between attempts to take a consumer that another session serves. One that waited
at the server for the lock would hold a snapshot, and keep VACUUM from removing anything."""


MARK: Final = "pg_catalog.set_config('asyncnotify.transaction', 'marked', true)"
MARKED: Final = "pg_catalog.current_setting('asyncnotify.transaction', true) = 'marked'"
"""A setting that ends with the transaction in which it is made: whoever finds it is still in that
transaction, which no function of the user's has committed or rolled back."""


_BURY: Final = (
    "bury($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"
    " $13::pg_catalog.text::pg_catalog.jsonb, $14)"
)
"""The consumer gives the event too, as it has read it."""


class BusyError(Exception):
    """Another session serves the bucket, or it is paused."""


class TakenOverError(Exception):
    """The consumer's cursor is not this session's to move any more: nothing was moved."""


class TransactionEndedError(LogError):
    """The transaction in which a function was called has been ended, and not by us."""

    def __str__(self) -> str:
        return (
            "the handler has ended the transaction that it was called in (COMMIT or ROLLBACK),"
            " which also moves the cursor: use savepoints, as connection.transaction() makes, or a"
            " connection of the handler's own"
        )


class Serving:
    """
    A session that serves a consumer.

    Args:
        session: The session.
        names: Of the log.
        owner: The consumer, its bucket, and the token that proves that it is this session's.
        cursor: A place in the log.

    Attributes:
        session: The session.
        cursor: The place in the log up to which it has read.
        expired: What had been removed at the place where the cursor stood, if anything.
    """

    def __init__(
        self, session: AheadSession, names: Names, owner: tuple[str, int, int], cursor: Cursor
    ) -> None:
        self.session = session
        self.cursor = cursor
        self._kept_at = asyncio.get_running_loop().time()
        cursor.on_passed = self._keep
        self.expired: Expired | None = None
        self._names = names
        self._owner = owner

    async def commit(self, position: Position) -> None:
        """
        Move the consumer's cursor.

        Raises:
            TakenOverError: It is not this session's to move.
            Exception: As of ``LogSession.fetch()``.
        """
        place = position[1:]
        await self._with_token("commit", "commit_consumer($1, $2, $3, $4, $5, $6)", *place)

    async def check(self) -> None:
        """Return if the consumer is still this session's; raises as ``commit()``."""
        await self._with_token("has_consumer", "has_consumer($1, $2, $3)")

    async def _keep(self) -> None:
        """
        Keep the place now and then, on the way through events that are not wanted.

        What was given before is done when it is asked for more. Else a consumer that has far to go
        would begin anew after each loss, hold its events back from being removed, and not notice
        a seek, a pause or a drop until it is there.
        """
        now = asyncio.get_running_loop().time()
        if now - self._kept_at < PROGRESS:
            await self.check()
        else:
            self._kept_at = now
            await self.commit(self.cursor.position)

    async def hold(self) -> None:
        """
        Keep others from taking the consumer until the transaction ends; raises as ``commit()``.

        The transaction is marked, for ``commit_in_marked()``.
        """
        query = f"SELECT {self._names.prefix}_hold_consumer($1, $2, $3), {MARK}"
        await self._is_done(Statement("hold_and_mark", query))

    async def commit_in_marked(self, position: Position) -> None:
        """
        Move the consumer's cursor in the transaction that ``hold()`` has marked.

        Raises:
            TransactionEndedError: That has ended.
            Exception: As of ``commit()``.
        """
        commit = f"{self._names.prefix}_commit_consumer($1, $2, $3, $4, $5, $6)"
        query = f"SELECT CASE WHEN {MARKED} THEN {commit} END"
        await self._is_done(Statement("commit_in_marked", query), *position[1:])

    async def bury(self, position: Position, attempts: int, error: str, columns: Columns) -> None:
        """Keep an event, one of these, as a dead letter; raises as ``commit()``."""
        event = columns.of(position.id)
        await self._with_token("bury", _BURY, *position[1:], attempts, error, *event)

    async def _with_token(self, verb: str, function: str, *arguments: object) -> None:
        call = Statement(verb, f"SELECT {self._names.prefix}_{function}")
        await self._is_done(call, *arguments)

    async def _is_done(self, statement: Statement, *arguments: object) -> None:
        [row] = await self.session.fetch(statement, *self._owner, *arguments)
        if row[0] is None:
            raise TransactionEndedError
        if not row[0]:
            raise TakenOverError


def _behind(row: Any) -> Behind | None:  # noqa: ANN401 - a record of the driver's
    """Return what the consumer had behind it when events before it were removed, if they were."""
    total = row["behind_total"]
    return None if total is None else Behind(total, row["behind_since"], row["behind_is_exact"])


class Server:
    """
    Makes sessions that serve one consumer, or one bucket of it.

    Args:
        sessions: Makes connections.
        names: Of the log.
        consumer: The checked name.
        bucket: Which of its buckets. A consumer that is not split has one.
        statements: Of the events that it wants.
        size: How much is read at once.
    """

    def __init__(
        self,
        sessions: LogSessions,
        names: Names,
        consumer: str,
        bucket: Bucket,
        *,
        statements: Statements,
        size: Size,
    ) -> None:
        self._sessions = sessions
        self._names = names
        self._consumer = consumer
        self._bucket = bucket
        self._statements = statements
        self._size = size
        self._lock = names.bucket_lock(consumer, bucket.number)

    async def open(self, on_wait: Callable[[], None]) -> Serving:
        """
        Return a session that serves the consumer, once no other does. May be cancelled.

        Args:
            on_wait: Called whenever another session serves it, or it is paused.

        Raises:
            BusyError: Another session serves this bucket, of several, or the consumer is paused.
            UnknownConsumerError: There is no such consumer.
            BucketCountError: It was made anew, with another number of buckets.
            Exception: As of ``LogSessions.open()`` and ``LogSession.fetch()``.
        """
        session = AheadSession(await self._sessions.open())
        try:
            row = await self._taken(session, on_wait)
            walk = Walk(session, self._statements, self._size, expect=session.expect)
            cursor = Cursor(walk, self._names.log)
            owner = (self._consumer, self._bucket.number, row["token"])
            serving = Serving(session, self._names, owner, cursor)
            position = Position(self._names.log, row["epoch"], row["tick"], row["id"])
            serving.expired = await cursor.at_position(position, _behind(row))
        except BaseException:
            session.terminate()
            await session.close(self._sessions)
            raise
        return serving

    async def _taken(self, session: AheadSession, on_wait: Callable[[], None]) -> Any:  # noqa: ANN401 - a record of the driver's
        """Return the consumer's row once this session has its lock, and it is not paused."""
        take = f"SELECT * FROM {self._names.prefix}_take_consumer($1, $2, $3)"
        subject = f"consumer {self._consumer!r} of log {self._names.log!r}"
        has_waited = False
        while True:
            rows = await session.fetch(
                Statement("take_consumer", take), self._consumer, self._bucket.number, self._lock
            )
            if rows:
                self._check_count(rows[0]["buckets"])
                if has_waited:
                    log.info("%s is served by this process now", subject)
                return rows[0]
            await self._check_known(session)
            on_wait()
            if self._bucket.of != WHOLE:
                raise BusyError
            if not has_waited:
                has_waited = True
                text = "%s waits: another session serves it, or it is paused (see Log.status())"
                log.info(text, subject)
            await asyncio.sleep(_TRY_AGAIN * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret

    async def _check_known(self, session: AheadSession) -> None:
        rows = await session.fetch(Statement("knows", buckets_query(self._names)), self._consumer)
        if not rows:
            raise UnknownConsumerError(self._consumer)
        self._check_count(rows[0][0])

    def _check_count(self, present: int) -> None:
        # With another number, this bucket would have other keys than its cursor is for
        if present != self._bucket.of:
            raise BucketCountError(self._consumer, self._bucket.of, present)

    async def close(self, serving: Serving) -> None:
        """Give the consumer back, with its session."""
        session = serving.session
        try:
            if not session.lost:
                unlock = f"SELECT pg_catalog.pg_advisory_unlock({self._lock})"
                await session.execute(Statement("unlock", unlock, (self._lock,)))
        finally:
            await session.close(self._sessions)
