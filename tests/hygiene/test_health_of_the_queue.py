"""What health() tells of the server's notification queue, and what it does to it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Notifier
from asyncnotify.log import Log
from asyncnotify.testing.proxy import FaultProxy
from tests.hygiene.secret_detector import PASSWORD, PAYLOAD, USER
from tests.hygiene.secrets_harness import WAIT_LIMIT
from tests.support.log_removal import remove_logs
from tests.support.server_features import needs_small_queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.monitored_listener import MonitoredListener
    from tests.hygiene.secrets_harness import Connection
    from tests.support.server_faults import ServerFaults

FLOOD: Final = """
    SELECT count(pg_notify('flood', lpad(n::text, 7000, '0'))) FROM generate_series(1, $1) n
"""


async def test_r41_a_queue_that_is_held_is_told_with_its_holder(
    monitored: MonitoredListener, guarded_server: PostgresServer, faults: ServerFaults
) -> None:
    """The usage rises, and the session that holds the queue is named, without its query."""
    needs_small_queue(guarded_server)
    assert (await monitored.health())["queue_usage"] < 0.01
    usages: list[float] = []
    health, told = dict[str, Any](), dict[str, Any]()
    async with faults.queue_held("flood") as holder:
        pid = holder.get_server_pid()
        await holder.execute(f"SET application_name = 'laggard'; SELECT '{PAYLOAD}'")
        for _ in range(3):
            await monitored.root.execute(FLOOD, 9)
            health = await monitored.health()
            usages.append(health["queue_usage"])
            [told] = health["queue_holders"]
            assert (told["pid"], told["application_name"]) == (pid, "laggard")
    assert 0.01 < usages[0] < usages[1] < usages[2] <= 1
    assert (told["state"], told["wait_event"]) == ("idle in transaction", "ClientRead")
    assert 0 < told["seconds"] < WAIT_LIMIT
    assert PAYLOAD not in json.dumps(health)
    await faults.until_gone(pid)
    health = await monitored.health()
    assert health["queue_usage"] < 0.01
    assert health["queue_holders"] == []


async def test_r41_asking_frees_a_queue_that_stayed_full(
    monitored: MonitoredListener, guarded_server: PostgresServer, faults: ServerFaults
) -> None:
    """When the laggard has left, the server may not notice; health() makes it."""
    needs_small_queue(guarded_server)
    async with faults.queue_held("flood") as holder:
        pid = holder.get_server_pid()
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await fill(monitored.root)
        assert (await monitored.health())["queue_usage"] > 0.9
    await faults.until_gone(pid)
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await monitored.root.execute(FLOOD, 9)  # a server that frees it by itself needs no help
    assert (await monitored.health())["queue_usage"] < 0.01
    await monitored.root.execute(FLOOD, 9)


Send = Callable[[Notifier], Awaitable[object]]
WAYS: Final[dict[str, Send]] = {
    "alone": lambda notifier: notifier.notify("orders", "x"),
    "together": lambda n: asyncio.gather(*(n.notify("orders", text) for text in "xyz")),
    "many": lambda notifier: notifier.notify_many([("orders", "x"), ("orders", "y")]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pooled", [False, True], ids=["own", "pool"])
async def test_r41_a_notifier_empties_a_queue_that_an_aborted_batch_has_filled(
    root: Connection,
    guarded_server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
    way: str,
    *,
    pooled: bool,
) -> None:
    """Though nobody listens, the queue would stay full: the call succeeds, and the log says why."""
    needs_small_queue(guarded_server)
    async with notifier_of(guarded_server.dsn, pooled=pooled) as notifier:
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await root.execute(FLOOD, 2_000)
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await root.execute(FLOOD, 1)  # a server that frees it by itself needs no help
        await WAYS[way](notifier)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "asking for its size has emptied it" in record.getMessage()
    await root.execute(FLOOD, 9)


async def test_r41_a_notifier_leaves_no_full_queue_behind(
    root: Connection, guarded_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not fit at once is refused, and the next one finds room."""
    needs_small_queue(guarded_server)
    async with notifier_of(guarded_server.dsn, pooled=False) as notifier:
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await notifier.notify_many([("orders", f"{n:07000}") for n in range(1_000)])
        await root.execute(FLOOD, 9)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "do not fit into it at once" in record.getMessage()


async def test_r41_a_queue_that_is_held_is_told_to_who_notifies(
    root: Connection,
    guarded_server: PostgresServer,
    faults: ServerFaults,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each call gets the server's refusal, and the log says once where to look."""
    needs_small_queue(guarded_server)
    async with faults.queue_held("flood") as holder:
        pid = holder.get_server_pid()
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await fill(root)
        async with notifier_of(guarded_server.dsn, pooled=False) as notifier:
            for _ in range(3):
                with pytest.raises(asyncpg.ProgramLimitExceededError):
                    await notifier.notify("flood", "x" * 7_000)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "queue_holders" in record.getMessage()
    await faults.until_gone(pid)


@asynccontextmanager
async def notifier_of(dsn: str, *, pooled: bool) -> AsyncGenerator[Notifier]:
    """Run a notifier, on a connection of its own or of a pool."""
    if not pooled:
        async with Notifier(dsn) as notifier:
            yield notifier
        return
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        Notifier(pool=pool) as notifier,
    ):
        yield notifier


async def fill(root: Connection) -> None:
    """Notify until the queue is full; it has room for a tenth of what is tried."""
    for _ in range(100):
        await root.execute(FLOOD, 9)


async def test_r41_a_session_that_does_not_read_is_a_holder(
    monitored: MonitoredListener, guarded_server: PostgresServer, faults: ServerFaults
) -> None:
    """A client that listens and leaves its socket unread is named as what it is."""
    needs_small_queue(guarded_server)
    async with proxied(guarded_server) as (proxy, laggard):
        pid = laggard.get_server_pid()
        await laggard.execute("LISTEN flood")
        proxy.black_hole("to_client")
        told: list[tuple[int, str]] = []
        async with asyncio.timeout(WAIT_LIMIT):
            while (pid, "ClientWrite") not in told:
                await monitored.root.execute(FLOOD, 9)
                health = await monitored.health()
                told = [(one["pid"], one["wait_event"]) for one in health["queue_holders"]]
    await faults.until_gone(pid)


@asynccontextmanager
async def proxied(server: PostgresServer) -> AsyncGenerator[tuple[FaultProxy, Connection]]:
    """Have a plain connection through a proxy of its own."""
    async with FaultProxy.for_dsn(server.dsn) as proxy:
        connection = await asyncpg.connect(proxy.proxied_dsn(server.dsn))
        yield proxy, connection
        connection.terminate()


async def test_r41_what_the_role_may_not_see_is_not_told(
    new_monitored: Callable[..., MonitoredListener],
    guarded_server: PostgresServer,
    faults: ServerFaults,
) -> None:
    """Without pg_read_all_stats the usage is known, and the holders are not; with it they are."""
    needs_small_queue(guarded_server)
    monitored = new_monitored(guarded_server.dsn_for("postgres", user=USER, password=PASSWORD))
    async with monitored.listener:
        async with faults.queue_held("flood") as holder:
            pid = holder.get_server_pid()
            await monitored.root.execute(FLOOD, 9)
            health = await monitored.health()
            assert health["queue_usage"] > 0.01
            assert (health["queue_holders"], health["server_error"]) == ([], None)
            await monitored.root.execute(f"GRANT pg_read_all_stats TO {USER}")
            [told] = (await monitored.health())["queue_holders"]
            await monitored.root.execute(f"REVOKE pg_read_all_stats FROM {USER}")
            assert told["pid"] == pid
        await faults.until_gone(pid)


async def test_r41_a_refusal_is_told_and_costs_nothing(
    new_monitored: Callable[..., MonitoredListener], guarded_server: PostgresServer
) -> None:
    """A server that does not let us ask is told of as such; the connection is kept."""
    function = "FUNCTION pg_catalog.pg_notification_queue_usage()"
    monitored = new_monitored(guarded_server.dsn_for("postgres", user=USER, password=PASSWORD))
    async with monitored.listener:
        await monitored.root.execute(f"REVOKE EXECUTE ON {function} FROM PUBLIC")
        try:
            health = await monitored.health()
        finally:
            await monitored.root.execute(f"GRANT EXECUTE ON {function} TO PUBLIC")
        assert health["server_error"].startswith("InsufficientPrivilegeError")
        assert (health["state"], health["queue_usage"]) == ("connected", None)
        health = await monitored.health()
        assert (health["server_error"], health["generation"]) == (None, 1)


# -- logs -----------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def log(root: Connection, guarded_server: PostgresServer) -> AsyncIterator[Log]:
    """A log on a server whose queue can be filled, and which is looked at often."""
    needs_small_queue(guarded_server)
    async with Log("orders", guarded_server.dsn, poll=0.05) as log:
        await log.install()
        async with log.consumer("mailer"):
            yield log
    await remove_logs(root)


async def test_r41_a_queue_that_is_held_fails_no_append(
    log: Log, root: Connection, guarded_server: PostgresServer, faults: ServerFaults
) -> None:
    """Nor the commit of the caller's transaction, nor a seek: those who read look by themselves."""
    async with faults.queue_held("flood") as holder:
        pid = holder.get_server_pid()
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await fill(root)
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            await root.execute(FLOOD, 9)
        await log.append("things", "0")
        await log.append_many([("things", "1"), ("things", "2")])
        async with root.transaction():
            await log.append("things", "3", connection=root)
        await root.execute("SELECT asyncnotify.append('orders', 'things', '4')")
        await log.seek("mailer", "start")
        await log.pause("mailer")
        await log.resume("mailer")
        async with log.read(after="start") as stream:
            assert [(await anext(stream)).payload for _ in range(5)] == [*"01234"]
            async with Log("orders", guarded_server.dsn, wake="after") as other:
                await other.append("things", "5")
                await other.aclose()
            assert (await anext(stream)).payload == "5"
    await faults.until_gone(pid)


async def test_r41_an_append_empties_a_queue_that_an_aborted_batch_has_filled(
    log: Log, root: Connection
) -> None:
    """Though nobody listens, the queue would stay full: now others find room, too."""
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await root.execute(FLOOD, 2_000)
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await root.execute(FLOOD, 1)
    await log.append("things", "0")
    await root.execute(FLOOD, 9)
