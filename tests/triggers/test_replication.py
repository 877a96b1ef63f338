"""What a subscriber of logical replication is told of what it applies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio

from asyncnotify.testing.server import PostgresServer
from asyncnotify.triggers import Table
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.triggers.conftest import Connection

TABLES = {"by_statement": "statement", "by_row": "row"}


@pytest_asyncio.fixture
async def databases(template: PostgresServer) -> AsyncIterator[dict[str, Connection]]:
    """Connections to a database that is published, and to one that subscribes to it."""
    server = PostgresServer(bin_dir=template.bin_dir, settings={"wal_level": "logical"})
    connections: dict[str, Connection] = {}
    with server:
        admin = await asyncpg.connect(server.dsn)
        for name in ("publisher", "subscriber"):
            await admin.execute(f"CREATE DATABASE {name}")
            connections[name] = await asyncpg.connect(server.dsn, database=name)
            for table in TABLES:
                await connections[name].execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        try:
            yield connections
        finally:
            for connection in (admin, *connections.values()):
                await connection.close(timeout=5.0)


async def subscribe(publisher: Connection, subscriber: Connection) -> None:
    """Let one database get what is written to the other, of the same server."""
    await publisher.execute("CREATE PUBLICATION all_tables FOR ALL TABLES")
    await publisher.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
    port, user = await subscriber.fetchval("SHOW port"), await subscriber.fetchval("SELECT user")
    await subscriber.execute(f"""
        CREATE SUBSCRIPTION it CONNECTION 'host=127.0.0.1 port={port} user={user} dbname=publisher'
        PUBLICATION all_tables
        WITH (create_slot = false, slot_name = 'slot', copy_data = false)
    """)


async def test_row_level_triggers_that_fire_always_tell_what_is_applied(
    databases: dict[str, Connection],
) -> None:
    """Those of statements do so of TRUNCATE alone: rows are applied without a statement."""
    publisher, subscriber = databases["publisher"], databases["subscriber"]
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def keep(*arguments: Any) -> None:
        told.put_nowait((arguments[2], arguments[3]))

    for name, level in TABLES.items():
        options: dict[str, Any] = {"level": level}
        await Table(name, key="id", **options).install(subscriber)
        names = "SELECT tgname FROM pg_trigger WHERE tgrelid = $1::regclass"
        for (trigger,) in await subscriber.fetch(names, name):
            await subscriber.execute(f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger}")
        await subscriber.add_listener(name, keep)
    await subscribe(publisher, subscriber)
    for name in TABLES:
        await publisher.execute(f"INSERT INTO {name} VALUES (1)")
        await publisher.execute(f"UPDATE {name} SET id = 2")
        await publisher.execute(f"DELETE FROM {name}")
        await publisher.execute(f"TRUNCATE {name}")
    async with asyncio.timeout(scaled(30)):
        arrived = [await told.get()]
        while arrived[-1][0] != "by_row" or "truncate" not in arrived[-1][1]:
            arrived.append(await told.get())
    operations = [(name, payload.split('"')[3]) for name, payload in arrived]
    assert operations == [
        ("by_statement", "truncate"),
        ("by_row", "insert"),
        ("by_row", "delete"),
        ("by_row", "insert"),
        ("by_row", "delete"),
        ("by_row", "truncate"),
    ]
    await subscriber.execute("ALTER SUBSCRIPTION it DISABLE")
    await subscriber.execute("ALTER SUBSCRIPTION it SET (slot_name = NONE)")
    await subscriber.execute("DROP SUBSCRIPTION it")
