"""A connection that has reached its age is replaced while notifications flow: nothing is missed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    BlockingListener,
    ConnectionLost,
    Gap,
    GapReason,
    Listener,
    Notification,
    Notifier,
    Reconnected,
    Replaced,
)
from asyncnotify.testing.proxy import FaultProxy
from tests.conftest import is_ours
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify import EventStream
    from asyncnotify.testing.server import PostgresServer

WAIT_LIMIT = scaled(20.0)
REPLACEMENTS = 5

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


def listener_on(dsn: str, connects_by: str = "dsn", **options: Any) -> Listener:
    """Make a listener whose connections are replaced several times a second."""

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

    options = {"max_connection_age": 0.1, **options}
    return (
        Listener(dsn, **options) if connects_by == "dsn" else Listener(connect=connect, **options)
    )


async def until(events: EventStream, kind: type) -> Any:
    """Return the next event of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not isinstance(event := await anext(events), kind):
            pass
    return event


async def sessions(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """Return how many sessions of ours the server has."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'asyncnotify'"
    )
    return count


class Sender:
    """Sends numbers on one channel without a pause, until it is told to stop."""

    def __init__(self, dsn: str, channel: str, stop: asyncio.Event) -> None:
        self.sent: list[str] = []
        self._dsn, self._channel, self._stop = dsn, channel, stop

    async def send(self) -> None:
        """Send; the last one is `end`."""
        connection = await asyncpg.connect(self._dsn)
        while not self._stop.is_set():
            payload = str(len(self.sent))
            await connection.execute("SELECT pg_notify($1, $2)", self._channel, payload)
            self.sent.append(payload)
        await connection.execute("SELECT pg_notify($1, 'end')", self._channel)
        await connection.close()

    async def received_by(self, listener: Listener, begun: asyncio.Semaphore) -> list[str]:
        """Return what arrives until the end; there must be no Gap but that of the start."""
        items: list[str] = []
        async with listener.stream(self._channel, gaps=True) as stream:
            assert isinstance(await anext(stream), Gap)
            begun.release()
            while items[-1:] != ["end"]:
                item = await anext(stream)
                assert isinstance(item, Notification), item
                items.append(item.payload)
        return items


@by_dsn_and_by_connect
async def test_r16_nothing_is_missed_doubled_or_reordered(dsn: str, connects_by: str) -> None:
    """While two sessions send without a pause, connections are replaced, and there is no Gap."""
    listener = listener_on(dsn, connects_by)
    events = listener.events()
    stop, begun = asyncio.Event(), asyncio.Semaphore(0)
    senders = [Sender(dsn, channel, stop) for channel in ("a", "b")]
    async with asyncio.timeout(WAIT_LIMIT), listener:
        receiving = [asyncio.create_task(one.received_by(listener, begun)) for one in senders]
        for _ in senders:
            await begun.acquire()
        sending = [asyncio.create_task(one.send()) for one in senders]
        for _ in range(REPLACEMENTS):
            await until(events, Replaced)
        stop.set()
        await asyncio.gather(*sending)
        received = await asyncio.gather(*receiving)
        assert received == [[*one.sent, "end"] for one in senders]
        assert listener.stats().reconnects == 0


async def test_r6_what_the_old_connection_no_longer_listens_on_is_told(dsn: str) -> None:
    """There are no heartbeats, and the new one listens on everything: the old one is asked."""
    opened: dict[int, asyncpg.Connection[asyncpg.Record]] = {}

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        opened[connection.get_server_pid()] = connection
        return connection

    listener = Listener(connect=connect, heartbeat=None, max_connection_age=scaled(0.5))
    events = listener.events()
    other = await asyncpg.connect(dsn)
    async with asyncio.timeout(WAIT_LIMIT), listener, listener.stream("a", gaps=True) as stream:
        assert isinstance(await anext(stream), Gap)
        for _ in range(2):
            replaced = await until(events, Replaced)
            await listener.health()  # whose answer comes behind the commands of the replacement
            await opened[replaced.backend_pid].execute("UNLISTEN *")
            await other.execute("NOTIFY a, 'unheard'")
            gap = await anext(stream)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.UNLISTENED
            await other.execute("NOTIFY a, 'heard'")
            heard = await anext(stream)
            assert isinstance(heard, Notification)
            assert heard.payload == "heard"
    await other.close()


@by_dsn_and_by_connect
async def test_r22_channels_come_and_go_meanwhile(dsn: str, connects_by: str) -> None:
    """The new session listens on what the old one does, and on nothing else."""
    listener = listener_on(dsn, connects_by)
    events = listener.events()
    async with asyncio.timeout(WAIT_LIMIT), listener:
        await listener.listen("kept", print)
        for number in range(REPLACEMENTS):
            subscription = await listener.listen(f"passing {number}", print)
            await until(events, Replaced)
            await subscription.cancel()
        health = await listener.health(server=False)
        assert health["channels_desired"] == health["channels_confirmed"] == 1
        async with listener.stream("fence") as fence:
            await listener.notify("fence")
            await anext(fence)
        before = listener.stats().last_heartbeat
        assert before is None or listener.stats().reconnects == 0


@by_dsn_and_by_connect
async def test_r34_aclose_leaves_no_connection_that_is_being_made(
    dsn: str, connects_by: str
) -> None:
    """The event loop may stand still once it has returned: then nobody else would close it."""
    async with FaultProxy.for_dsn(dsn) as proxy, asyncio.timeout(WAIT_LIMIT):
        async with listener_on(proxy.proxied_dsn(dsn), connects_by):
            proxy.silent()
            await proxy.wait_for_dials(proxy.accepted + 1)
        assert [task.get_name() for task in asyncio.all_tasks() if is_ours(task)] == []


async def test_r37_the_old_connection_is_closed(dsn: str) -> None:
    """One session is left each time, and the events name both."""
    listener = listener_on(dsn)
    events = listener.events()
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(WAIT_LIMIT), listener:
        first = await until(events, Replaced)
        second = await until(events, Replaced)
        assert second.previous_backend_pid == first.backend_pid != second.backend_pid
        assert listener.is_connected
    while await sessions(connection):
        pass
    await connection.close()


async def test_r18_a_new_connection_that_cannot_be_had_leaves_the_old_one(
    own_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The old one goes on, without a Gap, and a warning says so once."""
    connection = await asyncpg.connect(own_server.dsn)
    await connection.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1")
    listener = listener_on(own_server.dsn_for("postgres", user="narrow"))
    async with (
        asyncio.timeout(WAIT_LIMIT),
        listener,
        listener.stream("orders", gaps=True) as stream,
    ):
        assert isinstance(await anext(stream), Gap)
        while "could not be replaced: TooManyConnectionsError" not in caplog.text:
            await connection.execute("NOTIFY orders, 'still here'")
            assert isinstance(await anext(stream), Notification)
        assert listener.is_connected
        await connection.execute("NOTIFY orders, 'and here'")
        item = await anext(stream)
        while item.payload != "and here":  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue]
            item = await anext(stream)
    await connection.close()


async def test_r13_a_name_that_leads_to_another_server_is_followed(
    own_server: PostgresServer,
) -> None:
    """Then notifications are missed: a Gap, and an event whose reason says so."""
    standby = own_server.standby(settings={"wal_retrieve_retry_interval": "100ms"})
    try:
        await asyncio.to_thread(standby.promote)
        where = [own_server.dsn]

        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            return await asyncpg.connect(where[-1])

        listener = Listener(connect=connect, max_connection_age=0.1)
        events = listener.events()
        async with (
            asyncio.timeout(WAIT_LIMIT),
            listener,
            listener.stream("orders", gaps=True) as stream,
        ):
            assert isinstance(await anext(stream), Gap)
            where.append(standby.dsn)
            lost = await until(events, ConnectionLost)
            assert "lead to another server" in str(lost.cause)
            await until(events, Reconnected)
            gap = await anext(stream)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.RECONNECT
            sender = await asyncpg.connect(standby.dsn)
            await sender.execute("NOTIFY orders, 'from the new one'")
            await sender.close()
            item = await anext(stream)
            assert isinstance(item, Notification)
            assert item.payload == "from the new one"
    finally:
        standby.close()


async def test_the_blocking_face_replaces_its_connections_too(dsn: str) -> None:
    """The event is told there as well."""

    def use() -> bool:
        with BlockingListener(dsn, max_connection_age=0.1) as listener:
            events = listener.events()
            return any(isinstance(event, Replaced) for event in events)

    async with asyncio.timeout(WAIT_LIMIT):
        assert await asyncio.to_thread(use)


async def test_r31_closing_while_a_connection_is_prepared_leaves_none(dsn: str) -> None:
    """Whatever the moment: after aclose() no session is left."""
    connection = await asyncpg.connect(dsn)
    for turns in range(0, 60, 3):
        listener = listener_on(dsn, max_connection_age=0.001)
        async with asyncio.timeout(WAIT_LIMIT), listener:
            for _ in range(turns):
                await asyncio.sleep(0)
    while await sessions(connection):
        pass
    await connection.close()


async def test_r47_a_notifier_changes_its_connection_without_a_failure(dsn: str) -> None:
    """Whatever is sent meanwhile arrives, once."""
    async with (
        asyncio.timeout(WAIT_LIMIT),
        Listener(dsn) as listener,
        listener.stream("orders") as stream,
        Notifier(dsn, max_connection_age=0.05) as notifier,
    ):
        pids: set[int] = set()
        for number in range(200):
            await asyncio.gather(*(notifier.notify("orders", f"{number}.{n}") for n in range(5)))
            arrived = [await anext(stream) for _ in range(5)]
            assert sorted(n.payload for n in arrived) == [f"{number}.{n}" for n in range(5)]
            pids.update(notification.pid for notification in arrived)
        while len(pids) < REPLACEMENTS:
            await notifier.notify("orders")
            pids.add((await anext(stream)).pid)


def test_r48_the_age_of_a_pools_connections_is_the_pools() -> None:
    """It cannot be given with `pool=`."""
    pool = asyncpg.create_pool("postgresql://db")
    with pytest.raises(TypeError, match="max_connection_age"):
        Notifier(pool=pool, max_connection_age=5)
