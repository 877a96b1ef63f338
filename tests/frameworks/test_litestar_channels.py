"""The channels backends under Litestar's own plugin, and by the claims of Litestar's own tests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from litestar import Litestar
from litestar.channels import ChannelsBackend, ChannelsPlugin, Subscriber
from litestar.testing import TestClient

from asyncnotify import (
    Gap,
    GapReason,
    Listener,
    NotStartedError,
    PayloadTooLargeError,
)
from asyncnotify.ext.litestar import LogChannelsBackend, NotifyChannelsBackend
from asyncnotify.log import Log
from tests.support.log_removal import remove_logs
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    import asyncpg

    from asyncnotify.testing.server import PostgresServer

LIMIT: Final = scaled(20.0)
FENCE: Final = "fence"
ANY_BYTES: Final = bytes(range(256))


def log_backend(dsn: str, **options: Any) -> LogChannelsBackend:
    """Return a backend on a log, which installs it."""
    return LogChannelsBackend(Log("web", dsn), install=True, **options)


BACKENDS: Final[dict[str, Callable[..., NotifyChannelsBackend | LogChannelsBackend]]] = {
    "notify": NotifyChannelsBackend,
    "log": log_backend,
}


@pytest.fixture(params=BACKENDS)
def new_backend(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each kind of backend, to be made with a DSN."""
    return BACKENDS[request.param]


@pytest.fixture
def idle(new_backend: Callable[..., Any], dsn: str) -> Any:
    """A backend that has not been started."""
    return new_backend(dsn)


@pytest_asyncio.fixture
async def backend(idle: Any) -> AsyncIterator[Any]:
    """A backend that runs."""
    await idle.on_startup()
    yield idle
    await idle.on_shutdown()


@contextlib.asynccontextmanager
async def started(backend: Any) -> AsyncGenerator[Any]:
    """Have a backend run for a block."""
    await backend.on_startup()
    try:
        yield backend
    finally:
        await backend.on_shutdown()


async def next_of(events: AsyncIterator[Any]) -> Any:
    """Return what comes next."""
    async with asyncio.timeout(LIMIT):
        return await anext(events)


async def messages(subscriber: Subscriber, count: int) -> list[bytes]:
    """Return so many messages of a subscriber."""
    events = subscriber.iter_events()
    return [await next_of(events) for _ in range(count)]


# -- the contract of a backend --------------------------------------------------------------------


@pytest.mark.parametrize("channels", [{"orders"}, {"orders", "Users"}])
async def test_a_message_comes_on_each_of_its_channels(
    backend: ChannelsBackend, channels: set[str]
) -> None:
    """What is published after subscribe() has returned comes once on each channel."""
    await backend.subscribe(channels)
    events = backend.stream_events()
    await backend.publish(b"1", channels)
    assert {await next_of(events) for _ in channels} == {(channel, b"1") for channel in channels}


async def test_nothing_comes_of_other_channels(backend: ChannelsBackend) -> None:
    """A channel that nobody has subscribed to, before or any more, brings nothing."""
    await backend.subscribe(["orders", FENCE])
    events = backend.stream_events()
    await backend.publish(b"early", ["orders"])
    assert await next_of(events) == ("orders", b"early")
    await backend.publish(b"waits", ["orders"])
    await backend.unsubscribe(["orders"])
    await backend.publish(b"late", ["orders"])
    await backend.publish(b"never", ["users"])
    await backend.publish(b"", [FENCE])
    assert await next_of(events) == (FENCE, b"")


async def test_unsubscribing_without_a_subscription_does_nothing(backend: ChannelsBackend) -> None:
    """It is no error, and a later subscription works."""
    await backend.unsubscribe(["orders"])
    await backend.subscribe(["orders"])
    await backend.publish(b"1", ["orders"])
    assert await next_of(backend.stream_events()) == ("orders", b"1")


async def test_a_subscription_outlives_a_late_end_of_the_one_before(
    backend: ChannelsBackend,
) -> None:
    """
    The plugin may call unsubscribe() for the last subscriber after subscribe() for the next one.

    It waits for the last one's task in between. The next one then gets its messages.
    """
    await backend.subscribe(["orders"])
    await backend.subscribe(["orders"])
    await backend.unsubscribe(["orders"])
    events = backend.stream_events()
    await backend.publish(b"1", ["orders"])
    assert await next_of(events) == ("orders", b"1")
    await backend.subscribe([FENCE])
    await backend.unsubscribe(["orders"])
    await backend.publish(b"2", ["orders"])
    await backend.publish(b"", [FENCE])
    assert await next_of(events) == (FENCE, b"")


@pytest.mark.parametrize("data", [b"", b"\x00", ANY_BYTES, "größe".encode()])
async def test_any_bytes_come_as_they_were_sent(backend: ChannelsBackend, data: bytes) -> None:
    """Messages are bytes, not texts."""
    await backend.subscribe(["orders"])
    await backend.publish(data, ["orders"])
    assert await next_of(backend.stream_events()) == ("orders", data)


@pytest.mark.parametrize("channel", ["", "x" * 63, "x" * 500, 'Odd "name"\0', "\udc80"])
async def test_a_channel_may_have_any_name(backend: ChannelsBackend, channel: str) -> None:
    """Also those that PostgreSQL does not take."""
    await backend.subscribe([channel])
    await backend.publish(b"1", [channel])
    assert await next_of(backend.stream_events()) == (channel, b"1")


async def test_it_must_be_started(idle: Any) -> None:
    """Before the start, and after the end, calls raise a RuntimeError; ending it is no error."""
    await idle.on_shutdown()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await idle.publish(b"1", ["orders"])
        with pytest.raises(NotStartedError, match="not running"):
            await next_of(idle.stream_events())
        with pytest.raises(NotStartedError, match="not running"):
            await idle.subscribe(["orders"])
        await idle.unsubscribe(["orders"])
        await idle.on_startup()
        await idle.on_shutdown()
        await idle.on_shutdown()


async def test_it_may_run_again(idle: Any) -> None:
    """Nothing of the first run is left in the second one; a second start does nothing."""
    async with started(idle):
        await idle.subscribe(["orders"])
        await idle.publish(b"left over", ["orders"])
        ended = idle.stream_events()
        await next_of(ended)
    with pytest.raises(StopAsyncIteration):
        await next_of(ended)
    async with started(idle):
        await idle.on_startup()
        await idle.subscribe([FENCE])
        await idle.publish(b"not subscribed", ["orders"])
        await idle.publish(b"", [FENCE])
        assert await next_of(idle.stream_events()) == (FENCE, b"")


async def test_it_ends_with_messages_that_nobody_takes(backend: ChannelsBackend) -> None:
    """More messages than are buffered, and no plugin: on_shutdown() waits for nobody."""
    await backend.subscribe(["orders"])
    await asyncio.gather(*(backend.publish(b"%d" % n, ["orders"]) for n in range(3_000)))
    async with asyncio.timeout(scaled(4.0)):
        await backend.on_shutdown()


async def test_messages_keep_their_order(backend: ChannelsBackend) -> None:
    """Also where more come than are buffered."""
    await backend.subscribe(["orders"])
    await asyncio.gather(*(backend.publish(b"%d" % n, ["orders"]) for n in range(3_000)))
    events = backend.stream_events()
    assert [int((await next_of(events))[1]) for _ in range(3_000)] == list(range(3_000))


async def test_channels_go_on_when_streams_are_ended(backend: Any) -> None:
    """end_streams() is for responses; no message of a channel is missed by it."""
    await backend.subscribe(["orders"])
    events = backend.stream_events()
    for n in range(3):
        await backend.publish(b"%d" % n, ["orders"])
        (backend.log if isinstance(backend, LogChannelsBackend) else backend.listener).end_streams()
    assert [int((await next_of(events))[1]) for _ in range(3)] == [0, 1, 2]


# -- history --------------------------------------------------------------------------------------


async def test_notify_has_no_history(dsn: str) -> None:
    """It says so as Litestar's own backends without history do."""
    with pytest.raises(NotImplementedError, match="LogChannelsBackend"):
        await NotifyChannelsBackend(dsn).get_history("orders")


@pytest.mark.parametrize(("limit", "expected"), [(None, 10), (0, 0), (1, 1), (5, 5), (99, 10)])
async def test_a_log_has_a_history(dsn: str, limit: int | None, expected: int) -> None:
    """The newest messages of the channel, in their order; also those that nobody had heard."""
    async with started(log_backend(dsn, history=10)) as backend:
        for n in range(12):
            await backend.publish(b"%d" % n, ["orders"])
        await backend.publish(b"other", ["users"])
        history = await backend.get_history("orders", limit)
    assert history == [b"%d" % n for n in range(12 - expected, 12)]


async def test_a_history_outlives_the_process(dsn: str) -> None:
    """Another process, later, has the same one."""
    async with started(log_backend(dsn)) as backend:
        await backend.publish(ANY_BYTES, ["orders"])
    async with started(log_backend(dsn)) as backend:
        assert await backend.get_history("orders") == [ANY_BYTES]


async def test_an_append_in_a_transaction_is_a_message(dsn: str, admin: Any) -> None:
    """It comes with the commit, and by SQL as well."""
    async with started(log_backend(dsn)) as backend:
        await backend.subscribe(["orders"])
        async with admin.transaction():
            await backend.log.append("orders", "1", connection=admin)
        await admin.execute("SELECT asyncnotify.append('web', 'orders', '2')")
        events = backend.stream_events()
        assert [(await next_of(events))[1] for _ in range(2)] == [b"1", b"2"]


# -- sizes ----------------------------------------------------------------------------------------


async def test_a_large_message_is_refused_or_comes(dsn: str) -> None:
    """NOTIFY takes 7,999 bytes, and publish() says what takes more: a log."""
    large = bytes(100_000)
    async with started(NotifyChannelsBackend(dsn)) as backend:
        with pytest.raises(PayloadTooLargeError, match="at most 7999") as error:
            await backend.publish(large, ["orders"])
        assert error.value.__notes__ == ["LogChannelsBackend takes messages of any size"]
    async with started(log_backend(dsn)) as backend:
        await backend.subscribe(["orders"])
        await backend.publish(large, ["orders"])
        assert await next_of(backend.stream_events()) == ("orders", large)


# -- under the plugin -----------------------------------------------------------------------------


async def test_an_error_does_not_end_the_plugins_publishing(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    ChannelsPlugin.publish() returns at once; what cannot be sent is logged, and the next one sent.

    An exception would end the plugin's task: no later message would be sent, and the application
    would never shut down. wait_published() raises it.
    """
    async with (
        asyncio.timeout(LIMIT),
        ChannelsPlugin(NotifyChannelsBackend(dsn), channels=["a"]) as p,
    ):
        subscriber = await p.subscribe("a")
        p.publish(bytes(9_000), "a")
        p.publish("next", "a")
        assert await messages(subscriber, 1) == [b"next"]
        with pytest.raises(PayloadTooLargeError):
            await p.wait_published(bytes(9_000), "a")
    assert "was not sent: PayloadTooLargeError" in caplog.text


async def test_a_cancelled_subscription_does_not_make_a_channel_deaf(
    own_server: PostgresServer,
) -> None:
    """
    A client that left while there was no connection does not keep others from hearing.

    The plugin counts a subscriber whose subscription was cancelled, and does not subscribe again
    for the next one.
    """
    backend = NotifyChannelsBackend(own_server.dsn, subscribe_timeout=LIMIT)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as plugin:
        await lose(own_server, backend)
        leaving = asyncio.create_task(plugin.subscribe("orders"))
        await asyncio.wait({leaving}, timeout=0)
        leaving.cancel()
        await asyncio.wait({leaving})
        own_server.start()
        async with asyncio.timeout(LIMIT):
            await backend.listener.wait_connected()
            subscriber = await plugin.subscribe("orders")
            await backend.subscribe(
                [FENCE]
            )  # confirmed behind the channel that was asked for before
            await plugin.wait_published("1", "orders")
        assert await messages(subscriber, 1) == [b"1"]


def test_websockets(new_backend: Callable[..., Any], dsn: str) -> None:
    """The plugin's own handlers: a client of any channel hears what is published; twice a run."""
    plugin = ChannelsPlugin(
        new_backend(dsn), channels=["orders"], create_ws_route_handlers=True, ws_send_mode="binary"
    )
    app = Litestar(plugins=[plugin])
    for _ in range(2):
        with TestClient(app) as client, client.websocket_connect("/orders") as socket:
            plugin.publish(ANY_BYTES, "orders")
            plugin.publish({"id": 42}, "orders")
            assert socket.receive_bytes() == ANY_BYTES
            assert socket.receive_json(mode="binary") == {"id": 42}


# -- outages --------------------------------------------------------------------------------------


async def lose(server: PostgresServer, backend: NotifyChannelsBackend) -> None:
    """Kill the server, and return when the backend's listener knows."""
    async with asyncio.timeout(LIMIT):
        async for event in killed(server, backend.listener):
            if type(event).__name__ == "ConnectionLost":
                return


async def killed(server: PostgresServer, listener: Listener) -> AsyncIterator[object]:
    """Yield the events of a listener whose server is killed."""
    events = listener.events()
    server.kill()
    async for event in events:
        yield event


def marker(channel: str, gap: Gap) -> str:
    """Return what is sent to subscribers in place of what they may have missed."""
    return f"{channel}: {gap.reason}"


async def test_subscribers_are_told_of_an_outage(own_server: PostgresServer) -> None:
    """
    A subscriber stays, gets what on_gap returns where it may have missed messages, and hears on.

    A message that is published while there is no connection is sent when there is one.
    """
    backend = NotifyChannelsBackend(own_server.dsn, on_gap=marker)
    async with asyncio.timeout(LIMIT), ChannelsPlugin(backend, channels=["a"]) as plugin:
        subscriber = await plugin.subscribe("a")
        await plugin.wait_published("before", "a")
        assert await messages(subscriber, 1) == [b"before"]
        await lose(own_server, backend)
        plugin.publish("meanwhile", "a")
        publishing = asyncio.create_task(plugin.wait_published("meanwhile, too", "a"))
        own_server.start()
        await publishing
        got = []
        while b"a: reconnect" not in got or b"after" not in got:
            got += await messages(subscriber, 1)
            if b"a: reconnect" in got and b"after" not in got:
                await plugin.wait_published("after", "a")
        assert got.index(b"a: reconnect") < got.index(b"after")


async def test_who_subscribes_in_an_outage_is_told_when_it_is_over(
    own_server: PostgresServer,
) -> None:
    """subscribe() waits its time and returns; on_gap says from where on messages come."""
    backend = NotifyChannelsBackend(own_server.dsn, on_gap=marker, subscribe_timeout=0.01)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as plugin:
        await lose(own_server, backend)
        subscriber = await plugin.subscribe("orders")
        own_server.start()
        assert await messages(subscriber, 1) == [b"orders: start"]
        await plugin.wait_published("1", "orders")
        assert await messages(subscriber, 1) == [b"1"]


async def test_no_message_of_a_log_is_missed(own_server: PostgresServer) -> None:
    """
    The server is killed in the middle; each message that was published comes, in order.

    One whose commit the server did not confirm is sent again, and may come twice.
    """
    backend = log_backend(own_server.dsn, on_gap=marker)
    async with ChannelsPlugin(backend, channels=["orders"]) as plugin:
        subscriber = await plugin.subscribe("orders")
        for n in range(20):
            if n == 10:
                own_server.kill()
                own_server.start()
            await plugin.wait_published(str(n), "orders")
        got = []
        while b"19" not in got:
            got += await messages(subscriber, 1)
        assert list(dict.fromkeys(got)) == [b"%d" % n for n in range(20)]
        assert await backend.get_history("orders") == got


async def test_a_log_that_was_made_anew_loses_nothing_after_its_gap(
    dsn: str, admin: asyncpg.Connection[Any]
) -> None:
    """Who is told to read again gets what is published from then on."""
    async with started(log_backend(dsn, on_gap=marker)) as backend:
        await backend.subscribe(["orders"])
        events = backend.stream_events()
        for turn in range(3):
            for number in range(3):
                await backend.publish(str(number).encode(), ["orders"])
                assert await next_of(events) == ("orders", b"%d" % number)
            await remove_logs(admin)
            await backend.log.install()
            assert await next_of(events) == ("orders", b"orders: expired"), turn
            await backend.publish(b"later", ["orders"])
            assert await next_of(events) == ("orders", b"later"), turn
        await events.aclose()


async def test_a_log_that_is_removed_is_a_warning_once_a_minute(
    dsn: str, admin: asyncpg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again until somebody installs it; and not with a line at ERROR each time."""
    caplog.set_level(logging.INFO)
    # by its cause: whoever reads just then may first have met a function that is being dropped
    line = (
        "log 'web', of a LogChannelsBackend, cannot be read, and is tried again: NotInstalledError"
    )
    async with asyncio.timeout(LIMIT), started(log_backend(dsn)) as backend:
        await backend.subscribe(["orders"])
        await remove_logs(admin)
        while caplog.text.count(line) < 3:
            await admin.execute("SELECT 1")
        await backend.log.install()
    levels = [record.levelname for record in caplog.records if line in record.getMessage()]
    assert levels[0] == "WARNING"
    assert {*levels[1:]} == {"INFO"}


async def test_a_history_does_not_wait_for_a_server_that_is_away(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets what on_gap says instead."""
    monkeypatch.setattr("asyncnotify.ext.litestar._log._ANSWER_TIMEOUT", 0.1)
    async with started(log_backend(own_server.dsn, on_gap=marker)) as backend:
        own_server.kill()
        assert await backend.get_history("orders") == [b"orders: reconnect"]


async def test_publishing_gives_up(own_server: PostgresServer) -> None:
    """After its time publish() raises; a shutdown then waits for no more attempts."""
    backend = NotifyChannelsBackend(own_server.dsn, retry_timeout=scaled(0.5))
    async with asyncio.timeout(LIMIT), ChannelsPlugin(backend, channels=["a"]) as plugin:
        await lose(own_server, backend)
        with pytest.raises(ConnectionError):
            await plugin.wait_published("1", "a")
        for n in range(200):
            plugin.publish(str(n), "a")


async def test_what_cannot_be_decoded_is_a_gap(dsn: str, admin: Any) -> None:
    """A broken message of another program ends nothing; on_gap is called in its place."""
    async with started(NotifyChannelsBackend(dsn, on_gap=marker)) as backend:
        await backend.subscribe(["orders"])
        await admin.execute(
            "SELECT pg_notify('orders', E'\\x01base64:?'), pg_notify('orders', '1')"
        )
        events = backend.stream_events()
        expected = [("orders", b"orders: undecodable"), ("orders", b"1")]
        assert [await next_of(events), await next_of(events)] == expected


async def test_on_gap_may_raise_or_say_nothing(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record], caplog: pytest.LogCaptureFixture
) -> None:
    """Its exception is logged, and messages go on."""

    def on_gap(channel: str, gap: Gap) -> None:
        assert gap.reason is not GapReason.UNDECODABLE

    async with started(NotifyChannelsBackend(dsn, on_gap=on_gap)) as backend:
        await backend.subscribe(["orders"])
        await admin.execute(
            "SELECT pg_notify('orders', E'\\x01base64:?'), pg_notify('orders', '1')"
        )
        assert await next_of(backend.stream_events()) == ("orders", b"1")
    assert "on_gap raised" in caplog.text


# -- sources --------------------------------------------------------------------------------------


async def test_a_listener_of_the_applications_own(dsn: str) -> None:
    """One that runs goes on; one that does not is started and closed; a function makes new ones."""
    async with Listener(dsn) as listener:
        async with started(NotifyChannelsBackend(listener)) as backend:
            assert backend.listener is listener
        assert listener.is_connected
    async with started(NotifyChannelsBackend(listener)):
        assert listener.is_connected
    assert listener.state == "closed"
    backend = NotifyChannelsBackend(lambda: Listener(dsn))
    async with started(backend):
        first = backend.listener
    async with started(backend):
        assert backend.listener is not first


def print_gap(gap: Gap) -> None:
    """Take too few arguments."""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"source": 5}, TypeError),
        ({"prefix": "x" * 30}, ValueError),
        ({"on_gap": print_gap}, TypeError),
        ({"retry_timeout": 0}, ValueError),
        ({"subscribe_timeout": None}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """When the backend is made, before anything runs."""
    with pytest.raises(error):
        NotifyChannelsBackend(**options)


async def test_a_prefix_keeps_clients_to_channels_of_theirs(dsn: str, admin: Any) -> None:
    """A client that may choose any channel hears none of the application's own."""
    async with started(NotifyChannelsBackend(dsn, prefix="ws:")) as backend:
        await backend.subscribe(["orders"])
        await admin.execute("SELECT pg_notify('orders', 'internal'), pg_notify('ws:orders', '1')")
        assert await next_of(backend.stream_events()) == ("orders", b"1")
