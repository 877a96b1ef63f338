"""Values that no reader of a log could read, and conditions that a session reads otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from asyncnotify import Gap
from asyncnotify.log import Log
from asyncnotify.triggers import Table
from tests.support.databases import database_of
from tests.support.machine import scaled

if TYPE_CHECKING:
    import asyncpg

    from tests.triggers.conftest import Telling

    Connection = asyncpg.Connection[Any]

CASES = [
    ("SQL_ASCII", "text", "chr(255)"),
    ("WIN1252", "text", "chr(129)"),
    ("UTF8", '"char"', '(-56)::"char"'),
]


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize(("encoding", "kind", "value"), CASES)
async def test_bytes_that_no_reader_of_a_log_could_read(  # noqa: PLR0917 - a case has three parts
    admin: Connection, pg_server: Any, level: Any, encoding: str, kind: str, value: str
) -> None:
    """The event says "read again": else every reader of the channel would fail at it, always."""
    async with database_of(admin, pg_server, encoding) as (writer, _):
        await writer.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {kind})")
        name = await writer.fetchval("SELECT current_database()")
        url = urlsplit(pg_server.dsn)._replace(path=f"/{name}")
        async with Log("shop", urlunsplit(url)) as log:
            await log.install()
            table = Table("t", key="id", payload="v", to="log", log="shop", level=level)
            await table.install(writer)
            await writer.execute("INSERT INTO t VALUES (1, 'a')")
            await writer.execute(f"INSERT INTO t VALUES (2, {value})")
            await writer.execute("INSERT INTO t VALUES (3, 'b')")
            read: list[Any] = []
            async with (
                asyncio.timeout(scaled(10)),
                log.read(table.changes, after="start", gaps=True) as stream,
            ):
                async for item in stream:
                    read.append(item)
                    if not isinstance(item, Gap) and item.payload.keys == (3,):
                        break
            keys = [None if isinstance(item, Gap) else item.payload.keys for item in read]
            is_readable = encoding == "UTF8" and writer.get_server_version().major >= 15
            assert keys == [(1,), (2,) if is_readable else None, (3,)]


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("when", [r"new.v ~ '^\d+$'", r"new.v <> '\'"])
async def test_backslashes_in_a_condition(
    admin: Connection, telling: Telling, level: str, when: str
) -> None:
    """They mean the same in a session that reads them as escapes."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = await telling("t", key="id", when=when, level=level)
    await admin.execute("SET standard_conforming_strings = off")
    assert await told.keys_after("INSERT INTO t VALUES (1, '12')") == [("insert", [1])]
