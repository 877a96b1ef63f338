"""A server that says no: at the start that is an error, later it is waited out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import (
    Connected,
    ConnectError,
    ConnectionLost,
    ConnectTimeoutError,
    Listener,
    Reconnected,
    RetryScheduled,
    State,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.faults.conftest import ProxiedDatabase, Subject

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


class PasswordStore:
    """Where the application keeps the password, and how often it was asked for it."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.asked = 0

    def ask(self) -> str:
        """Return the password that is valid now."""
        self.asked += 1
        return self.password


@asynccontextmanager
async def alice(
    database: ProxiedDatabase, *, options: str = "PASSWORD 'right'"
) -> AsyncGenerator[None]:
    """Have a role of this name for a while; the server wants its password."""
    await database.fetchval(f"CREATE ROLE alice LOGIN {options}")
    try:
        yield
    finally:
        await database.fetchval("DROP ROLE alice")


def as_alice(database: ProxiedDatabase, store: PasswordStore) -> Subject:
    """Make a listener that logs in as this role, as the test says."""
    if database.connects_by == "dsn":
        return database.subject(user="alice", password=store.ask)
    database.login = lambda: ("alice", store.ask())
    return database.subject()


@by_dsn_and_by_connect
@pytest.mark.parametrize(
    "options",
    ["PASSWORD 'other'", "PASSWORD 'right' VALID UNTIL '2000-01-01'", "PASSWORD NULL"],
)
async def test_r12_a_password_that_is_refused_ends_the_start(
    own_database: ProxiedDatabase, options: str
) -> None:
    """A wrong, an expired and a missing password are no reason to try again at the start."""
    async with alice(own_database, options=options):
        store = PasswordStore("right")
        subject = as_alice(own_database, store)
        with pytest.raises(ConnectError) as refused:
            await subject.listener.start()
    assert not isinstance(refused.value, ConnectTimeoutError)
    assert isinstance(refused.value.__cause__, asyncpg.InvalidPasswordError)
    assert "right" not in str(refused.value)
    assert store.asked == 1
    assert subject.count(RetryScheduled) == 0
    subject.check_state(State.CLOSED)


async def test_a_password_that_is_missing_is_told(own_database: ProxiedDatabase) -> None:
    """The server says the same as of a wrong one."""
    async with alice(own_database):
        subject = own_database.subject(user="alice")
        with pytest.raises(ConnectError, match='"alice"; no password was given'):
            await subject.listener.start()


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"user": "nobody_knows"}, asyncpg.InvalidAuthorizationSpecificationError),
        ({"user": "mallory"}, asyncpg.InvalidAuthorizationSpecificationError),
        ({"user": "pg_monitor"}, asyncpg.InvalidAuthorizationSpecificationError),
        ({"database": "nowhere"}, asyncpg.InvalidCatalogNameError),
        ({"server_settings": {"no_such": "1"}}, asyncpg.UndefinedObjectError),
        ({"server_settings": {"work_mem": "much"}}, asyncpg.InvalidParameterValueError),
        ({"server_settings": {"fsync": "on"}}, asyncpg.CantChangeRuntimeParamError),
    ],
)
async def test_r12_what_no_retry_can_mend_ends_the_start(
    own_database: ProxiedDatabase, options: dict[str, object], cause: type[Exception]
) -> None:
    """No such role, none that may log in, no database, a bad setting: start() raises at once."""
    subject = own_database.subject(**options)
    with pytest.raises(ConnectError) as refused:
        await subject.listener.start()
    assert not isinstance(refused.value, ConnectTimeoutError)
    assert isinstance(refused.value.__cause__, cause)
    assert subject.count(RetryScheduled) == 0


@by_dsn_and_by_connect
async def test_r12_a_rotated_password_is_asked_for_until_it_is_right(
    own_database: ProxiedDatabase,
) -> None:
    """A running listener whose password is refused is degraded, and recovers with the new one."""
    async with alice(own_database):
        store = PasswordStore("right")
        subject = as_alice(own_database, store)
        async with subject.listener:
            await subject.set_up_fence()
            await subject.until(Connected)
            await own_database.fetchval("ALTER ROLE alice PASSWORD 'rotated'")
            await subject.fence()  # the session that is open goes on
            await subject.terminate_backend()
            await subject.until(ConnectionLost)
            refused = await subject.until(RetryScheduled)
            assert isinstance(refused.cause, asyncpg.InvalidPasswordError)
            subject.check_state(State.DEGRADED)
            await subject.until(RetryScheduled)
            store.password = "rotated"
            await subject.comes_back()
            subject.check_state(State.CONNECTED)


async def test_r12_a_password_callable_that_fails_is_asked_again(
    own_database: ProxiedDatabase,
) -> None:
    """What the callable raises is tried again, at start and later, and its text is not repeated."""
    working = False

    async def password() -> str:
        if not working:
            msg = "the vault is sealed: secret"
            raise RuntimeError(msg)
        return "right"

    async with alice(own_database):
        subject = own_database.subject(user="alice", password=password)
        starting = asyncio.create_task(subject.listener.start())
        failed = await subject.until(RetryScheduled)
        assert isinstance(failed.cause.__cause__, RuntimeError)
        assert "secret" not in str(failed.cause)
        working = True
        await starting
        await subject.set_up_fence()
        working = False
        await subject.terminate_backend()
        await subject.until(ConnectionLost)
        await subject.until(RetryScheduled)
        working = True
        await subject.comes_back()
        await subject.listener.aclose()


async def test_r12_a_connect_that_fails_is_called_again(database: ProxiedDatabase) -> None:
    """What connect= raises is tried again, at start and later."""
    working = False

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        if not working:
            msg = "no route yet"
            raise LookupError(msg)
        return await database.connect()

    database.connects_by = "connect"
    listener = Listener(connect=connect, start_timeout=scaled(0.5))
    with pytest.raises(ConnectTimeoutError) as refused:
        await listener.start()
    assert "LookupError" in str(refused.value)
    working = True
    async with listener:
        events = listener.events()
        working = False
        database.proxy.reset()
        assert isinstance(await anext(events), ConnectionLost)
        assert isinstance(await anext(events), RetryScheduled)
        working = True
        await listener.wait_connected(scaled(10.0))


async def test_r12_a_dropped_database_is_waited_for(own_database: ProxiedDatabase) -> None:
    """When its database is dropped the listener is degraded; made anew it is listened on."""
    await own_database.fetchval("CREATE DATABASE doomed")
    subject = own_database.subject(database="doomed")
    async with subject.listener:
        await subject.listener.listen("orders", print)
        await own_database.fetchval("DROP DATABASE doomed WITH (FORCE)")
        await subject.until(ConnectionLost)
        gone = await subject.until(RetryScheduled)
        assert isinstance(gone.cause, asyncpg.InvalidCatalogNameError)
        subject.check_state(State.DEGRADED)
        await own_database.fetchval("CREATE DATABASE doomed")
        await subject.until(Reconnected)
        assert subject.listener.is_connected
    await own_database.fetchval("DROP DATABASE doomed")


async def test_r12_a_database_that_refuses_connections_is_waited_for(
    own_database: ProxiedDatabase,
) -> None:
    """ALLOW_CONNECTIONS false is waited out, at start and later."""
    await own_database.fetchval("CREATE DATABASE shut ALLOW_CONNECTIONS false")
    subject = own_database.subject(database="shut")
    starting = asyncio.create_task(subject.listener.start())
    closed = await subject.until(RetryScheduled)
    assert isinstance(closed.cause, asyncpg.ObjectNotInPrerequisiteStateError)
    await own_database.fetchval("ALTER DATABASE shut ALLOW_CONNECTIONS true")
    await starting
    await own_database.fetchval("ALTER DATABASE shut ALLOW_CONNECTIONS false")
    await subject.terminate_backend()
    await subject.until(ConnectionLost)
    await subject.until(RetryScheduled)
    subject.check_state(State.DEGRADED)
    await own_database.fetchval("ALTER DATABASE shut ALLOW_CONNECTIONS true")
    await subject.until(Reconnected)
    await subject.listener.aclose()
    await own_database.fetchval("DROP DATABASE shut")
