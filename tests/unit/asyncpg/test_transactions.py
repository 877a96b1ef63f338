from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, Self

import asyncpg
import pytest

from asyncnotify._asyncpg.transactions import notify_within
from tests.unit.fake_connection import FakeConnection


class Other:
    """An object of another kind."""


@pytest.mark.parametrize("connection", [Other(), None, "postgresql://db", object])
async def test_another_kind_of_connection_is_refused(connection: object) -> None:
    """The error names the kinds that are taken and the type that was given."""
    with pytest.raises(TypeError, match=r"asyncpg Connection.* not of type"):
        await notify_within(connection, "orders", "1")


async def test_a_connection_of_the_drivers_sends_one_statement() -> None:
    """Which commits with the transaction of the caller, and begins or ends none itself."""
    connection = FakeConnection()
    await notify_within(connection, "orders", "1")
    (statement,) = connection.statements
    assert "pg_notify" in statement


async def test_what_the_driver_raises_is_the_callers() -> None:
    """The transaction is: its owner decides what to do."""
    connection = FakeConnection()
    connection.answer = asyncpg.InFailedSQLTransactionError("aborted")
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await notify_within(connection, "orders", "1")


async def test_psycopg_sends_by_a_cursor_of_its_own_placeholders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection may have a cursor factory that takes other placeholders."""
    executed: list[tuple[str, tuple[str, str]]] = []

    class AsyncConnection:
        """Stands for the connection of psycopg."""

    class AsyncCursor:
        """Stands for the cursor of psycopg."""

        def __init__(self, connection: AsyncConnection) -> None:
            assert isinstance(connection, AsyncConnection)

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def execute(self, query: str, arguments: tuple[str, str], **options: Any) -> None:
            executed.append((query, arguments))

    module = SimpleNamespace(AsyncConnection=AsyncConnection, AsyncCursor=AsyncCursor)
    monkeypatch.setitem(sys.modules, "psycopg", module)
    await notify_within(AsyncConnection(), "orders", "1")
    assert executed == [("SELECT pg_catalog.pg_notify(%s, %s)", ("orders", "1"))]


async def test_a_library_that_is_not_imported_is_not_imported_for_this(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A caller that holds a connection of a library has imported the library."""
    for name in ("psycopg", "sqlalchemy", "sqlalchemy.ext.asyncio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(TypeError):
        await notify_within(Other(), "orders", "1")
    assert "psycopg" not in sys.modules
    assert "sqlalchemy.ext.asyncio" not in sys.modules
