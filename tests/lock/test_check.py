from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from asyncnotify.lock import Lock, LockLostError, LockNotInstalledError, Locks, LockTimeoutError
from asyncnotify.lock._held import Held, Holding
from tests.lock.conftest import WAIT_LIMIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    Connection = asyncpg.Connection[Any]

WAITS = """EXISTS (SELECT FROM asyncnotify.locks WHERE token = $1)
    AND EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted)"""


@asynccontextmanager
async def by_asyncpg(dsn: str) -> AsyncGenerator[Any]:
    """A transaction of asyncpg's."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def by_psycopg(dsn: str) -> AsyncGenerator[Any]:
    """A transaction of psycopg's."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


@asynccontextmanager
async def by_sqlalchemy(dsn: str) -> AsyncGenerator[Any]:
    """A transaction of SQLAlchemy's, in a session."""
    url = urlunsplit(urlsplit(dsn)._replace(scheme="postgresql+asyncpg"))
    engine = create_async_engine(url)
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


TRANSACTIONS = (by_asyncpg, by_psycopg, by_sqlalchemy)


async def write(connection: Any, token: int) -> None:
    """Write in the transaction."""
    query = f"INSERT INTO written VALUES ({token})"
    await connection.execute(text(query) if isinstance(connection, AsyncSession) else query)


async def take(locks: Locks) -> int:
    """Take the lock, release it, and return its token."""
    async with Lock(locks, "x") as held:
        return held.token


@pytest.mark.parametrize("transaction", TRANSACTIONS)
async def test_a_check_holds_until_the_transaction_ends(
    transaction: Callable[[str], AbstractAsyncContextManager[Any]],
    installed: str,
    locks: Locks,
    others: Locks,
    admin: Connection,
) -> None:
    """The next holder waits for it, though the lock has been released before."""
    await admin.execute("CREATE TABLE written (token int)")
    async with transaction(installed) as connection:
        async with Lock(locks, "x") as held:
            await held.check(connection)
            await write(connection, held.token)
        waiting = asyncio.create_task(take(others))
        await until(admin, WAITS, held.token)  # it is taken, and has no new token
        assert not waiting.done()
        await take_another(others)  # and holds up no other lock of its session
    assert await waiting == held.token + 1
    assert await admin.fetchval("SELECT token FROM written") == held.token


async def take_another(locks: Locks) -> None:
    """Take another lock."""
    async with Lock(locks, "another"):
        pass


@pytest.mark.parametrize("transaction", TRANSACTIONS)
async def test_an_old_token_is_refused(
    transaction: Callable[[str], AbstractAsyncContextManager[Any]],
    installed: str,
    locks: Locks,
    admin: Connection,
) -> None:
    """By the server, whatever the process knows; nothing of its transaction can be committed."""
    await admin.execute("CREATE TABLE written (token int)")
    old = await take(locks)
    await take(locks)

    async def write_late() -> None:
        async with transaction(installed) as connection:
            await write(connection, old)
            await Held(Holding("x", old)).check(connection)

    with pytest.raises(LockLostError, match="another holder"):
        await write_late()
    assert await admin.fetchval("SELECT count(*) FROM written") == 0


async def test_a_check_waits_for_who_takes_the_lock(
    locks: Locks, installed: str, admin: Connection
) -> None:
    """A new token that has not been committed yet is waited for, and then refuses the check."""
    async with by_asyncpg(installed) as late, Lock(locks, "x") as held:
        async with admin.transaction():
            await admin.execute("SELECT asyncnotify.lock_number('{x}', '1 s')")
            checking = asyncio.create_task(held.check(late))
            async with by_asyncpg(installed) as third:
                query = "EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
                await until(third, query)
        with pytest.raises(LockLostError):
            await checking


async def test_a_check_outside_of_a_transaction_is_refused(
    locks: Locks, installed: str, admin: Connection
) -> None:
    """ValueError, since it would hold for nothing; of psycopg's in autocommit mode too."""
    connecting = psycopg.AsyncConnection.connect(installed, autocommit=True)
    async with Lock(locks, "x") as held, await connecting as autocommitting:
        for connection in (admin, autocommitting):
            with pytest.raises(ValueError, match="in no transaction"):
                await held.check(connection)
        async with autocommitting.transaction():
            await held.check(autocommitting)
        with pytest.raises(TypeError, match="connection must be"):
            await held.check("dsn")


@asynccontextmanager
async def autocommitting_by_sqlalchemy(dsn: str, driver: str) -> AsyncGenerator[Any]:
    """A connection of SQLAlchemy's without transactions at the server."""
    url = urlunsplit(urlsplit(dsn)._replace(scheme=f"postgresql+{driver}"))
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


@pytest.mark.parametrize("in_session", [False, True])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_check_in_autocommit_mode_is_refused(
    locks: Locks, installed: str, driver: str, *, in_session: bool
) -> None:
    """Also where SQLAlchemy itself says that there is a transaction: the server knows of none."""
    async with (
        Lock(locks, "x") as held,
        autocommitting_by_sqlalchemy(installed, driver) as connection,
        AsyncSession(connection) as session,
    ):
        with pytest.raises(ValueError, match="in no transaction"):
            await held.check(session if in_session else connection)


@pytest.mark.parametrize("timeout", [0, 0.2])
async def test_a_transaction_that_was_checked_keeps_the_lock_from_others(
    locks: Locks, others: Locks, installed: str, admin: Connection, timeout: float
) -> None:
    """Who does not wait for ever is told in time that the lock is not free, and keeps nothing."""
    async with by_asyncpg(installed) as connection:
        async with Lock(locks, "x") as held:
            await held.check(connection)
        for one in (others, locks):
            with pytest.raises(LockTimeoutError):
                async with asyncio.timeout(WAIT_LIMIT), Lock(one, "x", timeout=timeout):
                    pytest.fail("two transactions of two holders overlap")
            await until(admin, "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')")
    async with Lock(others, "x", timeout=WAIT_LIMIT) as next_one:
        assert next_one.token > held.token


async def test_a_check_in_another_database(locks: Locks, installed: str) -> None:
    """Says that there is no table of locks."""
    elsewhere = urlunsplit(urlsplit(installed)._replace(path="/postgres"))
    async with by_asyncpg(elsewhere) as connection, Lock(locks, "x") as held:
        with pytest.raises(LockNotInstalledError):
            await held.check(connection)


async def test_in_a_snapshot_that_is_older_than_the_token(
    locks: Locks, others: Locks, installed: str
) -> None:
    """A transaction that is REPEATABLE READ fails too: what it has read may be old."""
    connection = await asyncpg.connect(installed)

    async def check(held: Held) -> None:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT 1 FROM asyncnotify.locks")
            async with by_asyncpg(installed) as other:
                await other.execute("SELECT asyncnotify.lock_number('{x}', '1 s')")
            await held.check(connection)

    try:
        async with Lock(locks, "x") as held:
            with pytest.raises(asyncpg.SerializationError):
                await check(held)
    finally:
        await connection.close()


async def test_roles_need_no_right_to_the_table(
    locks: Locks, installed: str, admin: Connection
) -> None:
    """One that holds and one that checks call functions, and read and change no row."""
    await admin.execute("CREATE ROLE lock_holder LOGIN; CREATE ROLE lock_checker LOGIN")
    try:
        for statement in locks.grants(hold=["lock_holder"], check=["lock_checker"]):
            await admin.execute(statement)
        await holds_and_checks(installed)
    finally:
        for role in ("lock_holder", "lock_checker"):
            await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_who_lacks_a_right_is_told_of_grants(installed: str, admin: Connection) -> None:
    """Where a lock is taken, and where it is checked."""
    await admin.execute("CREATE ROLE lock_stranger LOGIN")
    stranger = await asyncpg.connect(installed, user="lock_stranger")
    try:
        async with Locks(installed, user="lock_stranger") as locks:
            with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
                async with Lock(locks, "x"):
                    pass
        assert "grants(hold=…, check=…)" in refused.value.__notes__[0]
        async with Lock(installed, "x") as held:
            await stranger.execute("BEGIN")
            with pytest.raises(asyncpg.InsufficientPrivilegeError) as unchecked:
                await held.check(stranger)
        assert "nothing was checked" in unchecked.value.__notes__[0]
        assert "grants(hold=…, check=…)" in unchecked.value.__notes__[0]
    finally:
        await stranger.close()
        await admin.execute("DROP ROLE lock_stranger")


async def holds_and_checks(dsn: str) -> None:
    """Hold by one role, check by the other one, and read by none."""
    async with Locks(dsn, user="lock_holder") as locks, Lock(locks, "x") as held:
        checker = await asyncpg.connect(dsn, user="lock_checker")
        try:
            async with checker.transaction():
                await held.check(checker)
            for forbidden in (
                "SELECT FROM asyncnotify.locks",
                "SELECT asyncnotify.lock_number('{x}', '1 s')",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await checker.execute(forbidden)
        finally:
            await checker.close()
