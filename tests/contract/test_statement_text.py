"""Notifications sent as SQL text: the server understands it in every session, whatever is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnotify._asyncpg.statements import notify_all_as_text, notify_as_text
from asyncnotify._channels.names import CHANNEL_LIMIT, quote_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import SharedServer

    Pair = tuple[str, str]

HOSTILE: Final = """
    SET standard_conforming_strings = off;
    SET escape_string_warning = on;
    SET backslash_quote = on;
    SET client_encoding = SJIS;
    CREATE SCHEMA IF NOT EXISTS hostile;
    SET search_path = hostile, pg_catalog;
    CREATE OR REPLACE FUNCTION hostile.pg_notify(text, text) RETURNS void
        LANGUAGE sql AS 'SELECT 1 / 0';
    CREATE OR REPLACE FUNCTION hostile.decode(text, text) RETURNS bytea
        LANGUAGE sql AS 'SELECT NULL::bytea';
    CREATE OR REPLACE FUNCTION hostile.convert_from(bytea, name) RETURNS text
        LANGUAGE sql AS 'SELECT NULL::text';
    CREATE OR REPLACE FUNCTION hostile.unnest(text[]) RETURNS SETOF text
        LANGUAGE sql AS 'SELECT NULL::text'
"""
"""What a session behind a pooler may have been left in by another program, and worse."""

_CHARACTERS: Final = st.characters(codec="utf-8", exclude_characters="\0")
_NASTY: Final = st.sampled_from(
    ["'", "\\", "''", "\\'", "$1", "--", "/*", ";", "é", "日本", "😀", ""]
)
_TEXTS: Final = st.lists(st.text(_CHARACTERS, max_size=8) | _NASTY, max_size=8).map("".join)
_CHANNELS: Final = _TEXTS.filter(lambda text: 0 < len(text.encode()) <= CHANNEL_LIMIT)
_PAIRS: Final = st.lists(st.tuples(_CHANNELS, _TEXTS), min_size=1, max_size=20)


class Line:
    """A session that sends, and one that listens."""

    def __init__(
        self,
        sender: psycopg.Connection[tuple[object, ...]],
        listener: psycopg.Connection[tuple[object, ...]],
    ) -> None:
        self._sender = sender
        self._listener = listener

    def listen(self, channels: set[str]) -> None:
        """Listen on these channels, and no others."""
        names = [quote_identifier(channel) for channel in channels]
        statement = ";".join(["UNLISTEN *", *(f"LISTEN {name}" for name in names)])
        self._listener.execute(statement.encode())

    def send(self, statement: str) -> None:
        """Execute one statement, by the simple protocol."""
        self._sender.execute(statement.encode("ascii"))

    def take(self, count: int) -> list[Pair]:
        """Return the next so many notifications."""
        arrived = self._listener.notifies(timeout=5, stop_after=count)
        return [(notify.channel, notify.payload) for notify in arrived]


@pytest.fixture(scope="module", params=["ordinary", "hostile"])
def line(
    request: pytest.FixtureRequest, pg_server: SharedServer, databases: list[str]
) -> Iterator[Line]:
    """A sender in an ordinary session, or in one whose settings are against it."""
    dsn = pg_server.dsn_for(databases[0])
    with (
        psycopg.connect(dsn, autocommit=True) as sender,
        psycopg.connect(dsn, autocommit=True) as listener,
    ):
        if request.param == "hostile":
            sender.execute(HOSTILE.encode())
        yield Line(sender, listener)


@given(pairs=_PAIRS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_r47_every_text_arrives_as_it_was(line: Line, pairs: list[Pair]) -> None:
    """One by one, and together: in order, equal ones folded, as with prepared statements."""
    line.listen({channel for channel, _ in pairs})
    for channel, payload in pairs:
        line.send(notify_as_text(channel, payload))
    assert line.take(len(pairs)) == pairs
    for batch in (pairs, [(pairs[0][0], payload) for _, payload in pairs]):
        channels, payloads = zip(*batch, strict=True)
        line.send(notify_all_as_text(channels, payloads))
        folded = list(dict.fromkeys(batch))
        assert line.take(len(folded)) == folded


def test_r47_the_largest_batch_arrives(line: Line) -> None:
    """A thousand payloads of the largest size, each of which takes a multiple as text."""
    payloads = [f"{n:03}" + "é" * 3_998 for n in range(1_000)]
    line.listen({"orders"})
    line.send(notify_all_as_text(["orders"] * 1_000, payloads))
    assert line.take(1_000) == [("orders", payload) for payload in payloads]
