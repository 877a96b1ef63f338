"""What a role may do that was granted to append, or to consume, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.log import Event, Incident, Interrupted, Log, Resumed
from asyncnotify.log._schema.privileges import grants_to_append, grants_to_consume
from tests.log.conftest import Reader, append
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("roles")

APPEND = "SELECT asyncnotify.append('orders', 'things', 'x')"
APPENDER, CONSUMER = 'log "appender"', "log_consumer"


@pytest_asyncio.fixture
async def roles(admin: Connection, installed: Names) -> AsyncIterator[None]:
    """Two roles with the rights of one who appends and of one who consumes."""
    for role in (APPENDER, CONSUMER):
        name = role.replace('"', '""')
        with contextlib.suppress(asyncpg.DuplicateObjectError):
            await admin.execute(f'CREATE ROLE "{name}"')
    for statement in (
        *grants_to_append(installed, APPENDER),
        *grants_to_consume(installed, CONSUMER),
    ):
        await admin.execute(statement)
    yield
    for role in (APPENDER, CONSUMER):
        name = role.replace('"', '""')
        await admin.execute(f'RESET ROLE; DROP OWNED BY "{name}"; DROP ROLE "{name}"')


async def become(connection: Connection, role: str) -> None:
    """Have the rights of a role, and no others."""
    name = role.replace('"', '""')
    await connection.execute(f'SET ROLE "{name}"')


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT x FROM asyncnotify.orders_events",
        "SELECT id FROM asyncnotify.orders_events_0",
        "INSERT INTO asyncnotify.orders_events (x, slot, channel, payload) SELECT '7', 0, 'a', ''",
        "INSERT INTO asyncnotify.orders_events (id, slot, channel, payload) VALUES (7, 0, 'a', '')",
        "SELECT nextval('asyncnotify.orders_id')",
        "SELECT setval('asyncnotify.orders_id', 7)",
        "SELECT asyncnotify.orders_tick()",
        "SELECT asyncnotify.orders_begin_epoch()",
    ],
)
async def test_trap_4_an_appender_neither_reads_nor_sets_xid_and_id(
    admin: Connection, roles: None, statement: str
) -> None:
    """Append is all that it may do."""
    await become(admin, APPENDER)
    await admin.execute(APPEND)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        APPEND,
        "SELECT asyncnotify.orders_append('things', 'x')",
        "SELECT asyncnotify.orders_append_many('{things}', '{x}')",
        "INSERT INTO asyncnotify.orders_events (slot, channel, payload) VALUES (0, 'things', 'x')",
        "UPDATE asyncnotify.orders_events SET payload = 'y'",
        "DELETE FROM asyncnotify.orders_events",
        "DELETE FROM asyncnotify.orders_ticks",
        "TRUNCATE asyncnotify.orders_events_0",
        "SELECT asyncnotify.orders_begin_epoch()",
    ],
)
async def test_a_consumer_cannot_append_or_change_events(
    admin: Connection, roles: None, statement: str
) -> None:
    """Reading and its own cursors are all that it may have."""
    await admin.execute(APPEND)
    await become(admin, CONSUMER)
    assert await Reader(admin).payloads() == ["x"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute(statement)


async def test_others_may_do_nothing(admin: Connection, installed: Names) -> None:
    """PUBLIC has no right to anything of a log."""
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await admin.execute("CREATE ROLE log_nobody")
    await admin.execute("GRANT USAGE ON SCHEMA asyncnotify TO log_nobody")
    await become(admin, "log_nobody")
    for statement in (APPEND, "SELECT asyncnotify.orders_tick()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute(statement)
    await admin.execute("RESET ROLE; DROP OWNED BY log_nobody; DROP ROLE log_nobody")


async def test_who_lacks_a_right_is_told_of_grants(
    dsn: str, admin: Connection, installed: Names
) -> None:
    """On a connection of the log's, and in a transaction of the caller's."""
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await admin.execute("CREATE ROLE log_stranger LOGIN")
    connection = await asyncpg.connect(dsn, user="log_stranger")
    try:
        async with Log("orders", dsn, user="log_stranger") as log:
            for given in (None, connection):
                with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
                    await log.append("things", "a", connection=given)
                assert "grants(append=…, consume=…)" in refused.value.__notes__[0]
    finally:
        await connection.close()
        await admin.execute("DROP ROLE log_stranger")


@pytest.mark.parametrize("way", ["install", "statements"])
async def test_the_owner_of_the_schema_installs(dsn: str, admin: Connection, way: str) -> None:
    """Without the right to create schemas in the database; again, too."""
    await admin.execute("CREATE ROLE log_owner LOGIN")
    await admin.execute("CREATE SCHEMA asyncnotify AUTHORIZATION log_owner")
    connection = await asyncpg.connect(dsn, user="log_owner")
    try:
        async with Log("orders", dsn, user="log_owner") as log:
            if way == "install":
                await log.install()
            else:
                for statement in log.statements():
                    await connection.execute(statement)
            await log.install()
            await log.append("things", "a")
    finally:
        await connection.close()
        await admin.execute("DROP OWNED BY log_owner; DROP ROLE log_owner")


async def test_roles_that_were_granted_what_grants_returns_can_do_their_work(
    dsn: str, admin: Connection, installed: Names
) -> None:
    """One appends by the library; the other reads, consumes and asks for the status, no more."""
    log = Log("orders", dsn)
    for role in ("log_web", "log_worker"):
        with contextlib.suppress(asyncpg.DuplicateObjectError):
            await admin.execute(f"CREATE ROLE {role} LOGIN")
    for statement in log.grants(append=["log_web"], consume=["log_worker"]):
        await admin.execute(statement)
    try:
        async with (
            Log("orders", dsn, user="log_web") as web,
            Log("orders", dsn, user="log_worker") as worker,
        ):
            await web.append("things", "a")
            await web.append_many([("things", "b"), ("things", "c")])
            async with worker.read(after="start") as stream:
                assert [(await anext(stream)).payload for _ in range(3)] == ["a", "b", "c"]
            async with worker.consumer("mailer") as consumer:
                assert [event.payload for event in await anext(consumer.batches(3))] == [*"abc"]
            await worker.expire()
            await worker.seek("mailer", "start")
            assert [c.lag_events for c in (await worker.status()).consumers] == [3]
            await worker.drop("mailer")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await worker.append("things", "x")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await anext(web.read(after="start"))
    finally:
        for role in ("log_web", "log_worker"):
            await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_handler_whose_privileges_are_taken_away_goes_on_once_they_are_granted(
    dsn: str,
    installed: Names,
    admin: Connection,
    roles: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Until then it is tried again each second, with one traceback, and said to need repair."""

    async def connect() -> Connection:
        return await asyncpg.connect(dsn, server_settings={"role": CONSUMER})

    caplog.set_level(logging.INFO)
    handled = asyncio.Queue[str]()
    incidents: list[Incident] = []
    log = Log("orders", connect=connect, poll=0.01, on_incident=incidents.append)

    @log.on("mailer", "things")
    async def mail(event: Event[str]) -> None:
        handled.put_nowait(event.payload)

    async with log:
        await append(admin, "a", channel="things")
        assert await handled.get() == "a"
        await admin.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA asyncnotify FROM {CONSUMER}")
        await append(admin, "b", channel="things")
        async with asyncio.timeout(scaled(20)):
            while caplog.text.count("is interrupted, and tried again") < 2:
                await admin.execute("SELECT 1")
            for statement in grants_to_consume(installed, CONSUMER):
                await admin.execute(statement)
            while await handled.get() != "b":
                pass
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    text = "handler 'mailer' of log 'orders' is interrupted by an unexpected error"
    assert [record.getMessage() for record in errors] == [text]
    [told] = [one for one in incidents if isinstance(one, Interrupted)]
    assert told.needs_repair
    assert isinstance(told.cause, asyncpg.InsufficientPrivilegeError)
    assert any(isinstance(one, Resumed) for one in incidents)
