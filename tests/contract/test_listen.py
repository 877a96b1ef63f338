"""Listening and unlistening: what holds once a call has returned, also with concurrent calls."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from asyncnotify import Gap, GapReason, ListenTimeoutError, Notification
from tests.contract.fake_network import network_before

if TYPE_CHECKING:
    from asyncnotify import Listener, Subscription
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

ALPHABETS = (
    "abcXYZ019",
    "\"'`\\;:,.$%&*()[]{}<>-+/|?! ",
    "\t\n\r\v\f\x01\x07\x1b\x7f\x85\u2028\ufeff",
    "äßéİıſΣЖ中文字あ한🙂\U0010ffff\ufffe\u0301\u202e",
)
SQL = (
    '"; DROP TABLE x; --',
    "a; UNLISTEN *",
    "$1",
    "%s",
    "{}",
    "*",
    "U&\\0041",
    "select",
    "E'\\n'",
)


def random_name(source: random.Random) -> str:
    """Return a name of 1 to 63 bytes, of characters that have made trouble somewhere."""
    name = source.choice(SQL) if source.random() < 0.2 else ""
    alphabet = source.choice((*ALPHABETS, "".join(ALPHABETS)))
    for _ in range(source.randint(1, 63)):
        character = source.choice(alphabet)
        if len((name + character).encode()) > 63:
            break
        name += character
    return name


async def test_listen_notify_received(listener: Listener, database: Database, inbox: Text) -> None:
    """A notification reaches its handler as it was sent, with the sender's pid."""
    subscription = await listener.listen("orders", inbox)
    assert (subscription.channel, subscription.active) == ("orders", True)
    assert listener.channels == {"orders"}
    await database.notify("orders", "héllo", "")
    pid = database.pid
    assert await inbox.next() == ("orders", "héllo", pid)
    assert await inbox.next() == ("orders", "", pid)


async def test_channels_are_case_sensitive(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """A channel is exactly the one named: nothing is folded, nothing trimmed."""
    await listener.listen("Orders", inbox)
    for channel in ("orders", "ORDERS", "Orders ", "Orders"):
        await database.notify(channel, channel)
    assert await inbox.payloads(1) == ["Orders"]


async def test_calls_at_once_are_all_served(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Two hundred calls of listen() at once are confirmed, each for its channel."""
    channels = [f"channel {n}" for n in range(200)]
    await asyncio.gather(*(listener.listen(channel, inbox) for channel in channels))
    assert await database.server_channels(listener) == set(channels)
    for channel in channels:
        await database.notify(channel, channel)
    assert await inbox.payloads(200) == channels


async def test_subscriptions_share_a_listen(
    listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """Every handler of a channel gets everything; the last to go takes LISTEN with it."""
    inboxes = [new_inbox() for _ in range(3)]
    subscriptions = [await listener.listen("orders", inbox) for inbox in inboxes]
    await database.notify("orders", "1")
    assert [await inbox.payloads(1) for inbox in inboxes] == [["1"]] * 3
    await subscriptions[0].cancel()
    assert not subscriptions[0].active
    assert listener.channels == {"orders"}
    await database.notify("orders", "2")
    assert [await inbox.payloads(1) for inbox in inboxes[1:]] == [["2"]] * 2
    await subscriptions[1].cancel()
    assert await database.server_channels(listener) == {"orders"}
    await subscriptions[2].cancel()
    assert await database.server_channels(listener) == set()
    assert len(inboxes[0]) == 0


async def test_the_same_handler_may_listen_twice(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Each call makes a subscription of its own, also of the same handler on the same channel."""
    first = await listener.listen("orders", inbox)
    await listener.listen("orders", inbox)
    await database.notify("orders", "1")
    assert await inbox.payloads(2) == ["1", "1"]
    await first.cancel()
    await database.notify("orders", "2")
    await database.fence(listener)
    assert [notification.payload for notification in inbox.taken()] == ["2"]


async def test_unlisten_ends_every_subscription_of_the_channel(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Handlers, registered ones and streams of the channel end; other channels go on."""
    registered = listener.on("orders")
    registered(inbox)
    handled = await listener.listen("orders", inbox)
    kept = await listener.listen("events", inbox)
    stream = await listener.stream("orders").__aenter__()
    await listener.unlisten("orders")
    assert (handled.active, kept.active) == (False, True)
    assert [notification async for notification in stream] == []
    assert listener.channels == {"events"}
    assert await database.server_channels(listener) == {"events"}
    await listener.unlisten("orders")


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_r23_no_handler_starts_after_unlisten(
    listener: Listener, database: Database, inbox: Text, concurrency: int
) -> None:
    """Once unlisten() has returned, neither what was buffered nor what still comes is handed on."""
    gate = asyncio.Event()

    async def handle(notification: Notification[str]) -> None:
        inbox(notification)
        await gate.wait()

    for n in range(50):
        gate.clear()
        await listener.listen("orders", handle, concurrency=concurrency)
        begun = [f"{n} begun {call}" for call in range(concurrency)]
        await database.notify("orders", *begun, f"{n} buffered")
        assert await inbox.payloads(concurrency) == begun
        unlistening = asyncio.create_task(listener.unlisten("orders"))
        await database.notify("orders", f"{n} late")
        await unlistening
        gate.set()
        await database.fence(listener)
        assert inbox.taken() == []


async def test_cancel_is_idempotent_and_works_from_the_handler(
    listener: Listener, database: Database
) -> None:
    """A handler may end its own subscription; the call returns to it."""
    outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def once(_: Notification[str]) -> None:
        await subscription.cancel()
        await subscription.cancel()
        outcome.set_result(subscription.active)

    subscription = await listener.listen("orders", once)
    await database.notify("orders", "1", "2")
    assert await outcome is False
    await database.fence(listener)
    assert "orders" not in await database.server_channels(listener)


async def test_on_before_and_after_the_start(
    factory: ListenerFactory, database: Database, inbox: Text
) -> None:
    """A registered handler listens from the start on, or soon if it is registered later."""
    gaps: list[Gap] = []
    listener = factory.listener()
    assert listener.on("before", resync=gaps.append)(inbox) is inbox
    assert listener.channels == {"before"}
    async with listener:
        assert gaps == [Gap("before", GapReason.START)]
        assert await database.server_channels(listener) == {"before"}
        listener.on("after")(inbox)
        await listener.listen("after", inbox)
        await database.notify("before", "1")
        await database.notify("after", "2")
        assert await inbox.payloads(3) == ["1", "2", "2"]
        await listener.unlisten("after")
    assert listener.channels == {"before"}


async def test_r20_listen_while_down_waits_for_the_reconnect(
    factory: ListenerFactory, dsn: str, database: Database, inbox: Text
) -> None:
    """Called while there is no connection, listen() returns once the next one listens."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        proxy.refuse()
        proxy.reset()
        listening = asyncio.create_task(listener.listen("orders", inbox))
        await proxy.wait_for_connections(0)
        await listener.unlisten("other")
        assert not listening.done()
        proxy.heal()
        await listening
        await database.notify("orders", "1")
        assert await inbox.payloads(1) == ["1"]


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_r20_listen_that_gives_up_is_withdrawn_whole(
    factory: ListenerFactory, dsn: str, database: Database, inbox: Text, how: str
) -> None:
    """After a timeout or a cancellation nothing of the subscription is left, nor runs later."""
    gaps: list[Gap] = []
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        proxy.refuse()
        proxy.reset()
        if how == "timeout":
            with pytest.raises(ListenTimeoutError, match="withdrawn") as caught:
                await listener.listen("orders", inbox, resync=gaps.append, timeout=0.05)
            assert (caught.value.channels, caught.value.timeout) == (("orders",), 0.05)
        else:
            listening = asyncio.create_task(
                listener.listen("orders", inbox, resync=gaps.append, timeout=None)
            )
            await proxy.wait_for_connections(0)
            listening.cancel()
            await asyncio.wait({listening})
            assert listening.cancelled()
        assert listener.channels == frozenset()
        proxy.heal()
        await listener.wait_connected()
        await database.notify("orders", "1")
        await database.fence(listener)
        assert await database.server_channels(listener) <= {"fence"}
    assert (len(inbox), gaps) == (0, [])


async def test_listen_that_overtakes_unlisten_loses_nothing(
    factory: ListenerFactory, dsn: str, database: Database, new_inbox: type[Text]
) -> None:
    """A channel that is wanted again while UNLISTEN is under way misses nothing from then on."""
    inboxes = {f"channel {n}": new_inbox() for n in range(10)}
    payloads = [str(n) for n in range(200)]
    sending = asyncio.Lock()

    async def listen_again(channel: str) -> None:
        await listener.listen(channel, inboxes[channel])
        for payload in payloads:
            async with sending:
                await database.notify(channel, payload)

    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        old = [await listener.listen(channel, new_inbox()) for channel in inboxes]
        proxy.delay(to_client=0.02)
        unlistening = proxy.detect(b"UNLISTEN")
        leaving = asyncio.gather(*(subscription.cancel() for subscription in old))
        await unlistening.wait()
        await asyncio.gather(leaving, *map(listen_again, inboxes))
        await database.fence(listener)
    for inbox in inboxes.values():
        assert [notification.payload for notification in inbox.taken()] == payloads


async def test_r22_listening_is_what_is_desired_after_any_race(
    factory: ListenerFactory, database: Database
) -> None:
    """After 5,000 calls by 50 tasks, with connections lost, the server agrees with the desire."""
    source = random.Random(22)

    async def toss(listener: Listener) -> None:
        held: list[Subscription] = []
        for _ in range(100):
            channel = f"channel {source.randrange(20)}"
            match source.randrange(5):
                case 0 | 1:
                    held.append(await listener.listen(channel, lambda _: None))
                case 2 | 3 if held:
                    await held.pop(source.randrange(len(held))).cancel()
                case 4 if source.random() < 0.2:
                    await listener.unlisten(channel)
                case _:
                    await asyncio.sleep(0)

    async with factory.listener(heartbeat=None, backoff=partial(repeat, 0.0)) as listener:
        tossing = asyncio.gather(*(toss(listener) for _ in range(50)))
        for _ in range(2):
            await database.interrupt(listener)
            assert not tossing.done()
        await tossing
        await listener.wait_connected()
        await listener.listen("last", lambda _: None)
        await listener.unlisten("last")
        assert listener.channels
        assert await database.server_channels(listener) == listener.channels


async def test_r42_any_name_is_listened_on_replayed_and_unlistened(
    listener: Listener, database: Database, new_inbox: type[Text]
) -> None:
    """Two thousand names full of quotes, SQL and control characters mean what they say."""
    source = random.Random(42)
    names = list({random_name(source): None for _ in range(2_200)})[:2_000]
    assert len(names) == 2_000
    inbox = new_inbox()
    await asyncio.gather(*(listener.listen(name, inbox) for name in names))
    await database.notify_all(names, names)
    assert await taken_pairs(inbox, 2_000) == sorted((name, name) for name in names)
    await database.interrupt(listener)
    assert await database.server_channels(listener) == set(names)
    await database.notify_all(names, names)
    assert await taken_pairs(inbox, 2_000) == sorted((name, name) for name in names)
    await asyncio.gather(*(listener.unlisten(name) for name in names[1:]))
    assert await database.server_channels(listener) == {names[0]}
    await database.notify_all(names, names)
    await database.fence(listener)
    assert [n.channel for n in inbox.taken()] == names[:1]


async def taken_pairs(inbox: Text, count: int) -> list[tuple[str, str]]:
    """Return the next so many, sorted: one subscription may be served before another."""
    return sorted((n.channel, n.payload) for n in await take(inbox, count))


async def take(inbox: Text, count: int) -> list[Notification[str]]:
    """Return the next so many notifications."""
    return [await inbox.next() for _ in range(count)]
