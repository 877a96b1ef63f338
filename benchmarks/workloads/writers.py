"""What NOTIFY costs those who write: commits a second, with and without."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify.testing.server import PostgresServer
from benchmarks import programs
from benchmarks.environment import START_TIME
from benchmarks.pgbench import transactions
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.results import Figures

_SECONDS = 1
_TABLES = """
    CREATE TABLE plain (id bigserial PRIMARY KEY, value int);
    CREATE TABLE by_row (LIKE plain INCLUDING ALL);
    CREATE TABLE by_statement (LIKE plain INCLUDING ALL);
    CREATE FUNCTION tell_row() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_notify('work', NEW.id::text); RETURN NULL; END $$;
    CREATE FUNCTION tell_statement() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('work', format('%s-%s', min(id), max(id))) FROM added;
            RETURN NULL;
        END $$;
    CREATE TRIGGER tell AFTER INSERT ON by_row FOR EACH ROW EXECUTE FUNCTION tell_row();
    CREATE TRIGGER tell AFTER INSERT ON by_statement REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION tell_statement();
"""
_ONE_ROW = """
    WITH added AS (INSERT INTO plain (value) VALUES (1) RETURNING id)
    SELECT {} FROM added;
"""
_PLAIN = _ONE_ROW.format("length(id::text)")
_NOTIFY = _ONE_ROW.format("pg_notify('work', id::text)")
_MANY_ROWS = "INSERT INTO {} (value) SELECT generate_series(1, 100);"


async def _commits(
    server: PostgresServer, script: str, writers: int, listeners: int = 0
) -> Figures:
    """Return the commits a second of so many writers, beside so many listeners."""
    sessions = programs.python("idle_listeners")
    async with contextlib.AsyncExitStack() as stack:
        if listeners:
            started = sessions.start(server.dsn, workload="listeners", sessions=listeners)
            await (await stack.enter_async_context(started)).receive("ready", START_TIME)
        rate = await transactions(server, script, writers, seconds=_SECONDS)
    return {"rate": rate, "cost": 1e6 / rate}


async def measure(environment: Environment) -> list[Section]:
    """Measure on a server of its own that waits for the disk, as one does that keeps data."""
    with PostgresServer(settings={"max_connections": "200", "fsync": "on"}) as server:
        connection = await asyncpg.connect(server.dsn)
        await connection.execute(_TABLES)
        await connection.close()
        sections = [
            await _with_writers(environment, server, writers)
            for writers in environment.sized((1, 8, 32), (8,))
        ]
        return sections if environment.quick else [*sections, await _triggers(environment, server)]


async def _with_writers(environment: Environment, server: PostgresServer, writers: int) -> Section:
    run = functools.partial(_commits, server)
    without = "without NOTIFY"
    measurements = [
        Measurement(without, functools.partial(run, _PLAIN, writers)),
        Measurement("NOTIFY, nobody listens", functools.partial(run, _NOTIFY, writers)),
        *(
            Measurement(
                f"NOTIFY, {count} idle listener{'s' * (count > 1)}",
                functools.partial(run, _NOTIFY, writers, count),
            )
            for count in environment.sized((1, 10, 100), (1, 100))
        ),
    ]
    plural = "s" * (writers > 1)
    return Section(
        key=f"writers, {writers}",
        title=f"Commits of one row by {writers} writer{plural}",
        reference=without,
        columns=(Column("cost", "µs for each commit", 0), Column("rate", "commits a second", 0)),
        series=await take_turns(measurements, environment.rounds, environment.progress),
        remark="The listeners listen on another channel. The server waits for the disk.",
    )


async def _triggers(environment: Environment, server: PostgresServer) -> Section:
    run = functools.partial(_commits, server)
    tables = {
        "no trigger": "plain",
        "statement trigger": "by_statement",
        "row trigger": "by_row",
    }
    measurements = [
        Measurement(name, functools.partial(run, _MANY_ROWS.format(table), 8, 1))
        for name, table in tables.items()
    ]
    return Section(
        key="triggers",
        title="Commits of a hundred rows by 8 writers, by what sends the notifications",
        reference="no trigger",
        columns=(Column("cost", "µs for each commit", 0), Column("rate", "commits a second", 0)),
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
