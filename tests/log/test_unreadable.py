"""Bytes that no reader could read: the one who appends them is told, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from asyncnotify.log import Log
from tests.support.databases import database_of

if TYPE_CHECKING:
    from tests.conftest import SharedServer
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("SQL")

PLACES = ["$1, 'x'", "'things', $1", "'things', 'x', $1"]
MANY = [
    "ARRAY[$1], ARRAY['x']",
    "ARRAY['things'], ARRAY[$1]",
    "ARRAY['things'], ARRAY['x'], ARRAY[$1]",
]
UNREADABLE = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)
CASES = [("SQL_ASCII", "chr(255)"), ("WIN1252", "chr(129)")]


@pytest.mark.parametrize(("encoding", "value"), CASES)
async def test_bytes_that_no_reader_could_read_are_refused(
    admin: Connection, pg_server: SharedServer, encoding: str, value: str
) -> None:
    """In each argument of both functions; what is appended beside them is read."""
    async with database_of(admin, pg_server, encoding) as (writer, _):
        url = urlsplit(pg_server.dsn)._replace(path=f"/{await name_of(writer)}")
        async with Log("orders", urlunsplit(url)) as log:
            await log.install()
            await writer.execute("SELECT asyncnotify.orders_append('things', 'é')")
            functions = [("append", place) for place in PLACES]
            functions += [("append_many", place) for place in MANY]
            for function, place in functions:
                call = f"SELECT asyncnotify.orders_{function}({place.replace('$1', value)})"
                with pytest.raises(UNREADABLE):
                    await writer.execute(call)
            async with log.read(after="start") as stream:
                read: list[Any] = [event.payload async for event in stream.until_end()]
            assert read == ["é"]


async def name_of(connection: Connection) -> str:
    """Return the name of a database."""
    name: str = await connection.fetchval("SELECT current_database()")
    return name
