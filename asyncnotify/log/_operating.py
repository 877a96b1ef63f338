"""What those who operate a log ask of it, and tell it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._errors import PayloadDecodeError
from asyncnotify.log._errors import ConsumerLockedError, UnknownConsumerError
from asyncnotify.log._ports import Statement
from asyncnotify.log._reading.decoding import headers_of
from asyncnotify.log._schema.tables import REGISTRY, buckets_query, not_removed
from asyncnotify.log._status import ConsumerStatus, DeadLetter, LogStatus, WriterStatus
from asyncnotify.log._values import Event, Position
from asyncnotify.log._walk.buckets import bucket_number
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import Queries


_STEP: Final = 0.25
"""Seconds for which the server waits for a consumer at once. A call that is cancelled leaves it
waiting: so it changes nothing later, and one that follows comes behind it."""


class Operations:
    """
    Queries and calls about one log.

    Args:
        queries: A connection.
        names: Of the log.
        lock_wait: Seconds for which a consumer is waited for that a transaction holds.
    """

    def __init__(self, queries: Queries, names: Names, *, lock_wait: float = 0.0) -> None:
        self._queries = queries
        self._names = names
        self._lock_wait = lock_wait

    async def status(self) -> LogStatus:
        """Return the state of the log, as it is now."""
        await Walk(self._queries, Statements(self._names)).newest()
        return await self.last_status()

    async def last_status(self) -> LogStatus:
        """Return the state of the log, as it was at its last tick: nothing is written."""
        [row] = await self._queries.fetch(_log_query(self._names))
        consumers = await self._queries.fetch(_consumers_query(self._names))
        writers = await self._queries.fetch(Statement("oldest_writer", _WRITER))
        return LogStatus(
            name=self._names.log,
            version=row["version"],
            end=Position(self._names.log, row["epoch"], row["tick"], row["top"]),
            events=row["total"],
            kept_since=row["kept_since"],
            size=row["size"],
            retention=row["retention"],
            limit=row["keep_at_most"],
            consumers=tuple(map(self._consumer, consumers)),
            oldest_writer=WriterStatus(**writers[0]) if writers else None,
        )

    def _consumer(self, row: Any) -> ConsumerStatus:  # noqa: ANN401 - a record of the driver's
        values = dict(row)
        place = (values.pop("epoch"), values.pop("tick"), values.pop("id"))
        return ConsumerStatus(position=Position(self._names.log, *place), **values)

    async def dead_letters(self, consumer: str | None, count: int) -> list[DeadLetter]:
        """Return the oldest dead letters, of a consumer or of all."""
        rows = await self._queries.fetch(_dead_letters_query(self._names), consumer, count)
        return [self._dead_letter(row) for row in rows]

    def _dead_letter(self, row: Any) -> DeadLetter:  # noqa: ANN401 - a record of the driver's
        event = Event(
            Position(self._names.log, row["epoch"], row["tick"], row["id"]),
            row["uid"],
            row["channel"],
            row["payload"],
            row["key"],
            _headers(row["channel"], row["headers"]),
            row["appended_at"],
        )
        return DeadLetter(row["consumer"], event, row["attempts"], row["error"], row["died_at"])

    async def discard(self, consumer: str, event_id: UUID) -> bool:
        """Remove a dead letter; return whether there was one."""
        [row] = await self._queries.fetch(
            self._call("discard", "discard($1, $2)"), consumer, event_id
        )
        return bool(row[0])

    async def buckets_of(self, consumer: str) -> int | None:
        """Return how many buckets a consumer has; None if it is not there."""
        rows = await self._queries.fetch(
            Statement("buckets_of", buckets_query(self._names)), consumer
        )
        return rows[0][0] if rows else None

    async def add(self, consumer: str, buckets: int, position: Position) -> None:
        """Make a consumer, unless it is there."""
        call = self._call("add_consumer", "add_consumer($1, $2, $3, $4, $5)")
        await self._queries.fetch(call, consumer, buckets, *position[1:])

    async def seek(self, consumer: str, position: Position) -> None:
        """Move a consumer's cursor."""
        call = self._locked("seek", "seek_consumer($1, $2, $3, $4)", 5)
        await self._known(call, consumer, *position[1:])

    async def pause(self, consumer: str, *, paused: bool) -> None:
        """Let nobody serve a consumer; or again."""
        call = self._locked("pause", "pause_consumer($1, $2)", 3)
        await self._known(call, consumer, paused)

    async def drop(self, consumer: str) -> None:
        """Remove a consumer, its cursor and its dead letters."""
        await self._known(self._locked("drop", "drop_consumer($1)", 2), consumer)

    async def _known(self, call: Statement, consumer: str, *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._lock_wait
        while True:
            left = max(0.0, deadline - loop.time())
            [row] = await self._queries.fetch(call, consumer, *arguments, min(left, _STEP))
            if row[0] is not None:
                break
            if loop.time() >= deadline:
                raise await self._locked_error(consumer)
        if not row[0]:
            raise UnknownConsumerError(consumer)

    async def _locked_error(self, consumer: str) -> ConsumerLockedError:
        """Return the error for a consumer that another transaction has held for too long."""
        rows = await self._queries.fetch(_holder_query(self._names), consumer)
        pid, is_serving = rows[0] if rows else (None, False)
        return ConsumerLockedError(consumer, self._lock_wait, pid, is_serving=is_serving)

    def _locked(self, verb: str, function: str, wait: int) -> Statement:
        """Return a call that first locks the consumer ``$1``, for as long as argument ``wait``."""
        prefix = self._names.prefix
        lock = f"{prefix}_lock_consumer($1, ${wait})"
        return Statement(verb, f"SELECT CASE WHEN {lock} THEN {prefix}_{function} END")

    def _call(self, verb: str, function: str) -> Statement:
        return Statement(verb, f"SELECT {self._names.prefix}_{function}")


def _headers(channel: str, headers: str | None) -> Mapping[str, str]:
    """Return the headers of a dead letter; none if those are why it is one."""
    if headers is None:
        return {}
    try:
        return headers_of(channel, headers)
    except PayloadDecodeError:
        return {}


def _holder_query(names: Names) -> Statement:
    # The lock of a row is in the row: as the xid of the transaction that holds it
    sql = f"""
        SELECT held.pid, held.pid IS NOT DISTINCT FROM c.pid AS is_serving
        FROM {names.consumers} AS c JOIN pg_catalog.pg_locks AS held
            ON held.locktype = 'transactionid' AND held.granted AND held.transactionid = c.xmax
        WHERE c.consumer = $1 ORDER BY c.bucket LIMIT 1
    """
    return Statement("holder", sql)


def _log_query(names: Names) -> Statement:
    sql = f"""
        SELECT newest.epoch, newest.tick, newest.top, newest.total, oldest.taken_at AS kept_since,
            settings.version, settings.retention, settings.keep_at_most,
            (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(relid))::pg_catalog.int8
                FROM pg_catalog.pg_partition_tree('{names.events}')) AS size
        FROM (SELECT * FROM {names.ticks} ORDER BY tick DESC LIMIT 1) AS newest,
            (
                SELECT * FROM {names.ticks} WHERE {not_removed(names)} ORDER BY tick LIMIT 1
            ) AS oldest,
            (SELECT * FROM {REGISTRY} WHERE name = '{names.log}') AS settings
    """
    return Statement("log_status", sql)


def _consumers_query(names: Names) -> Statement:
    # `behind` is the tick behind which all is still to be consumed: the consumer's own, if it has
    # got to its end
    sql = f"""
        SELECT c.consumer AS name, c.bucket, c.buckets, c.epoch, c.tick, c.id,
            greatest(0, newest.total - coalesce(behind.total, oldest.total))
                AS lag_events,
            coalesce((
                SELECT greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - t.taken_at))
                FROM {names.ticks} AS t WHERE t.tick > coalesce(behind.tick, oldest.tick)
                ORDER BY t.tick LIMIT 1
            ), 0)::pg_catalog.float8 AS lag_seconds,
            c.pid,
            EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a
                WHERE a.pid = c.pid AND a.backend_start <= c.taken_at) AS is_served,
            c.paused AS is_paused,
            coalesce(dead.number, 0) AS dead_letters,
            c.committed_at,
            coalesce(behind.tick, oldest.tick) <= (SELECT {names.prefix}_consumed_up_to())
                AS holds_retention
        FROM {names.consumers} AS c
        CROSS JOIN (SELECT * FROM {names.ticks} ORDER BY tick DESC LIMIT 1) AS newest
        CROSS JOIN (
            SELECT * FROM {names.ticks} WHERE {not_removed(names)} ORDER BY tick LIMIT 1
        ) AS oldest
        LEFT JOIN (
            SELECT d.consumer, {bucket_number("known.buckets")} AS bucket,
                pg_catalog.count(*) AS number
            FROM {names.dead_letters} AS d
            JOIN {names.consumers} AS known ON known.consumer = d.consumer AND known.bucket = 0
            GROUP BY 1, 2
        ) AS dead ON dead.consumer = c.consumer AND dead.bucket = c.bucket
        LEFT JOIN {names.ticks} AS own ON own.tick = c.tick
        LEFT JOIN {names.ticks} AS behind
            ON behind.tick = CASE WHEN c.id >= own.final THEN c.tick ELSE c.tick - 1 END
        ORDER BY c.consumer, c.bucket
    """
    return Statement("consumers", sql)


def _dead_letters_query(names: Names) -> Statement:
    sql = f"""
        SELECT consumer, uid, epoch, tick, id, channel, payload, key,
            headers::pg_catalog.text AS headers, appended_at, attempts, error, died_at
        FROM {names.dead_letters} WHERE $1::pg_catalog.text IS NULL OR consumer = $1
        ORDER BY died_at, id LIMIT $2
    """
    return Statement("dead_letters", sql)


_WRITER = """
    SELECT * FROM (
        SELECT pid, NULL AS prepared, datname AS database,
            pg_catalog.clock_timestamp() - xact_start AS age
        FROM pg_catalog.pg_stat_activity
        WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
        UNION ALL
        SELECT NULL, gid, database, pg_catalog.clock_timestamp() - prepared
        FROM pg_catalog.pg_prepared_xacts
    ) AS writer ORDER BY age DESC LIMIT 1
"""
