"""Many clients over one listener, on the server in memory: rights, bounds, and what is left."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from asyncnotify import (
    BufferOverflowError,
    Channel,
    ChannelNameError,
    Gap,
    GapReason,
    Listener,
    NotStartedError,
)
from asyncnotify.ext.fanout import ChannelNotAllowedError, Fanout, TooManyChannelsError
from asyncnotify.testing.fake import FakeServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncnotify import Stream

SOON: Final = scaled(10.0)


def quick() -> Iterator[float]:
    """Return the delays between attempts to connect."""
    return itertools.repeat(0.01)


@pytest.fixture
def fake() -> FakeServer:
    """A server in memory."""
    return FakeServer()


@pytest_asyncio.fixture
async def listener(fake: FakeServer) -> AsyncIterator[Listener]:
    """A listener that runs."""
    async with Listener(fake.dsn, backoff=quick) as listener:
        yield listener


async def payloads(stream: Stream[Any], count: int) -> list[object]:
    """Return the next items, of which each is a payload or the reason of a gap."""
    items = [await anext(stream) for _ in range(count)]
    return [item.reason if isinstance(item, Gap) else item.payload for item in items]


def may_read_own(client: str, channel: str) -> bool:
    """Let each client listen to its own channel."""
    return channel == f"user.{client}"


async def may_read_own_async(client: str, channel: str) -> bool:
    """Do the same after a question to some database."""
    await asyncio.sleep(0)
    return may_read_own(client, channel)


async def until(fact: Callable[[], bool]) -> None:
    """Return once this is so."""
    async with asyncio.timeout(SOON):
        while not fact():  # noqa: ASYNC110 - the counters of a listener are no event
            await asyncio.sleep(0)


def is_clean(fanout: Fanout[Any], listener: Listener) -> bool:
    """Return whether nothing of any client is left."""
    return not (fanout.channels or listener.channels or listener.stats().subscriptions)


async def test_clients_of_a_channel_share_one_listen(fake: FakeServer, listener: Listener) -> None:
    """Each has its own stream, with a gap at its start; the last one to leave ends the LISTEN."""
    fanout = Fanout[str](listener)
    async with fanout.subscribe(["orders"], "ann") as one:
        async with fanout.subscribe(["orders", "stock"], "bob") as two:
            fake.notify("orders", "1")
            assert await payloads(one, 2) == [GapReason.START, "1"]
            assert await payloads(two, 2) == [GapReason.START, "1"]
            assert fanout.channels == listener.channels == {"orders", "stock"}
        assert fanout.channels == listener.channels == {"orders"}
    assert is_clean(fanout, listener)


async def test_payloads_are_of_the_type_of_their_channel(
    fake: FakeServer, listener: Listener
) -> None:
    """A Channel decodes them."""
    async with Fanout[None](listener).subscribe([Channel("orders", dict)], None) as stream:
        fake.notify("orders", '{"id": 1}')
        assert await payloads(stream, 2) == [GapReason.START, {"id": 1}]


async def test_clients_are_told_of_an_outage(fake: FakeServer, listener: Listener) -> None:
    """A client who is there gets a gap; one who comes meanwhile is served when it is over."""
    fanout = Fanout[str](listener)
    entered = asyncio.Event()

    async def come() -> list[object]:
        async with fanout.subscribe(["stock"], "late") as stream:
            entered.set()
            return await payloads(stream, 1)

    async with fanout.subscribe(["orders"], "early") as stream:
        assert await payloads(stream, 1) == [GapReason.START]
        fake.refuse()
        fake.lose()
        await until(lambda: not listener.is_connected)
        late = asyncio.create_task(come())
        await until(lambda: len(listener.stats().subscriptions) == 2)
        assert not entered.is_set()
        fake.reconnect()
        assert await payloads(stream, 1) == [GapReason.RECONNECT]
        assert await late == [GapReason.START]


@pytest.mark.parametrize("authorize", [may_read_own, may_read_own_async])
async def test_clients_listen_to_what_they_may(
    listener: Listener, authorize: Callable[[str, str], Any]
) -> None:
    """Any other channel is refused before there is a LISTEN, also beside one that is allowed."""
    fanout = Fanout[str](listener, authorize=authorize)
    async with fanout.subscribe(["user.ann"], "ann"):
        with pytest.raises(ChannelNotAllowedError, match=r"'user\.bob'") as caught:
            async with fanout.subscribe(["user.ann", "user.bob"], "ann"):
                pass
        assert caught.value.channel == "user.bob"
        assert isinstance(caught.value, PermissionError)
        assert listener.channels == {"user.ann"}
    assert is_clean(fanout, listener)


async def test_what_authorize_raises_reaches_the_caller(listener: Listener) -> None:
    """A client whose rights are unknown is not served."""

    def fail(client: str, channel: str) -> bool:
        raise LookupError

    fanout = Fanout[str](listener, authorize=fail)
    with pytest.raises(LookupError):
        await fanout.check(["orders"], "ann")
    assert is_clean(fanout, listener)


async def test_clients_cannot_open_channels_without_end(listener: Listener) -> None:
    """Different channels are counted over all clients, and those that are free again are free."""
    fanout = Fanout[str](listener, max_channels=2)
    async with fanout.subscribe(["a", "b"], "ann"):
        async with fanout.subscribe(["b", "a"], "bob"):
            pass
        with pytest.raises(TooManyChannelsError, match="2 channels already") as caught:
            await fanout.check(["b", "c"], "bob")
        assert caught.value.limit == 2
        with pytest.raises(TooManyChannelsError):
            async with fanout.stream(["c"]):
                pass
    async with fanout.subscribe(["c"], "bob"):
        assert listener.channels == {"c"}
    assert is_clean(fanout, listener)


async def test_a_slow_client_gets_a_gap_and_delays_nobody(
    fake: FakeServer, listener: Listener
) -> None:
    """Its buffer has a bound; another client gets everything."""
    fanout = Fanout[str](listener, buffer=2)
    async with (
        fanout.subscribe(["orders"], "slow") as slow,
        fanout.subscribe(["orders"], "fast") as fast,
    ):
        assert await payloads(fast, 1) == await payloads(slow, 1) == [GapReason.START]
        for number in range(5):
            fake.notify("orders", str(number))
            assert await payloads(fast, 1) == [str(number)]
        await until(lambda: listener.stats().dropped > 0)
        dropped, got = 0, []
        while "4" not in got:
            item = await anext(slow)
            if isinstance(item, Gap):
                assert item.reason is GapReason.OVERFLOW
                dropped += item.dropped or 0
            else:
                got.append(item.payload)
        assert dropped == listener.stats().dropped == 5 - len(got)
        assert got == sorted(got)


async def test_a_slow_client_is_dropped_if_asked(fake: FakeServer, listener: Listener) -> None:
    """By an error, after which nothing of it is left."""
    fanout = Fanout[str](listener, buffer=1, overflow="fail")
    with pytest.raises(BufferOverflowError):
        await fall_behind(fake, listener, fanout)
    assert is_clean(fanout, listener)


async def fall_behind(fake: FakeServer, listener: Listener, fanout: Fanout[str]) -> None:
    """Read only once there is more than the buffer takes."""
    async with fanout.subscribe(["orders"], "slow") as stream:
        for number in range(3):
            fake.notify("orders", str(number))
        await until(lambda: listener.stats().dropped > 0)
        await payloads(stream, 3)


async def test_clients_that_vanish_leave_nothing(fake: FakeServer, listener: Listener) -> None:
    """Whether they wait for LISTEN, or for a notification that never comes."""
    fanout = Fanout[int](listener)

    async def serve(client: int) -> None:
        async with fanout.subscribe([f"of {client}", "orders"], client) as stream:
            async for _ in stream:
                pass

    tasks = [asyncio.create_task(serve(client)) for client in range(50)]
    await fake.until_listening("of 49")
    fake.refuse()
    fake.lose()
    tasks += [asyncio.create_task(serve(client)) for client in range(50, 60)]
    await until(lambda: len(listener.stats().subscriptions) == len(tasks))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert is_clean(fanout, listener)


async def test_the_end_of_the_listener_ends_the_streams(fake: FakeServer) -> None:
    """Normally, after what they have buffered; then a client is refused by what raises."""
    listener = Listener(fake.dsn)
    fanout = Fanout[str](lambda: listener)
    with pytest.raises(NotStartedError):
        async with fanout.subscribe(["orders"], "ann"):
            pass
    await listener.start()
    async with fanout.subscribe(["orders"], "ann") as stream:
        fake.notify("orders", "1")
        assert await payloads(stream, 2) == [GapReason.START, "1"]
        await listener.aclose()
        assert [item async for item in stream] == []
    assert is_clean(fanout, listener)


async def test_a_function_returns_the_listener_of_the_present_run(fake: FakeServer) -> None:
    """An application that starts twice has a listener of its own each time."""
    present: list[Listener] = []
    fanout = Fanout[str](lambda: present[-1])
    for _ in range(2):
        async with Listener(fake.dsn) as listener:
            present.append(listener)
            async with fanout.subscribe(["orders"], "ann"):
                assert listener.channels == {"orders"}


@pytest.mark.parametrize("channels", ["orders", [], ["x" * 64], ["a\0b"], [1]])
async def test_what_is_no_list_of_channels_is_refused(channels: Any, listener: Listener) -> None:
    """Before authorize is asked."""
    fanout = Fanout[str](listener, authorize=lambda _client, _channel: pytest.fail("was asked"))
    with pytest.raises((TypeError, ChannelNameError)):
        await fanout.check(channels, "ann")
    with pytest.raises((TypeError, ChannelNameError)):
        async with fanout.stream(channels):
            pass


@pytest.mark.parametrize(
    "options",
    [
        {"listener": "postgresql://localhost"},
        {"listener": Listener},
        {"listener": may_read_own},
        {"authorize": "no"},
        {"authorize": lambda: True},
        {"max_channels": 0},
        {"buffer": 0},
        {"overflow": "block"},
        {"timeout": -1},
    ],
    ids="-".join,
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, Any]) -> None:
    """Not when the first client comes."""
    given: dict[str, Any] = {"listener": Listener(), **options}
    with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(options))} "):
        Fanout(**given)
