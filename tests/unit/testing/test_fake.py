from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    ChannelNameError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectionLostError,
    Gap,
    GapReason,
    Listener,
    Notification,
    Notifier,
    PayloadError,
    PayloadTooLargeError,
    RetryScheduled,
    State,
)
from asyncnotify.lock import Lock, Locks
from asyncnotify.testing.fake import FakeServer, NotOnFakeError
from asyncnotify.triggers import BlockingTable, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import ConnectionEvent, Stream

ENDED = "terminating connection due to administrator command"


@pytest.fixture
def fake() -> FakeServer:
    """A server in memory."""
    return FakeServer()


class Received:
    """A handler that keeps the payloads, and a resync that keeps the reasons, in one order."""

    def __init__(self) -> None:
        self.items: list[str | GapReason] = []
        self.pids: list[int] = []

    def take(self, notification: Notification[str]) -> None:
        """Keep a payload."""
        self.items.append(notification.payload)
        self.pids.append(notification.pid)

    def resync(self, gap: Gap) -> None:
        """Keep a reason."""
        self.items.append(gap.reason)


@pytest.fixture
def received() -> Received:
    """What a handler has been given."""
    return Received()


async def passed(listener: Listener, fake: FakeServer) -> None:
    """Return once what was committed so far has passed through the listener."""
    stream: Stream[Notification[str]]
    async with listener.stream("fence") as stream:
        fake.notify("fence")
        await anext(stream)


# -- the rules of PostgreSQL ----------------------------------------------------------------------


async def test_a_listener_starts_with_a_gap_and_gets_what_is_committed(
    fake: FakeServer, received: Received
) -> None:
    """By another client, by its own notifier, and by a notifier of the same DSN."""
    fake.notify("orders", "nobody listens")
    async with Listener(fake.dsn) as listener, Notifier(fake.dsn) as notifier:
        await listener.listen("orders", received.take, resync=received.resync)
        fake.notify("orders", "1")
        await listener.notify("orders", "2")
        await notifier.notify("orders", "3")
        await passed(listener, fake)
    assert received.items == [GapReason.START, "1", "2", "3"]
    assert len(set(received.pids)) == len(received.pids)


async def test_all_channels_have_one_order(fake: FakeServer) -> None:
    """The order in which transactions commit, on whatever channel."""
    async with Listener(fake.dsn) as listener, listener.stream("a", "b") as stream:
        for number in range(10):
            fake.notify("ab"[number % 2], str(number))
        assert [(await anext(stream)).payload for _ in range(10)] == list("0123456789")


async def test_a_channel_is_an_identifier_with_its_case(
    fake: FakeServer, received: Received
) -> None:
    """`Orders` and `orders` are two channels."""
    async with Listener(fake.dsn) as listener:
        await listener.listen("Orders", received.take)
        fake.notify("orders", "other")
        fake.notify("Orders", "this")
        await passed(listener, fake)
    assert received.items == ["this"]


async def test_equal_notifications_of_one_transaction_are_one(
    fake: FakeServer, received: Received
) -> None:
    """At the place of the first; another payload or another transaction makes another one."""
    async with Listener(fake.dsn) as listener:
        await listener.listen("a", received.take)
        for _ in range(2):
            async with fake.transaction() as transaction:
                for payload in "1121":
                    await listener.notify("a", payload, connection=transaction)
        await passed(listener, fake)
    assert received.items == ["1", "2", "1", "2"]


async def test_a_transaction_delivers_when_it_commits(fake: FakeServer, received: Received) -> None:
    """And nothing before, and nothing if it rolls back."""
    async with Listener(fake.dsn) as listener:
        await listener.listen("a", received.take)
        with fake.transaction() as transaction:
            transaction.pg_notify("a", "committed")
            fake.notify("a", "before")
        with pytest.raises(LookupError), fake.transaction() as transaction:  # noqa: PT012 - it ends it
            transaction.pg_notify("a", "rolled back")
            raise LookupError
        await passed(listener, fake)
    assert received.items == ["before", "committed"]


def test_a_savepoint_that_is_rolled_back_takes_its_notifications_with_it(fake: FakeServer) -> None:
    """One that is released leaves them to the transaction, which folds them with its own."""
    with fake.transaction() as transaction:
        transaction.pg_notify("a", "1")
        with transaction.savepoint():
            transaction.pg_notify("a", "2")
            transaction.pg_notify("a", "1")
            with pytest.raises(LookupError), transaction.savepoint():  # noqa: PT012 - it ends it
                transaction.pg_notify("a", "3")
                raise LookupError
        transaction.pg_notify("a", "4")
    assert [n.payload for n in fake.notifications] == ["1", "2", "4"]


@pytest.mark.parametrize("channel", ["", "a" * 64, "é" * 32, "a\0b", "\ud800"])
def test_names_are_limited_in_bytes(fake: FakeServer, channel: str) -> None:
    """63 of UTF-8, not characters."""
    with pytest.raises(ChannelNameError):
        fake.notify(channel)
    fake.notify("é" * 31 + "a")


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ("a" * 8_000, PayloadTooLargeError),
        ("é" * 4_000, PayloadTooLargeError),
        ("a\0b", PayloadError),
        ("\ud800", PayloadError),
    ],
)
def test_payloads_are_limited_in_bytes(
    fake: FakeServer, payload: str, error: type[Exception]
) -> None:
    """7,999 of UTF-8; and a transaction says so at once, as the server does."""
    with pytest.raises(error):
        fake.notify("a", payload)
    with fake.transaction() as transaction, pytest.raises(error):
        transaction.pg_notify("a", payload)
    fake.notify("a", "a" * 7_999)


@pytest.mark.parametrize("pair", [("orders", None), ("orders", {"id": 1}), (None, "1")], ids=str)
def test_what_is_no_text_is_refused(fake: FakeServer, pair: Any) -> None:
    """By its type, as everywhere."""
    with pytest.raises(ValueError, match=r"is of type .*, not str"):
        fake.notify(*pair)


def test_a_server_that_nobody_refers_to_is_told() -> None:
    """Its DSN would lead to a host that is nowhere; the object itself has a dsn."""
    with pytest.raises(ConfigurationError, match=r"fake-.*\.invalid is gone: keep a reference"):
        Listener(FakeServer().dsn)
    with pytest.raises(TypeError, match="FakeServer: give its dsn"):
        Listener(FakeServer())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_transaction_is_used_in_its_block_alone(fake: FakeServer) -> None:
    """Before and after it is no transaction, and it does not begin twice."""
    transaction = fake.transaction()
    with pytest.raises(RuntimeError, match="not open"):
        transaction.pg_notify("a", "")
    with transaction, pytest.raises(RuntimeError, match="begun already"):
        transaction.__enter__()
    with pytest.raises(RuntimeError, match="not open"):
        transaction.pg_notify("a", "")


def test_pids_are_unique_and_seen(fake: FakeServer) -> None:
    """Of everyone who is connected; who has left is not."""
    with fake.transaction() as first, fake.transaction() as second:
        assert list(fake.pids) == [first.pid, second.pid]
        assert "pid" in repr(first)
    assert not fake.pids
    assert first.pid != second.pid


async def test_two_servers_are_two(received: Received) -> None:
    """With DSNs of their own."""
    one, other = FakeServer(), FakeServer()
    assert repr(one) != repr(other)
    async with Listener(one.dsn) as listener:
        await listener.listen("a", received.take)
        other.notify("a", "elsewhere")
        one.notify("a", "here")
        await passed(listener, one)
    assert received.items == ["here"]


# -- waiting --------------------------------------------------------------------------------------


async def test_a_test_can_wait_until_the_program_listens_and_notifies(fake: FakeServer) -> None:
    """By facts: no time has to be guessed."""

    async def program() -> None:
        async with Listener(fake.dsn) as listener:
            async for notification in listener.stream("requests"):
                await listener.notify("answers", notification.payload * 2)

    running = asyncio.create_task(program())
    await fake.until_listening("requests")
    assert fake.channels == {"requests"}
    fake.notify("requests", "ab")
    assert (await fake.until_notified("answers")).payload == "abab"
    assert (await fake.until_notified("answers", "abab")).channel == "answers"
    running.cancel()
    await asyncio.wait({running})
    assert fake.channels == frozenset()


# -- faults ---------------------------------------------------------------------------------------


async def test_a_lost_connection_is_a_gap(fake: FakeServer, received: Received) -> None:
    """What is committed until the listener listens again is missed, and said to be."""
    events: list[ConnectionEvent] = []
    async with Listener(fake.dsn, on_event=events.append) as listener:
        await listener.listen("a", received.take, resync=received.resync)
        await passed(listener, fake)
        fake.lose(notice=ENDED)
        assert not listener.is_connected
        fake.notify("a", "missed")
        await fake.until_listening("a")
        fake.notify("a", "arrives")
        await passed(listener, fake)
    assert received.items == [GapReason.START, GapReason.RECONNECT, "arrives"]
    [lost] = [event for event in events if isinstance(event, ConnectionLost)]
    assert ENDED in str(lost.cause)


async def test_one_connection_of_several_can_be_lost(fake: FakeServer) -> None:
    """The others go on."""
    async with Listener(fake.dsn) as one, Listener(fake.dsn) as other:
        await one.listen("a", print)
        pids = fake.listening_pids
        await other.listen("a", print)
        fake.lose(*pids)
        assert not one.is_connected
        assert other.is_connected


async def test_what_was_not_read_is_lost_with_the_connection(
    fake: FakeServer, received: Received
) -> None:
    """As after a reset: the Gap covers it."""
    async with Listener(fake.dsn) as listener:
        await listener.listen("a", received.take, resync=received.resync)
        await passed(listener, fake)
        fake.notify("a", "on its way")
        fake.lose()
        await fake.until_listening("a")
        await passed(listener, fake)
    assert received.items == [GapReason.START, GapReason.RECONNECT]


async def test_refused_connections_are_tried_until_one_is_accepted(fake: FakeServer) -> None:
    """A hundred seconds of that pass at once on a clock that jumps."""
    events: list[ConnectionEvent] = []
    async with Listener(fake.dsn, on_event=events.append) as listener:
        await listener.listen("a", print)
        fake.refuse()
        fake.lose()
        await asyncio.sleep(100)
        assert listener.state is State.RECONNECTING
        fake.reconnect()
        await fake.until_listening("a")
    assert len([event for event in events if isinstance(event, RetryScheduled)]) > 5


async def test_a_permanent_refusal_ends_the_start(fake: FakeServer) -> None:
    """As a wrong password does; a passing one is tried again until the time is over."""
    fake.refuse(permanently=True)
    began = asyncio.get_running_loop().time()
    with pytest.raises(ConnectError):
        await Listener(fake.dsn).start()
    assert asyncio.get_running_loop().time() == began
    fake.refuse()
    with pytest.raises(ConnectError):
        await Listener(fake.dsn).start()
    assert asyncio.get_running_loop().time() >= began + 30


async def test_a_frozen_server_is_found_dead_by_the_heartbeat(
    fake: FakeServer, received: Received
) -> None:
    """Within the seconds that the listener was given; on the clock that jumps, at once."""
    async with Listener(fake.dsn, heartbeat=10, heartbeat_timeout=5) as listener:
        await listener.listen("a", received.take, resync=received.resync)
        await passed(listener, fake)
        fake.freeze()
        fake.notify("a", "1")
        await asyncio.sleep(14.9)
        assert listener.state is State.CONNECTED
        await asyncio.sleep(0.2)
        assert not listener.is_connected
        await asyncio.sleep(60)  # a connection that is not accepted has its timeout too
        fake.thaw()
        await fake.until_listening("a")
        await passed(listener, fake)
    assert received.items == [GapReason.START, GapReason.RECONNECT]


async def test_a_server_that_was_frozen_for_a_moment_has_lost_nothing(
    fake: FakeServer, received: Received
) -> None:
    """What was asked meanwhile is done and answered afterwards."""
    async with Listener(fake.dsn) as listener:
        await listener.listen("a", received.take, resync=received.resync)
        fake.freeze()
        sending = asyncio.create_task(listener.notify("a", "1"))
        await asyncio.sleep(1)
        fake.notify("a", "2")
        assert fake.notifications == ()
        fake.thaw()
        await sending
        await passed(listener, fake)
    assert sorted(map(str, received.items)) == ["1", "2", "start"]


async def test_a_server_that_sends_is_alive(fake: FakeServer, received: Received) -> None:
    """An answer may take longer than its deadline while notifications come before it."""
    loop = asyncio.get_running_loop()
    async with Listener(fake.dsn, operation_timeout=1) as listener:
        await listener.listen("a", received.take)
        began = loop.time()
        for number in range(1, 4):
            fake.delay(number * 0.9)
            fake.notify("a", str(number))
        await listener.listen("b", received.take)  # is answered after what was sent before
        assert loop.time() - began == pytest.approx(2.7)
        assert received.items == ["1", "2", "3"]
        fake.delay(0)
        await passed(listener, fake)


async def test_a_delay_keeps_the_order(fake: FakeServer, received: Received) -> None:
    """Also when it is taken back: no answer overtakes a notification that was sent before."""
    loop = asyncio.get_running_loop()
    async with Listener(fake.dsn) as listener:
        await listener.listen("a", received.take)
        fake.delay(2)
        began = loop.time()
        fake.notify("a", "1")
        fake.delay(0)
        fake.notify("a", "2")
        await passed(listener, fake)
        assert loop.time() - began == pytest.approx(2)
    assert received.items == ["1", "2"]


async def test_a_delay_beyond_the_timeout_ends_a_command(fake: FakeServer) -> None:
    """The notification may have been sent: in this case it has been."""
    async with Notifier(fake.dsn, operation_timeout=5) as notifier:
        fake.delay(6)
        with pytest.raises(ConnectionLostError):
            await notifier.notify("a", "1")
    assert [n.payload for n in fake.notifications] == ["1"]


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_a_delay_is_a_number_of_seconds(fake: FakeServer, seconds: float) -> None:
    """For a server that never answers there is another method."""
    told = r"freeze\(\)" if seconds == float("inf") else "seconds must be a number, at least 0"
    with pytest.raises(ValueError, match=told):
        fake.delay(seconds)


async def test_a_notify_whose_connection_dies_says_that_it_may_have_been_sent(
    fake: FakeServer,
) -> None:
    """And the next one is sent on a new connection."""
    async with Notifier(fake.dsn) as notifier:
        fake.delay(1)
        sending = asyncio.create_task(notifier.notify("a", "1"))
        await fake.until_notified("a")
        fake.lose()
        with pytest.raises(ConnectionLostError):
            await sending
        await notifier.notify("a", "2")
    assert [n.payload for n in fake.notifications] == ["1", "2"]


async def test_an_idle_notifier_sees_no_loss(fake: FakeServer) -> None:
    """Its next call makes a new connection."""
    async with Notifier(fake.dsn) as notifier:
        fake.lose()
        await notifier.notify("a", "1")
    assert [n.payload for n in fake.notifications] == ["1"]


def test_a_transaction_whose_connection_is_lost_sends_nothing(fake: FakeServer) -> None:
    """Neither a further notification nor its commit passes over that."""
    with pytest.raises(ConnectionLostError), fake.transaction() as transaction:  # noqa: PT012 - both
        transaction.pg_notify("a", "1")
        fake.lose()
        with pytest.raises(ConnectionLostError):
            transaction.pg_notify("a", "2")
    assert fake.notifications == ()


@pytest.mark.parametrize("some", [True, False])
async def test_a_session_that_listens_no_more_is_repaired_by_the_heartbeat(
    fake: FakeServer, received: Received, *, some: bool
) -> None:
    """With a Gap of its own, on the connection that is there."""
    async with Listener(fake.dsn) as listener:
        await listener.listen("a", received.take, resync=received.resync)
        pids = fake.pids
        fake.unlisten(*(fake.listening_pids if some else ()))
        assert fake.channels == frozenset()
        fake.notify("a", "missed")
        await fake.until_listening("a")
        await passed(listener, fake)
        assert fake.pids == pids
    assert received.items == [GapReason.START, GapReason.UNLISTENED]


async def test_a_connection_is_replaced_without_a_gap(fake: FakeServer, received: Received) -> None:
    """max_connection_age works as on a server."""
    async with Listener(fake.dsn, max_connection_age=60) as listener:
        await listener.listen("a", received.take, resync=received.resync)
        before = fake.listening_pids
        await asyncio.sleep(70)
        fake.notify("a", "1")
        await passed(listener, fake)
        assert fake.listening_pids != before
    assert received.items == [GapReason.START, "1"]


async def test_nothing_is_left_when_all_is_closed(fake: FakeServer) -> None:
    """No connection, whether it was in use or not."""
    async with Listener(fake.dsn) as listener, Notifier(fake.dsn) as notifier:
        await listener.listen("a", print)
        await listener.notify("a")
        await notifier.notify("a")
        assert len(fake.pids) == 3
    assert not fake.pids


# -- threads --------------------------------------------------------------------------------------


def test_the_faces_for_threads_run_on_it(fake: FakeServer) -> None:
    """Each in an event loop of its own; transactions are taken as in tasks."""
    with (
        BlockingListener(fake.dsn) as listener,
        BlockingNotifier(fake.dsn) as notifier,
        listener.stream("a") as stream,
    ):
        fake.notify("a", "1")
        notifier.notify("a", "2")
        with fake.transaction() as transaction:
            notifier.notify("a", "3", connection=transaction)
            listener.notify("a", "4", connection=transaction)
        assert [next(stream).payload for _ in range(4)] == ["1", "2", "3", "4"]
    assert not fake.pids


def test_many_threads_may_use_it_at_once(fake: FakeServer) -> None:
    """Each commits whole transactions, and the listener gets all of them in the one order."""

    def send(name: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(200):
                with fake.transaction() as transaction:
                    transaction.pg_notify("a", f"{name} {number}")
                    transaction.pg_notify("a", f"{name} {number} too")

        return run

    with BlockingListener(fake.dsn) as listener, listener.stream("a") as stream:
        threads = [threading.Thread(target=send(name)) for name in "wxyz"]
        for thread in threads:
            thread.start()
        got = [next(stream).payload for _ in range(4 * 2 * 200)]
        for thread in threads:
            thread.join()
    assert got == [n.payload for n in fake.notifications]
    assert got[1::2] == [f"{payload} too" for payload in got[::2]]


def test_connections_are_lost_from_other_threads_while_they_deliver(fake: FakeServer) -> None:
    """What arrives is in order, nothing comes twice, and at last everything arrives again."""
    numbers: list[int] = []
    stopping = threading.Event()

    def cut() -> None:
        while not stopping.is_set():
            fake.lose(*fake.listening_pids)

    with BlockingListener(fake.dsn) as listener, listener.stream("a", gaps=True) as stream:
        thread = threading.Thread(target=cut)
        thread.start()
        for number in range(2_000):
            fake.notify("a", str(number))
        stopping.set()
        thread.join()
        for item in stream:
            if isinstance(item, Gap):
                fake.notify("a", "end")  # it comes after LISTEN: the last one arrives
            elif item.payload == "end":
                break
            else:
                numbers.append(int(item.payload))
    assert numbers == sorted(set(numbers))


# -- what is not there ----------------------------------------------------------------------------


async def test_locks_are_refused_at_once(fake: FakeServer) -> None:
    """By an error that says where to test them; a retry would take the whole start_timeout."""
    with pytest.raises(NotOnFakeError, match="no locks: test this on a real server"):
        Locks(fake.dsn)
    with pytest.raises(NotOnFakeError, match="locks"):
        async with Lock(fake.dsn, "import"):
            pass


async def test_triggers_are_refused_at_once(fake: FakeServer) -> None:
    """They are SQL, which a transaction of the fake server does not execute."""
    table = Table("orders", key="id")
    async with fake.transaction() as transaction:
        with pytest.raises(NotOnFakeError, match="no triggers"):
            await table.install(transaction)
        with pytest.raises(NotOnFakeError, match="no triggers"):
            BlockingTable(table).install(transaction)


async def test_sql_is_refused_in_a_transaction(fake: FakeServer) -> None:
    """By each method by which a program executes it; a block within is a savepoint."""
    async with fake.transaction() as transaction:
        methods = ("execute", "executemany", "fetch", "fetchrow", "fetchval")
        for method in methods:
            with pytest.raises(NotOnFakeError, match="no SQL"):
                await getattr(transaction, method)("SELECT 1")
        with contextlib.suppress(LookupError):
            async with transaction.transaction():
                transaction.pg_notify("orders", "withdrawn")
                raise LookupError
        transaction.pg_notify("orders", "kept")
    assert [n.payload for n in fake.notifications] == ["kept"]


# -- what goes wrong when notifications are sent --------------------------------------------------


@pytest.mark.parametrize("committed", [False, True])
async def test_a_connection_is_lost_on_a_notification(fake: FakeServer, *, committed: bool) -> None:
    """Before the server has committed it or after that: the caller is told that he cannot know."""
    fake.lose_on("2", channel="orders", committed=committed)
    async with Notifier(fake.dsn) as notifier:
        await notifier.notify("orders", "1")
        await notifier.notify("others", "2")
        with pytest.raises(ConnectionLostError, match="may or may not"):
            await notifier.notify("orders", "2")
        await notifier.notify("orders", "2")
    sent = [n.payload for n in fake.notifications if n.channel == "orders"]
    assert sent == ["1", "2", "2"] if committed else ["1", "2"]


def refusing(channel: str, payload: str) -> asyncpg.PostgresError | None:
    """Refuse what is called bad."""
    return asyncpg.InsufficientPrivilegeError(f"{channel}: {payload}") if payload == "bad" else None


async def test_notifications_are_refused_one_by_one(fake: FakeServer) -> None:
    """The error surfaces unchanged at the call that is refused, also in a transaction."""
    fake.refuse_notifications(refusing)
    async with Notifier(fake.dsn) as notifier:
        calls = [notifier.notify("orders", payload) for payload in ("1", "bad", "2", "bad")]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [
            type(None),
            asyncpg.InsufficientPrivilegeError,
        ] * 2
        assert str(results[1]) == "orders: bad"
        with (
            contextlib.suppress(asyncpg.InsufficientPrivilegeError),
            fake.transaction() as transaction,
        ):
            await notifier.notify("orders", "3", connection=transaction)
            await notifier.notify("orders", "bad", connection=transaction)
        fake.notify("orders", "bad")
        fake.refuse_notifications(None)
        await notifier.notify("orders", "bad")
    assert [n.payload for n in fake.notifications] == ["1", "2", "bad", "bad"]


async def test_a_full_queue_refuses_and_is_seen(fake: FakeServer) -> None:
    """health() says how full it is; once it is full nothing is sent, until there is room."""
    async with Listener(fake.dsn) as listener:
        fake.fill_queue(0.75)
        await listener.notify("orders", "1")
        assert (await listener.health())["queue_usage"] == 0.75
        fake.fill_queue()
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="NOTIFY queue"):
            await listener.notify("orders", "2")
        with pytest.raises(asyncpg.ProgramLimitExceededError), fake.transaction() as transaction:
            transaction.pg_notify("orders", "3")
        with fake.transaction():
            pass  # which sends nothing
        fake.fill_queue(0)
        await listener.notify("orders", "4")
    assert [n.payload for n in fake.notifications] == ["1", "4"]


@pytest.mark.parametrize("usage", [-0.1, 1.1, float("nan")])
def test_a_queue_is_as_full_as_can_be(fake: FakeServer, usage: float) -> None:
    """Neither less than empty nor more than full."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        fake.fill_queue(usage)


async def test_commands_are_counted(fake: FakeServer) -> None:
    """One for any number of channels, and one for notifications that are sent together."""
    async with Listener(fake.dsn, heartbeat=None) as listener, Notifier(fake.dsn) as notifier:
        before = fake.commands
        async with listener.stream("a", "b", "c"):
            assert fake.commands == before + 1
            await notifier.notify_many([("a", "1"), ("b", "2")])
            assert fake.commands == before + 2
            fake.notify("a", "3")
            assert fake.commands == before + 2
        leaving = asyncio.create_task(listener.unlisten("other"))
        async with asyncio.timeout(10):
            await fake.until_commands(before + 3)
        await leaving


async def test_a_test_can_wait_until_the_program_connects(fake: FakeServer) -> None:
    """Connections that are being made are none yet: they wait while the server is frozen."""
    fake.freeze()
    notifier = Notifier(fake.dsn)
    starting = asyncio.create_task(notifier.start())
    async with asyncio.timeout(10):
        await fake.until_connecting(1)
        assert fake.pids == ()
        fake.thaw()
        await starting
    assert (fake.connecting, len(fake.pids)) == (0, 1)
    await notifier.aclose()
