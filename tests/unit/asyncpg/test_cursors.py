from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.adapt import PyFormat
from psycopg.rows import dict_row, tuple_row
from psycopg.types.string import StrDumper

from asyncnotify._asyncpg.cursors import cursor_on

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shouting(StrDumper):
    """A dumper of the caller's."""


@pytest.fixture
def connection() -> Iterator[psycopg.Connection[Any]]:
    """A connection that leads nowhere, for which the caller has a dumper and rows of his own."""
    pgconn = psycopg.pq.PGconn.connect_start(b"host=/nowhere")
    connection: psycopg.Connection[Any] = psycopg.Connection(pgconn)
    connection.row_factory = dict_row
    connection.adapters.register_dumper(str, Shouting)
    yield connection
    connection.close()


def test_a_cursor_codes_as_psycopg_does_and_the_connection_as_the_caller_wants(
    connection: psycopg.Connection[Any],
) -> None:
    """What a cursor of ours uses is in no map of the caller's."""
    cursor = cursor_on(connection)
    assert cursor.adapters.get_dumper(str, PyFormat.AUTO).__name__ == "StrDumperUnknown"
    assert cursor.row_factory is tuple_row
    assert connection.adapters.get_dumper(str, PyFormat.AUTO) is Shouting
