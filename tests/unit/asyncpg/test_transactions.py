from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from asyncnotify._asyncpg.transactions import (
    Call,
    call_within,
    notify_within,
    notify_within_thread,
)
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


async def test_a_call_that_means_nothing_outside_of_a_transaction_is_refused_there() -> None:
    """The driver knows, once the server has answered."""
    connection = FakeConnection()
    call = Call("SELECT {}", ("1",), lambda: "SELECT 1", outside="begin one")
    with pytest.raises(ValueError, match="begin one"):
        await call_within(connection, call)
    connection.in_transaction = True
    await call_within(connection, call)
    assert connection.statements == ["SELECT 1"] * 2


class Lent:
    """A connection of a library's pool, for the time of a block."""

    def __init__(self, lent: object) -> None:
        self.lent, self.given_back = lent, 0

    async def __aenter__(self) -> object:
        return self.lent

    async def __aexit__(self, *_: object) -> None:
        self.given_back += 1


class Database(Lent):
    """A handle of the library databases: each task has a connection around the driver's."""

    def connection(self) -> Lent:
        """Lend the task's own."""
        return self


class BaseDBAsyncClient(Lent):
    """A client of Tortoise, which lends the driver's connection."""

    def acquire_connection(self) -> Lent:
        """Lend it."""
        return self


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("library", ["databases", "tortoise.backends.base.client"])
async def test_a_handle_that_lends_its_connection_gets_it_back(
    monkeypatch: pytest.MonkeyPatch, library: str, *, fails: bool
) -> None:
    """Also where the notification cannot be sent: the error is the driver's."""
    driver = FakeConnection()
    databases = library == "databases"
    handle = (
        Database(SimpleNamespace(raw_connection=driver))
        if databases
        else (BaseDBAsyncClient(driver))
    )
    module = SimpleNamespace(**{type(handle).__name__: type(handle)})
    monkeypatch.setitem(sys.modules, library, module)
    driver.errors = [asyncpg.InFailedSQLTransactionError("aborted")] * fails
    with pytest.raises(asyncpg.InFailedSQLTransactionError) if fails else nullcontext():
        await notify_within(handle, "orders", "1")
    (statement,) = driver.statements
    assert "pg_notify" in statement
    assert handle.given_back == 1


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
