"""What health() tells, in every state, and that it always comes to tell it."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import (
    ClosedError,
    ConnectionLost,
    Listener,
    NotStartedError,
    Reconnected,
    RetryScheduled,
)
from tests.hygiene.secret_detector import PASSWORD, USER
from tests.hygiene.secrets_harness import WAIT_LIMIT, until
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.monitored_listener import MonitoredListener

TIMEOUT: Final = scaled(0.2)  # the heartbeat's, and so that of health(), where it is not answered
COUNT_TO_9: Final = "SELECT count(pg_notify('slow', n::text)) FROM generate_series(1, 9) n"


# -- what it tells --------------------------------------------------------------------------------


async def test_r41_it_tells_of_the_connection(monitored: MonitoredListener) -> None:
    """Connected: since when, by which backend, heard of when, listening on how much."""
    async with monitored.listener.stream("one", "two"):
        health = await monitored.health()
    pid = await monitored.root.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncnotify'"
    )
    assert (health["state"], health["generation"], health["backend_pid"]) == ("connected", 1, pid)
    since = datetime.fromisoformat(health["connected_since"])
    assert since == monitored.listener.stats().connected_since
    assert 0 <= health["last_contact_age"] < WAIT_LIMIT
    assert health["heartbeat_round_trip"] is None
    assert health["last_error"] is health["server_error"] is None
    assert (health["channels_desired"], health["channels_confirmed"]) == (2, 2)


async def test_r41_it_tells_what_the_stats_tell(monitored: MonitoredListener) -> None:
    """Counters, and of each subscription what waits, was delivered, and was lost."""
    stuck, failed, never = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> None:
        stuck.set()
        await never.wait()

    def fail(_: object) -> None:
        raise LookupError

    def note(*_: object) -> None:
        failed.set()

    await monitored.listener.listen("slow", hold, buffer=2)
    await monitored.listener.listen("failing", fail, on_error=note)
    await monitored.notify("slow")
    await stuck.wait()
    await monitored.root.execute(COUNT_TO_9)
    await monitored.notify("failing")
    await failed.wait()
    while not monitored.listener.stats().dropped:  # noqa: ASYNC110 - judged some turns later
        await asyncio.sleep(0)
    health, stats = await monitored.health(server=False), monitored.listener.stats()
    totals = ("received", "delivered", "dropped", "gaps", "handler_errors", "decode_errors")
    for name in (*totals, "rereads"):
        assert health[name] == getattr(stats, name)
    assert (health["received"], health["dropped"], health["handler_errors"]) == (11, 7, 1)
    slow, failing = sorted(health["subscriptions"], key=lambda one: -one["dropped"])
    assert (slow["channels"], slow["dropped"], slow["delivered"]) == (("slow",), 7, 1)
    assert slow["backlog"] == 3  # two notifications, and the Gap that tells of seven
    assert (failing["channels"], failing["handler_errors"]) == (("failing",), 1)
    await monitored.listener.aclose(timeout=0)


async def test_r41_the_last_contact_is_any_word_of_the_server(monitored: MonitoredListener) -> None:
    """A notification, and the answer to health() itself, make the last contact a recent one."""
    arrived = asyncio.Event()
    await monitored.listener.listen("orders", lambda _: arrived.set())
    before = (await monitored.health(server=False))["last_contact_age"]
    await monitored.root.execute("SELECT pg_sleep(0.1)")
    silent = (await monitored.health(server=False))["last_contact_age"]
    assert silent >= before + 0.05
    began = time.monotonic()
    await monitored.notify("orders")
    await arrived.wait()
    heard = (await monitored.health(server=False))["last_contact_age"]
    assert heard < time.monotonic() - began
    began = time.monotonic()
    answered = (await monitored.health())["last_contact_age"]
    assert answered < time.monotonic() - began


async def test_r41_heartbeats_are_told(new_monitored: Callable[..., MonitoredListener]) -> None:
    """The round trip of the last heartbeat is told, in seconds."""
    monitored = new_monitored(heartbeat=0.01, heartbeat_timeout=scaled(5.0))
    async with monitored.listener:
        async with asyncio.timeout(WAIT_LIMIT):
            while (health := await monitored.health())["heartbeat_round_trip"] is None:
                pass
    assert 0 < health["heartbeat_round_trip"] < WAIT_LIMIT


# -- in every state -------------------------------------------------------------------------------


async def test_r41_not_running_is_an_error(monitored: MonitoredListener) -> None:
    """Before the start and after the end there is nothing to be told."""
    with pytest.raises(NotStartedError):
        await Listener().health()
    await monitored.listener.aclose()
    for server in (True, False):
        with pytest.raises(ClosedError):
            await monitored.listener.health(server=server)


async def test_r41_connecting(new_monitored: Callable[..., MonitoredListener]) -> None:
    """While the first connection is being made it is there already, and knows of no server."""
    monitored = new_monitored(connect_timeout=WAIT_LIMIT, heartbeat_timeout=TIMEOUT)
    monitored.listener.on("orders")(print)
    monitored.proxy.silent()
    starting = asyncio.create_task(monitored.listener.start())
    await monitored.proxy.wait_for_dials(1, WAIT_LIMIT)
    health = await monitored.health()
    assert (health["state"], health["generation"], health["backend_pid"]) == ("connecting", 0, None)
    assert health["connected_since"] is health["last_contact_age"] is None
    assert (health["channels_desired"], health["channels_confirmed"]) == (1, 0)
    assert "no connection" in health["server_error"]
    assert (health["queue_usage"], health["queue_holders"]) == (None, [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_r41_connecting_while_listen_is_on_its_way(
    new_monitored: Callable[..., MonitoredListener],
) -> None:
    """With a connection that has not confirmed LISTEN it does not wait for long."""
    monitored = new_monitored(operation_timeout=WAIT_LIMIT, heartbeat_timeout=TIMEOUT)
    monitored.listener.on("orders")(print)
    listening = monitored.proxy.cut_on(b"LISTEN", then="black_hole")
    starting = asyncio.create_task(monitored.listener.start())
    await listening.wait()
    health = await monitored.health()
    assert (health["state"], health["channels_confirmed"]) == ("connecting", 0)
    assert "no answer" in health["server_error"]
    monitored.proxy.heal()
    await starting
    await monitored.listener.aclose()


async def test_r41_reconnecting(monitored: MonitoredListener) -> None:
    """After a loss: why, and what is wanted but not confirmed; no error once it is back."""
    await monitored.listener.listen("orders", print)
    contact = (await monitored.health(server=False))["last_contact_age"]
    monitored.proxy.refuse()
    monitored.proxy.reset()
    await until(monitored.events, RetryScheduled)
    health = await monitored.health()
    assert (health["state"], health["generation"], health["backend_pid"]) == (
        "reconnecting",
        1,
        None,
    )
    assert health["connected_since"] is None
    assert health["last_contact_age"] > contact
    assert health["last_error"].startswith("ConnectionRefusedError")
    assert (health["channels_desired"], health["channels_confirmed"]) == (1, 0)
    assert "no connection" in health["server_error"]
    monitored.proxy.accept()
    await until(monitored.events, Reconnected)
    health = await monitored.health()
    assert (health["state"], health["generation"]) == ("connected", 2)
    assert health["last_error"] is health["server_error"] is None
    assert (health["channels_desired"], health["channels_confirmed"]) == (1, 1)


async def test_r41_degraded(
    new_monitored: Callable[..., MonitoredListener], guarded_server: PostgresServer
) -> None:
    """When the password is not taken any more, that is the last error, and nothing of it."""
    dsn = guarded_server.dsn_for("postgres", user=USER, password=PASSWORD)
    monitored = new_monitored(dsn)
    async with monitored.listener, ServerFaults(guarded_server.dsn) as faults:
        await faults.set_password(USER, "another")
        try:
            await monitored.kill()
            await until(monitored.events, RetryScheduled)
            health = await monitored.health()
        finally:
            await faults.set_password(USER, PASSWORD)
    assert (health["state"], health["backend_pid"]) == ("degraded", None)
    assert health["last_error"].startswith("InvalidPasswordError")
    assert PASSWORD not in json.dumps(health)


async def test_r41_closing(monitored: MonitoredListener) -> None:
    """Asked by a handler while the listener closes, it tells so, and hinders nothing."""
    begun, go_on, healths = asyncio.Event(), asyncio.Event(), list[dict[str, Any]]()

    async def handle(_: object) -> None:
        begun.set()
        await go_on.wait()
        healths.append(await monitored.health())

    await monitored.listener.listen("orders", handle)
    await monitored.notify("orders")
    await begun.wait()
    closing = asyncio.create_task(monitored.listener.aclose())
    async with asyncio.timeout(WAIT_LIMIT):
        while monitored.listener.state != "closing":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    go_on.set()
    await closing
    [health] = healths
    assert health["state"] == "closing"
    assert health["server_error"]


# -- it never hangs -------------------------------------------------------------------------------


async def black_hole(monitored: MonitoredListener, server: PostgresServer) -> None:
    """Let the network drop everything."""
    monitored.proxy.black_hole()


async def one_way_black_hole(monitored: MonitoredListener, server: PostgresServer) -> None:
    """Let the network drop what the server sends."""
    monitored.proxy.black_hole("to_client")


async def frozen_backend(monitored: MonitoredListener, server: PostgresServer) -> None:
    """Stop the backend's process."""
    server.freeze_backend((await monitored.health(server=False))["backend_pid"])


async def last_words(monitored: MonitoredListener, server: PostgresServer) -> None:
    """End the backend, but hide its end."""
    monitored.proxy.hold_fin()
    await monitored.kill()


@pytest.mark.parametrize("fault", [black_hole, one_way_black_hole, frozen_backend, last_words])
async def test_r41_a_server_that_does_not_answer_is_told_of_in_time(
    new_monitored: Callable[..., MonitoredListener],
    guarded_server: PostgresServer,
    fault: Callable[..., Any],
) -> None:
    """It says so within the heartbeat's timeout, and what does not answer is replaced."""
    monitored = new_monitored(heartbeat_timeout=TIMEOUT)
    async with monitored.listener:
        pid = (await monitored.health())["backend_pid"]
        await fault(monitored, guarded_server)
        health = await monitored.health()
        assert health["server_error"]
        assert (health["queue_usage"], health["queue_holders"]) == (None, [])
        monitored.proxy.heal()
        await until(monitored.events, ConnectionLost)
        await until(monitored.events, Reconnected)
        if fault is frozen_backend:
            guarded_server.thaw_backend(pid)
        assert (await monitored.health())["backend_pid"] != pid


async def test_r41_it_does_not_wait_for_a_listen_that_hangs(
    new_monitored: Callable[..., MonitoredListener],
) -> None:
    """While the connection waits for the answer to another command, health() comes in time."""
    monitored = new_monitored(operation_timeout=WAIT_LIMIT, heartbeat_timeout=TIMEOUT)
    async with monitored.listener:
        listening = monitored.proxy.cut_on(b"LISTEN", then="black_hole")
        waiting = asyncio.create_task(monitored.listener.listen("orders", print))
        await listening.wait()
        health = await monitored.health()
        assert "no answer" in health["server_error"]
        assert (health["channels_desired"], health["channels_confirmed"]) == (1, 0)
        monitored.proxy.heal()
        await waiting


async def test_r41_locally_it_needs_no_network(monitored: MonitoredListener) -> None:
    """With server=False not a byte goes out, it never waits, and takes less than 1 ms."""
    sent = monitored.proxy.bytes_to_server
    for _ in range(2):
        coroutine = monitored.listener.health(server=False)
        with pytest.raises(StopIteration):  # it did not wait for anything
            coroutine.send(None)
        monitored.proxy.black_hole()
    began = time.perf_counter()
    for _ in range(100):
        await monitored.health(server=False)
    assert (time.perf_counter() - began) / 100 < scaled(0.001)  # measured: 0.00002
    monitored.proxy.heal()
    assert monitored.proxy.bytes_to_server == sent


# -- several at once, and none --------------------------------------------------------------------


async def test_r41_many_may_ask_at_once(monitored: MonitoredListener) -> None:
    """Fifty calls among LISTENs, UNLISTENs and notifications are all answered, on one session."""
    arrived = asyncio.Event()
    await monitored.listener.listen("orders", lambda _: arrived.set())

    async def come_and_go(number: int) -> None:
        subscription = await monitored.listener.listen(f"channel {number}", print)
        await subscription.cancel()

    asking = asyncio.gather(*(monitored.health() for _ in range(50)))
    healths, *_ = await asyncio.gather(asking, *(come_and_go(number) for number in range(50)))
    assert {health["server_error"] for health in healths} == {None}
    await monitored.notify("orders")
    async with asyncio.timeout(WAIT_LIMIT):
        await arrived.wait()
    health = await monitored.health()
    assert (health["generation"], health["channels_confirmed"]) == (1, 1)


async def test_r41_it_may_be_cancelled_anywhere(monitored: MonitoredListener) -> None:
    """Cancelled at every turn of the loop, it leaves a connection that serves the next call."""
    cancelled = 0
    for turns in range(12):
        asking = asyncio.create_task(monitored.health())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        cancelled += (await asyncio.gather(asking, return_exceptions=True))[0].__class__ is (
            asyncio.CancelledError
        )
        assert (await monitored.health())["server_error"] is None
    assert cancelled
    assert (await monitored.health())["generation"] == 1


async def test_r41_cancelled_in_a_black_hole_it_leaves_the_rest_to_the_listener(
    new_monitored: Callable[..., MonitoredListener],
) -> None:
    """Nobody waits for the answer any more; that it does not come is noticed all the same."""
    monitored = new_monitored(heartbeat_timeout=TIMEOUT)
    async with monitored.listener:
        asked = monitored.proxy.cut_on(b"queue_usage", then="black_hole")
        asking = asyncio.create_task(monitored.health())
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(monitored.events, ConnectionLost)
        monitored.proxy.heal()
        await until(monitored.events, Reconnected)
        assert (await monitored.health())["server_error"] is None
