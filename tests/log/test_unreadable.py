"""What no reader could read: the one who appends it is told, and nobody else."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from asyncnotify import Gap
from asyncnotify.log import Event, Log
from asyncnotify.log._entries import HEADERS_LIMIT, KEY_LIMIT
from tests.support.databases import database_of
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
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


DEEP: Final = '{"n": ' + "[" * 5_000 + "]" * 5_000 + "}"
NO_TEXTS: Final = ['{"n": 1}', '{"n": ["x"]}', '{"n": null}', '{"n": 1e5000}', DEEP, '["x"]', "1"]
INSERT: Final = """
    INSERT INTO asyncnotify.orders_events (slot, channel, payload, headers)
    VALUES (0, 'things', 'x', $1::text::jsonb)
"""


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        *((None, headers) for headers in NO_TEXTS),
        (None, json.dumps({"n": "v" * HEADERS_LIMIT})),
        ("k" * (KEY_LIMIT + 1), None),
        ("é" * (KEY_LIMIT // 2 + 1), None),
    ],
)
async def test_sql_cannot_append_what_python_refuses(
    admin: Connection, installed: Names, key: str | None, headers: str | None
) -> None:
    """Headers that are no texts, and what is too long: by each of the functions."""
    for call in (
        "append('orders', 'things', 'x', $1, $2::text::jsonb)",
        "orders_append('things', 'x', $1, $2::text::jsonb)",
        "orders_append_many('{things}', '{x}', ARRAY[$1], ARRAY[$2::text::jsonb])",
    ):
        with pytest.raises(asyncpg.CheckViolationError, match="asyncnotify"):
            await admin.execute(f"SELECT asyncnotify.{call}", key, headers)


async def test_what_python_takes_is_appended(dsn: str, installed: Names) -> None:
    """The limits of the functions are not narrower, and headers may be empty."""
    empty = len(json.dumps({"n": ""}))
    events: list[tuple[str, dict[str, str]]] = [
        ("k" * KEY_LIMIT, {}),
        ("é" * (KEY_LIMIT // 2), {"n": "\n" * ((HEADERS_LIMIT - empty) // 2)}),
        (
            "",
            {
                "n": "v" * (HEADERS_LIMIT - empty),
            },
        ),
    ]
    async with Log("orders", dsn) as log:
        for key, headers in events:
            await log.append("things", "x", key=key, headers=headers)
        async with log.read(after="start") as stream:
            read = [(event.key, event.headers) async for event in stream.until_end()]
    assert read == events


@pytest.mark.parametrize("headers", NO_TEXTS)
async def test_headers_that_cannot_be_decoded_stop_nobody(
    dsn: str, admin: Connection, installed: Names, headers: str
) -> None:
    """The owner of the table can store them: a Gap for a reader, a dead letter of a handler."""
    handled: list[str] = []
    finished = asyncio.Event()
    async with Log("orders", dsn) as log, asyncio.timeout(scaled(20)):
        await log.append("things", "before")
        await admin.execute(INSERT, headers)
        await log.append("things", "behind", headers={"n": "v"})
        async with log.read(after="start", gaps=True) as stream:
            items = [item async for item in stream.until_end()]
        assert [type(item) for item in items] == [Event, Gap, Event]

        @log.on("mailer")
        async def handle(event: Event[str]) -> None:
            handled.append(event.payload)
            if event.payload == "behind":
                finished.set()

        await log.start()
        await finished.wait()
        [letter] = await log.dead_letters()
    assert handled == ["before", "behind"]
    assert (letter.event.payload, letter.event.headers, letter.attempts) == ("x", {}, 1)
    assert "headers" in letter.error


async def name_of(connection: Connection) -> str:
    """Return the name of a database."""
    name: str = await connection.fetchval("SELECT current_database()")
    return name
