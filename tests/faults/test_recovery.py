"""Coming back after a loss: soon, whole, with one Gap, and with nothing left behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    ConnectionLost,
    ExponentialBackoff,
    Gap,
    GapReason,
    ListenTimeoutError,
    Notification,
    Reconnected,
    RetryScheduled,
    State,
)
from asyncnotify.testing.proxy import ProxiedConnection
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify import Listener
    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import Items, ProxiedDatabase, Subject

CAP = 0.3
BACKOFF = ExponentialBackoff(initial=0.01, cap=CAP)
AT_ONCE = ExponentialBackoff(initial=0.001, cap=0.001)
HUNDRED = tuple(f"channel {number}" for number in range(100))
TEN_THOUSAND = tuple(f"channel {number}" for number in range(10_000))
WAIT_LIMIT = scaled(10.0)

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


async def take(stream: Items) -> Notification[str] | Gap:
    """Return the stream's next item."""
    async with asyncio.timeout(WAIT_LIMIT):
        return await anext(stream)


async def reason(stream: Items) -> GapReason:
    """Return the reason of the stream's next item, which must be a gap."""
    gap = await take(stream)
    assert isinstance(gap, Gap)
    return gap.reason


@by_dsn_and_by_connect
async def test_r7_a_hundred_channels_are_back_within_a_second(database: ProxiedDatabase) -> None:
    """After each of twenty kills all hundred channels are listened on again, within a second."""
    downtimes: list[float] = []
    limits = {"heartbeat": 0.02, "heartbeat_timeout": scaled(2.0)}
    defaults = ExponentialBackoff()
    async with (
        database.running(**limits, backoff=defaults) as subject,
        subject.listener.stream(*HUNDRED),
    ):
        for _ in range(20):
            await database.proxy.wait_for_bytes(b"SELECT 1\0", direction="to_client")
            back = await subject.flap()
            assert (back.attempts, back.channels) == (1, 101)
            downtimes.append(back.downtime)
        await database.check_agreement(subject, HUNDRED)
    assert sorted(downtimes)[-2] < scaled(1.0)


async def test_r8_the_listener_is_back_soon_after_the_server(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """However long an outage was, once the server accepts again the longest delay bounds it."""
    async with own_database.running(backoff=BACKOFF) as subject:
        await asyncio.to_thread(battered_server.stop)
        while (await subject.until(RetryScheduled)).attempt < 5:
            subject.check_state(State.RECONNECTING)
            assert not subject.listener.is_connected
        await asyncio.to_thread(battered_server.start)
        accepts = time.monotonic()
        await subject.until(Reconnected)
        assert subject.time_of(Reconnected) - accepts < CAP + scaled(1.0)
        await subject.fence()


async def test_r9_ten_thousand_channels_take_three_round_trips_and_a_second(
    database: ProxiedDatabase,
) -> None:
    """LISTEN for ten thousand channels is repeated in a few statements, not one by one."""
    async with (
        database.running() as subject,
        subject.listener.stream(*TEN_THOUSAND, gaps=True) as s,
    ):
        assert await reason(s) is GapReason.START
        with database.wire() as wire:
            back = await subject.flap()
            # the driver's connect ends with one, and pg_terminate_backend() goes another way
            assert wire.round_trips - 1 <= 3
        assert back.channels == 10_001
        assert back.downtime < scaled(1.0)
        assert await reason(s) is GapReason.RECONNECT
        await database.notify(TEN_THOUSAND[-1], "last")
        last = await take(s)
        assert isinstance(last, Notification)
        assert last.payload == "last"


@by_dsn_and_by_connect
async def test_r10_there_is_never_more_than_one_attempt_at_a_time(
    database: ProxiedDatabase,
) -> None:
    """While the server is silent an attempt is given up before the next one is made."""
    async with database.running(**silence_limits(database)) as subject:
        database.proxy.silent()
        most = 0

        def note(*_: object) -> None:
            nonlocal most
            most = max(most, database.proxy.open_connections)

        database.proxy.tap(note)
        database.proxy.reset()
        while (await subject.until(RetryScheduled)).attempt < 5:
            pass
        assert most == 1
        database.proxy.heal()
        database.proxy.reset()
        await subject.comes_back()


def silence_limits(database: ProxiedDatabase) -> dict[str, Any]:
    """Return options that give up a silent server soon."""
    return {"connect_timeout": scaled(0.1), "backoff": BACKOFF}


@by_dsn_and_by_connect
async def test_r14_a_connection_that_cannot_listen_is_thrown_away(
    database: ProxiedDatabase,
) -> None:
    """Where LISTEN fails time and again, each connection is dropped: none stays, none is reused."""
    async with database.running(backoff=AT_ONCE) as subject:
        with database.wire() as wire:
            for _ in range(10):
                cut = database.proxy.cut_on(b'LISTEN "fence"', then="reset")
                database.proxy.reset()
                await cut.wait()
                await subject.until(RetryScheduled)
            await subject.comes_back()
            assert wire.count(b"application_name\0asyncnotify") >= 11
        await database.until_backends(1)


async def test_r15_a_hundred_flaps_confuse_nobody(database: ProxiedDatabase) -> None:
    """The end of an old connection never touches the next: a hundred losses, a hundred returns."""
    async with database.running(backoff=AT_ONCE) as subject:
        for _ in range(100):
            pid = subject.pid
            database.proxy.reset()
            lost = await subject.until(ConnectionLost)
            back = await subject.until(Reconnected)
            assert lost.backend_pid == pid
            assert back.backend_pid != pid
        assert subject.count(ConnectionLost) == subject.count(Reconnected) == 100
        assert subject.listener.is_connected
        assert subject.listener.stats().reconnects == 100
        await subject.fence()
        await database.until_backends(1)


class Reader:
    """A handler that reads the state of the database whenever it is told of a gap."""

    def __init__(self, database: ProxiedDatabase) -> None:
        self._database = database
        self.seen: list[str] = []
        self.rows: asyncio.Queue[int] = asyncio.Queue()

    async def resync(self, gap: Gap) -> None:
        """Note the gap, and what the table holds."""
        self.seen.append(gap.reason)
        self.rows.put_nowait(await self._database.fetchval("SELECT count(*) FROM items"))

    def handle(self, notification: Notification[str]) -> None:
        """Note the payload."""
        self.seen.append(notification.payload)


@by_dsn_and_by_connect
async def test_r18_one_gap_per_connection_in_its_place(database: ProxiedDatabase) -> None:
    """Each subscription gets one Gap per connection, after LISTEN and before what follows."""
    await database.fetchval("CREATE TABLE items (number int)")
    readers = [Reader(database) for _ in range(3)]
    async with database.running(backoff=AT_ONCE) as subject:
        for number, reader in enumerate(readers):
            await subject.listener.listen(f"c{number % 2}", reader.handle, resync=reader.resync)
            assert await reader.rows.get() == 0
        for number in range(1, 6):
            await publish(database, f"before {number}")
            await subject.fence()
            database.proxy.refuse()
            database.proxy.reset()
            await subject.until(ConnectionLost)
            await publish(database, "unheard")
            database.proxy.accept()
            await subject.until(Reconnected)
            # All that was missed is there to be read.
            assert [await reader.rows.get() for reader in readers] == [2 * number] * 3
        await publish(database, "end")
        await subject.fence()
    await database.fetchval("DROP TABLE items")
    outage = [item for n in range(1, 6) for item in (f"before {n}", "reconnect")]
    for reader in readers:
        assert reader.seen == ["start", *outage, "end"]


async def publish(database: ProxiedDatabase, payload: str) -> None:
    """Add a row, and tell of it on both channels in the same transaction."""
    await database.fetchval(
        "WITH row AS (INSERT INTO items VALUES (1) RETURNING number)"
        " SELECT count(pg_notify('c0', $1)) + count(pg_notify('c1', $1)) FROM row",
        payload,
    )


@by_dsn_and_by_connect
async def test_r18_there_is_no_gap_before_the_server_has_confirmed(
    database: ProxiedDatabase,
) -> None:
    """While LISTEN is on its way there is no Gap: what was missed could not be read yet."""
    async with (
        database.running() as subject,
        subject.listener.stream("orders", gaps=True) as stream,
    ):
        assert await reason(stream) is GapReason.START
        for answer in (None, b"LISTEN\0"):
            before = gaps(stream)
            cut = database.proxy.cut_on(b'"orders"', then=ProxiedConnection.pause, answer=answer)
            database.proxy.reset()
            connection = await cut.wait()
            assert gaps(stream) == before
            connection.resume()
            assert await reason(stream) is GapReason.RECONNECT


async def test_r18_what_comes_with_the_confirmation_stands_behind_the_gap(
    database: ProxiedDatabase,
) -> None:
    """A notification in the same read as the confirmation of LISTEN does not overtake the Gap."""
    async with (
        database.running() as subject,
        subject.listener.stream("orders", gaps=True) as stream,
    ):
        assert await reason(stream) is GapReason.START
        answered = database.proxy.cut_on(
            b'"orders"', then=ProxiedConnection.pause, answer=b"LISTEN\0"
        )
        database.proxy.reset()
        connection = await answered.wait()
        came = database.proxy.detect(b"held up", "to_client")
        await database.notify("orders", "held up")
        await came.wait()
        connection.resume()
        assert await reason(stream) is GapReason.RECONNECT
        notification = await take(stream)
        assert isinstance(notification, Notification)
        assert notification.payload == "held up"


def gaps(stream: Items) -> int:
    """Return how many gaps a stream has been given."""
    stats = stream.stats()
    assert stats is not None
    return stats.gaps


@by_dsn_and_by_connect
async def test_r20_listen_while_down_waits_for_the_connection(database: ProxiedDatabase) -> None:
    """listen() called without a connection returns once the next one listens."""
    async with database.running() as subject:
        await go_down(database, subject)
        listening = asyncio.create_task(subject.listener.listen("orders", print))
        await subject.until(RetryScheduled)
        assert not listening.done()
        assert "orders" in subject.listener.channels
        database.proxy.accept()
        await listening
        assert await database.heard(subject, ["orders"]) == {"orders"}


@by_dsn_and_by_connect
async def test_r20_listen_that_gives_up_leaves_nothing(database: ProxiedDatabase) -> None:
    """A listen() that timed out or was cancelled while down is withdrawn: nothing runs later."""
    calls: list[object] = []
    async with database.running() as subject:
        listener = subject.listener
        await go_down(database, subject)
        with pytest.raises(ListenTimeoutError) as timed_out:
            await listener.listen("orders", calls.append, resync=calls.append, timeout=0.01)
        assert timed_out.value.channels == ("orders",)
        assert isinstance(timed_out.value.__cause__, OSError)
        await cancelled(listener, calls)
        with pytest.raises(ListenTimeoutError):
            await anext(listener.stream("orders", timeout=0.01))
        assert listener.channels == {"fence"}
        with database.wire() as wire:
            database.proxy.accept()
            await subject.until(Reconnected)
            await database.notify("orders", "late")
            await subject.fence()
            assert wire.count(b"orders") == 0
        assert calls == []


async def go_down(database: ProxiedDatabase, subject: Subject) -> None:
    """Take the network away; return once the listener has failed to come back."""
    database.proxy.refuse()
    database.proxy.reset()
    await subject.until(RetryScheduled)


async def cancelled(listener: Listener, calls: list[object]) -> None:
    """Call listen() and cancel it while it waits."""
    listening = asyncio.create_task(listener.listen("orders", calls.append))
    await asyncio.sleep(0)
    assert "orders" in listener.channels
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
