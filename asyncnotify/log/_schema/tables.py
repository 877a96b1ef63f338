"""The tables of a log, as statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.log._names import CREATE_SCHEMA, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._names import Names

REGISTRY: Final = f"{SCHEMA}.logs"
"""The table of the logs in a database, which all of them share."""

SHARED_TABLES: Final = (
    CREATE_SCHEMA,
    f"""
    CREATE TABLE IF NOT EXISTS {REGISTRY} (
        name pg_catalog.text PRIMARY KEY,
        version pg_catalog.int4 NOT NULL,
        retention pg_catalog.interval NOT NULL,
        keep_at_most pg_catalog.interval,
        ring pg_catalog.int4 NOT NULL,
        first_tick pg_catalog.int8 NOT NULL DEFAULT 0,
        installed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now()
    )
    """,
)


def not_removed(names: Names) -> str:
    """Return the condition for ticks that retention has not removed."""
    # An index scan from the beginning would pass all that VACUUM could not clear away yet: with a
    # million of them, beside an old snapshot, each takes 70 ms
    return f"tick >= (SELECT first_tick FROM {REGISTRY} WHERE name = '{names.log}')"


def buckets_query(names: Names) -> str:
    """Return the query for the number of buckets of consumer ``$1``; no row: it is not there."""
    # By its newest version, as who waits for its turn asks again and again
    return f"""
        SELECT buckets FROM {names.consumers} WHERE consumer = $1 AND bucket = 0
        ORDER BY generation DESC LIMIT 1
    """


def tables_of(names: Names, ring: int) -> Iterator[str]:
    """Yield the statements that make the tables of one log, which must not exist."""
    yield f"CREATE SEQUENCE {names.sequence} CACHE 1"
    yield _events(names)
    yield f"ALTER SEQUENCE {names.sequence} OWNED BY {names.events}.id"
    for slot in range(ring):
        yield leaf_of(names, slot)
    # Composite: the events of one transaction are walked by id
    yield f"CREATE INDEX ON {names.events} (x, id)"
    yield _ticks(names)
    # Both ascend together
    yield f"CREATE INDEX ON {names.ticks} (top, tick)"
    yield _epochs(names)
    yield _first_tick(names)
    yield _consumers(names)
    yield _dead_letters(names)


def leaf_of(names: Names, slot: int) -> str:
    """Return the statement that makes one partition."""
    return f"CREATE TABLE {names.events}_{slot} PARTITION OF {names.events} FOR VALUES IN ({slot})"


def _events(names: Names) -> str:
    # x stands before id: a transaction has its xid before it draws its first id. The walk of a
    # tick rests on that, as every id up to the tick's `top` then belongs to an xid below its `own`.
    # The system column xmin would not do: it is the xid of a subtransaction
    return f"""
    CREATE TABLE {names.events} (
        x pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
        id pg_catalog.int8 NOT NULL DEFAULT pg_catalog.nextval('{names.sequence}'),
        appended_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        uid pg_catalog.uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
        slot pg_catalog.int2 NOT NULL,
        channel pg_catalog.text NOT NULL,
        key pg_catalog.text,
        payload pg_catalog.text NOT NULL,
        headers pg_catalog.jsonb,
        PRIMARY KEY (id, slot)
    ) PARTITION BY LIST (slot)
    """


def _ticks(names: Names) -> str:
    # base: ids up to it were given before the epoch, so their x is of another cluster.
    # whole: the first tick of an epoch holds all that the last one of the old epoch left out
    return f"""
    CREATE TABLE {names.ticks} (
        tick pg_catalog.int8 PRIMARY KEY,
        epoch pg_catalog.int4 NOT NULL,
        base pg_catalog.int8 NOT NULL,
        snapshot pg_catalog.pg_snapshot NOT NULL,
        own pg_catalog.xid8 NOT NULL,
        top pg_catalog.int8 NOT NULL,
        final pg_catalog.int8 NOT NULL,
        total pg_catalog.int8 NOT NULL,
        whole pg_catalog.bool NOT NULL DEFAULT false,
        taken_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
    )
    """


def _epochs(names: Names) -> str:
    return f"""
    CREATE TABLE {names.epochs} (
        epoch pg_catalog.int4 PRIMARY KEY,
        system_identifier pg_catalog.int8 NOT NULL,
        timeline pg_catalog.text NOT NULL,
        first_tick pg_catalog.int8 NOT NULL,
        began_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
    )
    """


def _first_tick(names: Names) -> str:
    # A snapshot in which nothing is visible
    return f"""
    WITH epoch AS (
        INSERT INTO {names.epochs} (epoch, system_identifier, timeline, first_tick)
        SELECT 1, system_identifier, {TIMELINE}, 0 FROM pg_catalog.pg_control_system()
        RETURNING epoch
    )
    INSERT INTO {names.ticks} (tick, epoch, base, snapshot, own, top, final, total)
    SELECT 0, epoch, 0, '3:3:', '3', 0, 0, 0 FROM epoch
    """


def _consumers(names: Names) -> str:
    # The row is written at each commit. With free space in its page, and no index on what changes,
    # the new version replaces a dead one in the same page. Where an old snapshot keeps those, each
    # generation is found without a look at the ones before it
    return f"""
    CREATE TABLE {names.consumers} (
        consumer pg_catalog.text,
        bucket pg_catalog.int4,
        buckets pg_catalog.int4 NOT NULL,
        epoch pg_catalog.int4 NOT NULL,
        tick pg_catalog.int8 NOT NULL,
        id pg_catalog.int8 NOT NULL,
        token pg_catalog.int8 NOT NULL DEFAULT 0,
        paused pg_catalog.bool NOT NULL DEFAULT false,
        pid pg_catalog.int4,
        taken_at pg_catalog.timestamptz,
        committed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        commits pg_catalog.int8 NOT NULL DEFAULT 0,
        generation pg_catalog.int8 NOT NULL DEFAULT 0,
        behind_total pg_catalog.int8,
        behind_since pg_catalog.timestamptz,
        behind_is_exact pg_catalog.bool,
        PRIMARY KEY (consumer, bucket, generation)
    ) WITH (fillfactor = 10)
    """


def _dead_letters(names: Names) -> str:
    return f"""
    CREATE TABLE {names.dead_letters} (
        consumer pg_catalog.text,
        uid pg_catalog.uuid,
        epoch pg_catalog.int4 NOT NULL,
        tick pg_catalog.int8 NOT NULL,
        id pg_catalog.int8 NOT NULL,
        channel pg_catalog.text NOT NULL,
        payload pg_catalog.text NOT NULL,
        key pg_catalog.text,
        headers pg_catalog.jsonb,
        appended_at pg_catalog.timestamptz NOT NULL,
        attempts pg_catalog.int4 NOT NULL,
        error pg_catalog.text NOT NULL,
        died_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        PRIMARY KEY (consumer, uid)
    )
    """


TIMELINE: Final = (
    "pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)"
)
"""The server's timeline, in hexadecimal digits. A promoted standby begins a new one."""
