from __future__ import annotations

import sys

import asyncpg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from asyncnotify._asyncpg.transactions import notify_within, notify_within_thread
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


def test_what_sqlalchemy_raises_of_another_driver_tells_no_payload() -> None:
    """A driver that has no parameters of ours gets the payload in the statement."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        notify_within_thread(connection, "orders", "a secret")
    engine.dispose()
    assert "pg_notify" in str(caught.value)
    assert "a secret" not in str(caught.value)


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
