"""notify(): sent once for each call, in order, and each caller learns what became of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import (
    ChannelNameError,
    ClosedError,
    ConnectionLostError,
    Listener,
    Notification,
    PayloadError,
    PayloadTooLargeError,
)
from asyncnotify.testing.proxy import ProxiedConnection
from asyncnotify.testing.server import PostgresServer
from tests.contract.fake_network import network_before
from tests.support.server_features import needs_small_queue, small_queue

if TYPE_CHECKING:
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

LIMITS = [
    ("c" * 63, "", None),
    ("c" * 64, "", ChannelNameError),
    ("é" * 31 + "c", "", None),
    ("é" * 32, "", ChannelNameError),
    ("", "", ChannelNameError),
    ("a\0b", "", ChannelNameError),
    ("a\ud800", "", ChannelNameError),
    ("c", "p" * 7_999, None),
    ("c", "p" * 8_000, PayloadTooLargeError),
    ("c", "é" * 3_999 + "p", None),
    ("c", "é" * 4_000, PayloadTooLargeError),
    ("c", "a\0b", PayloadError),
    ("c", "\udfff", PayloadError),
]


async def test_calls_one_after_another_arrive_in_order(listener: Listener, inbox: Text) -> None:
    """What one caller sends arrives in its order; the payload may be left out."""
    await listener.listen("orders", inbox)
    for n in range(100):
        await listener.notify("orders", str(n))
    await listener.notify("orders")
    assert await inbox.payloads(101) == [*map(str, range(100)), ""]


async def test_calls_that_meet_keep_each_callers_order(listener: Listener, inbox: Text) -> None:
    """Of fifty tasks that send at once, each finds its own notifications in its own order."""

    async def send(name: int) -> None:
        for n in range(20):
            await listener.notify("orders", f"{name} {n}")

    await listener.listen("orders", inbox)
    await asyncio.gather(*(send(name) for name in range(50)))
    payloads = await inbox.payloads(1_000)
    for name in range(50):
        mine = [payload for payload in payloads if payload.startswith(f"{name} ")]
        assert mine == [f"{name} {n}" for n in range(20)]


async def test_calls_made_at_once_arrive_in_the_order_of_the_calls(
    listener: Listener, inbox: Text
) -> None:
    """Three thousand calls that are gathered are sent in the order in which they were made."""
    await listener.listen("orders", inbox)
    await asyncio.gather(*(listener.notify("orders", str(n)) for n in range(3_000)))
    assert await inbox.payloads(3_000) == [str(n) for n in range(3_000)]


async def test_equal_calls_all_count(listener: Listener, database: Database, inbox: Text) -> None:
    """Though PostgreSQL folds equal ones in a transaction, each call is delivered."""
    await listener.listen("orders", inbox)
    await asyncio.gather(*(listener.notify("orders", "same") for _ in range(200)))
    assert await inbox.payloads(200) == ["same"] * 200
    await database.fence(listener)
    assert len(inbox) == 0


@pytest.mark.parametrize("state", ["25006", "54000", "42501", "57014", "22023", "P0001"])
async def test_r40_what_the_server_raises_surfaces_unchanged(
    listener: Listener, database: Database, inbox: Text, state: str
) -> None:
    """A refusal is the server's own error, it is not retried, and the connection serves on."""
    await listener.listen("orders", inbox)
    async with database.refusing_bad():
        await listener.notify("orders", "0")
        before = await database.until_backends(2)
        with pytest.raises(asyncpg.PostgresError, match="refused") as caught:
            await listener.notify("orders", f"bad {state}")
        assert caught.value.sqlstate == state
        await listener.notify("orders", "1")
    assert await inbox.payloads(2) == ["0", "1"]
    assert [b["pid"] for b in await database.backends()] == [b["pid"] for b in before]


async def test_a_refusal_fails_its_own_call_only(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Of calls that are sent together, those that are good are sent, in order, each once."""
    await listener.listen("orders", inbox)
    payloads = [f"bad {n:05}" if n % 10 == 5 else str(n) for n in range(100)]
    async with database.refusing_bad():
        await listener.notify("orders", "begin")
        results = await asyncio.gather(
            *(listener.notify("orders", payload) for payload in payloads), return_exceptions=True
        )
    for payload, result in zip(payloads, results, strict=True):
        if payload.startswith("bad"):
            assert isinstance(result, asyncpg.PostgresError)
            assert result.sqlstate == payload[4:]
        else:
            assert result is None
    good = [payload for payload in payloads if not payload.startswith("bad")]
    assert await inbox.payloads(91) == ["begin", *good]


@pytest.mark.parametrize(("channel", "payload", "error"), LIMITS)
async def test_r40_limits_are_exact_and_kept_before_any_io(
    factory: ListenerFactory,
    database: Database,
    channel: str,
    payload: str,
    error: type[ValueError] | None,
) -> None:
    """What the server would refuse is refused before anything is sent; the rest passes."""
    async with factory.listener() as listener:
        if error is None:
            async with listener.stream(channel) as stream:
                await listener.notify(channel, payload)
                assert (await anext(stream))[:2] == (channel, payload)
        else:
            with pytest.raises(error):
                await listener.notify(channel, payload)
            assert issubclass(error, ValueError)
            assert len(await database.backends()) == 1


async def test_r40_a_full_queue_is_the_callers_error(template: PostgresServer) -> None:
    """When a session that does not read has filled the server's queue, notify() says so."""
    needs_small_queue(template)
    with PostgresServer(template=template, settings=small_queue(template)) as server:
        laggard = await asyncpg.connect(server.dsn)
        await laggard.execute("LISTEN c")
        await laggard.execute("BEGIN; SELECT 1")
        async with Listener(server.dsn) as listener, listener.stream("after") as stream:
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await fill_queue(listener)
            await laggard.close()
            await listener.health()  # asking how full the queue is empties it
            await listener.notify("after", "1")
            assert (await anext(stream)).payload == "1"


async def fill_queue(listener: Listener) -> None:
    """Notify until the server's queue is full; it has room for a tenth of what is tried."""
    for number in range(1_000):
        await listener.notify("c", f"{number:07999}")


@pytest.mark.parametrize("answer", [None, b"SELECT 1"], ids=["not-sent", "sent"])
async def test_a_connection_that_dies_in_flight_leaves_doubt(
    factory: ListenerFactory, dsn: str, database: Database, inbox: Text, answer: bytes | None
) -> None:
    """Sent or not, the call says that nobody knows; it is not repeated, the next one is served."""
    async with (
        network_before(dsn) as proxy,
        factory.listener(proxy.proxied_dsn(dsn)) as listener,
    ):
        await listener.listen("orders", inbox)
        await listener.notify("orders", "0")
        proxy.cut_on(b"doubtful", then=ProxiedConnection.reset, answer=answer)
        with pytest.raises(ConnectionLostError, match="may or may not"):
            await listener.notify("orders", "doubtful")
        await listener.notify("orders", "1")
        await database.fence(listener)
        received = [notification.payload for notification in inbox.taken()]
        assert received == (["0", "1"] if answer is None else ["0", "doubtful", "1"])
        assert listener.stats().reconnects == 0


async def test_a_publisher_that_was_idle_when_killed_serves_on(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """A connection that was lost between two calls is replaced, and no caller gets an error."""
    await listener.listen("orders", inbox)
    await listener.notify("orders", "0")
    assert await inbox.payloads(1) == ["0"]  # before the listening session is killed as well
    await database.interrupt(listener)
    await database.until_backends(1)
    await listener.notify("orders", "1")
    assert await inbox.payloads(1) == ["1"]


async def test_cancelled_calls_do_not_hold_up_the_others(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """A caller that gives up concerns itself alone."""
    await listener.listen("orders", inbox)
    calls = [asyncio.create_task(listener.notify("orders", str(n))) for n in range(100)]
    await asyncio.sleep(0)
    for call in calls[1::2]:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls[1::2])
    assert [call.result() for call in calls[::2]] == [None] * 50
    await database.fence(listener)
    payloads = [notification.payload for notification in inbox.taken()]
    assert set(payloads) >= {str(n) for n in range(0, 100, 2)}
    assert payloads == sorted(payloads, key=int)


async def test_a_handler_may_notify_while_the_listener_closes(
    factory: ListenerFactory, database: Database, inbox: Text
) -> None:
    """Handlers that finish what is buffered can still send; after that, calls are refused."""
    gate = asyncio.Event()
    async with factory.listener() as observer:
        await observer.listen("done", inbox)
        listener = factory.listener()
        await listener.start()

        async def answer(notification: Notification[str]) -> None:
            await gate.wait()
            await listener.notify("done", notification.payload)

        await listener.listen("orders", answer)
        await database.notify("orders", "1", "2", "3")
        await database.fence(listener)
        closing = asyncio.create_task(listener.aclose())
        await asyncio.sleep(0)
        gate.set()
        await closing
        assert await inbox.payloads(3) == ["1", "2", "3"]
        with pytest.raises(ClosedError):
            await listener.notify("done", "4")


async def test_calls_that_wait_when_it_closes_are_answered(factory: ListenerFactory) -> None:
    """No call of notify() hangs or is forgotten when the listener is closed under it."""
    async with factory.listener() as listener:
        calls = [asyncio.create_task(listener.notify("orders", str(n))) for n in range(5_000)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), ClosedError}
