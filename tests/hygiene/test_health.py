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
from tests.hygiene.ear import PASSWORD, USER
from tests.hygiene.scene import PATIENCE, until
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.patient import Patient

TIMEOUT: Final = 0.2  # the heartbeat's, and so that of health(), where it is not answered
COUNT_TO_9: Final = "SELECT count(pg_notify('slow', n::text)) FROM generate_series(1, 9) n"


# -- what it tells --------------------------------------------------------------------------------


async def test_r41_it_tells_of_the_connection(patient: Patient) -> None:
    """Connected: since when, by which backend, heard of when, listening on how much."""
    async with patient.listener.stream("one", "two"):
        health = await patient.health()
    pid = await patient.root.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncnotify'"
    )
    assert (health["state"], health["generation"], health["backend_pid"]) == ("connected", 1, pid)
    since = datetime.fromisoformat(health["connected_since"])
    assert since == patient.listener.stats().connected_since
    assert 0 <= health["last_contact_age"] < PATIENCE
    assert health["heartbeat_round_trip"] is None
    assert health["last_error"] is health["server_error"] is None
    assert (health["channels_desired"], health["channels_confirmed"]) == (2, 2)


async def test_r41_it_tells_what_the_stats_tell(patient: Patient) -> None:
    """Counters, and of each subscription what waits, was delivered, and was lost."""
    stuck, failed, never = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> None:
        stuck.set()
        await never.wait()

    def fail(_: object) -> None:
        raise LookupError

    def note(*_: object) -> None:
        failed.set()

    await patient.listener.listen("slow", hold, buffer=2)
    await patient.listener.listen("failing", fail, on_error=note)
    await patient.notify("slow")
    await stuck.wait()
    await patient.root.execute(COUNT_TO_9)
    await patient.notify("failing")
    await failed.wait()
    health, stats = await patient.health(server=False), patient.listener.stats()
    for name in ("received", "delivered", "dropped", "gaps", "handler_errors", "decode_errors"):
        assert health[name] == getattr(stats, name)
    assert (health["received"], health["dropped"], health["handler_errors"]) == (11, 7, 1)
    slow, failing = sorted(health["subscriptions"], key=lambda one: -one["dropped"])
    assert (slow["channels"], slow["dropped"], slow["delivered"]) == (("slow",), 7, 1)
    assert slow["backlog"] == 3  # two notifications, and the Gap that tells of seven
    assert (failing["channels"], failing["handler_errors"]) == (("failing",), 1)
    await patient.listener.aclose(timeout=0)


async def test_r41_the_last_contact_is_any_word_of_the_server(patient: Patient) -> None:
    """A notification, and the answer to health() itself, make the last contact a recent one."""
    arrived = asyncio.Event()
    await patient.listener.listen("orders", lambda _: arrived.set())
    before = (await patient.health(server=False))["last_contact_age"]
    await patient.root.execute("SELECT pg_sleep(0.1)")
    silent = (await patient.health(server=False))["last_contact_age"]
    assert silent >= before + 0.05
    began = time.monotonic()
    await patient.notify("orders")
    await arrived.wait()
    heard = (await patient.health(server=False))["last_contact_age"]
    assert heard < time.monotonic() - began
    began = time.monotonic()
    answered = (await patient.health())["last_contact_age"]
    assert answered < time.monotonic() - began


async def test_r41_heartbeats_are_told(new_patient: Callable[..., Patient]) -> None:
    """The round trip of the last heartbeat is told, in seconds."""
    patient = new_patient(heartbeat=0.01)
    async with patient.listener:
        async with asyncio.timeout(PATIENCE):
            while (health := await patient.health())["heartbeat_round_trip"] is None:
                pass
    assert 0 < health["heartbeat_round_trip"] < PATIENCE


# -- in every state -------------------------------------------------------------------------------


async def test_r41_not_running_is_an_error(patient: Patient) -> None:
    """Before the start and after the end there is nothing to be told."""
    with pytest.raises(NotStartedError):
        await Listener().health()
    await patient.listener.aclose()
    for server in (True, False):
        with pytest.raises(ClosedError):
            await patient.listener.health(server=server)


async def test_r41_connecting(new_patient: Callable[..., Patient]) -> None:
    """While the first connection is being made it is there already, and knows of no server."""
    patient = new_patient(connect_timeout=PATIENCE, heartbeat_timeout=TIMEOUT)
    patient.listener.on("orders")(print)
    patient.proxy.silent()
    starting = asyncio.create_task(patient.listener.start())
    await patient.proxy.wait_for_dials(1, PATIENCE)
    health = await patient.health()
    assert (health["state"], health["generation"], health["backend_pid"]) == ("connecting", 0, None)
    assert health["connected_since"] is health["last_contact_age"] is None
    assert (health["channels_desired"], health["channels_confirmed"]) == (1, 0)
    assert "no connection" in health["server_error"]
    assert (health["queue_usage"], health["queue_holders"]) == (None, [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_r41_connecting_while_listen_is_on_its_way(
    new_patient: Callable[..., Patient],
) -> None:
    """With a connection that has not confirmed LISTEN it does not wait for long."""
    patient = new_patient(operation_timeout=PATIENCE, heartbeat_timeout=TIMEOUT)
    patient.listener.on("orders")(print)
    listening = patient.proxy.cut_on(b"LISTEN", then="black_hole")
    starting = asyncio.create_task(patient.listener.start())
    await listening.wait()
    health = await patient.health()
    assert (health["state"], health["channels_confirmed"]) == ("connecting", 0)
    assert "no answer" in health["server_error"]
    patient.proxy.heal()
    await starting
    await patient.listener.aclose()


async def test_r41_reconnecting(patient: Patient) -> None:
    """After a loss: why, and what is wanted but not confirmed; no error once it is back."""
    await patient.listener.listen("orders", print)
    contact = (await patient.health(server=False))["last_contact_age"]
    patient.proxy.refuse()
    patient.proxy.reset()
    await until(patient.events, RetryScheduled)
    health = await patient.health()
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
    patient.proxy.accept()
    await until(patient.events, Reconnected)
    health = await patient.health()
    assert (health["state"], health["generation"]) == ("connected", 2)
    assert health["last_error"] is health["server_error"] is None
    assert (health["channels_desired"], health["channels_confirmed"]) == (1, 1)


async def test_r41_degraded(
    new_patient: Callable[..., Patient], guarded_server: PostgresServer
) -> None:
    """When the password is not taken any more, that is the last error, and nothing of it."""
    dsn = guarded_server.dsn_for("postgres", user=USER, password=PASSWORD)
    patient = new_patient(dsn)
    async with patient.listener, ServerFaults(guarded_server.dsn) as faults:
        await faults.set_password(USER, "another")
        try:
            await patient.kill()
            await until(patient.events, RetryScheduled)
            health = await patient.health()
        finally:
            await faults.set_password(USER, PASSWORD)
    assert (health["state"], health["backend_pid"]) == ("degraded", None)
    assert health["last_error"].startswith("InvalidPasswordError")
    assert PASSWORD not in json.dumps(health)


async def test_r41_closing(patient: Patient) -> None:
    """Asked by a handler while the listener closes, it tells so, and hinders nothing."""
    begun, go_on, healths = asyncio.Event(), asyncio.Event(), list[dict[str, Any]]()

    async def handle(_: object) -> None:
        begun.set()
        await go_on.wait()
        healths.append(await patient.health())

    await patient.listener.listen("orders", handle)
    await patient.notify("orders")
    await begun.wait()
    closing = asyncio.create_task(patient.listener.aclose())
    async with asyncio.timeout(PATIENCE):
        while patient.listener.state != "closing":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    go_on.set()
    await closing
    [health] = healths
    assert health["state"] == "closing"
    assert health["server_error"]


# -- it never hangs -------------------------------------------------------------------------------


async def black_hole(patient: Patient, server: PostgresServer) -> None:
    """Let the network swallow everything."""
    patient.proxy.black_hole()


async def deaf_ear(patient: Patient, server: PostgresServer) -> None:
    """Let the network swallow what the server says."""
    patient.proxy.black_hole("to_client")


async def frozen_backend(patient: Patient, server: PostgresServer) -> None:
    """Stop the backend's process."""
    server.freeze_backend((await patient.health(server=False))["backend_pid"])


async def last_words(patient: Patient, server: PostgresServer) -> None:
    """End the backend, but hide its end."""
    patient.proxy.hold_fin()
    await patient.kill()


@pytest.mark.parametrize("fault", [black_hole, deaf_ear, frozen_backend, last_words])
async def test_r41_a_server_that_does_not_answer_is_told_of_in_time(
    new_patient: Callable[..., Patient], guarded_server: PostgresServer, fault: Callable[..., Any]
) -> None:
    """It says so within the heartbeat's timeout, and what does not answer is replaced."""
    patient = new_patient(heartbeat_timeout=TIMEOUT)
    async with patient.listener:
        pid = (await patient.health())["backend_pid"]
        await fault(patient, guarded_server)
        health = await patient.health()
        assert health["server_error"]
        assert (health["queue_usage"], health["queue_holders"]) == (None, [])
        patient.proxy.heal()
        await until(patient.events, ConnectionLost)
        await until(patient.events, Reconnected)
        if fault is frozen_backend:
            guarded_server.thaw_backend(pid)
        assert (await patient.health())["backend_pid"] != pid


async def test_r41_it_does_not_wait_for_a_listen_that_hangs(
    new_patient: Callable[..., Patient],
) -> None:
    """While the connection waits for the answer to another command, health() comes in time."""
    patient = new_patient(operation_timeout=PATIENCE, heartbeat_timeout=TIMEOUT)
    async with patient.listener:
        listening = patient.proxy.cut_on(b"LISTEN", then="black_hole")
        waiting = asyncio.create_task(patient.listener.listen("orders", print))
        await listening.wait()
        health = await patient.health()
        assert "no answer" in health["server_error"]
        assert (health["channels_desired"], health["channels_confirmed"]) == (1, 0)
        patient.proxy.heal()
        await waiting


async def test_r41_locally_it_needs_no_network(patient: Patient) -> None:
    """With server=False not a byte goes out, it never waits, and takes less than 1 ms."""
    sent = patient.proxy.bytes_to_server
    for _ in range(2):
        coroutine = patient.listener.health(server=False)
        with pytest.raises(StopIteration):  # it did not wait for anything
            coroutine.send(None)
        patient.proxy.black_hole()
    began = time.perf_counter()
    for _ in range(100):
        await patient.health(server=False)
    assert (time.perf_counter() - began) / 100 < 0.001  # measured: 0.00002
    patient.proxy.heal()
    assert patient.proxy.bytes_to_server == sent


# -- several at once, and none --------------------------------------------------------------------


async def test_r41_many_may_ask_at_once(patient: Patient) -> None:
    """Fifty calls among LISTENs, UNLISTENs and notifications are all answered, on one session."""
    arrived = asyncio.Event()
    await patient.listener.listen("orders", lambda _: arrived.set())

    async def come_and_go(number: int) -> None:
        subscription = await patient.listener.listen(f"channel {number}", print)
        await subscription.cancel()

    asking = asyncio.gather(*(patient.health() for _ in range(50)))
    healths, *_ = await asyncio.gather(asking, *(come_and_go(number) for number in range(50)))
    assert {health["server_error"] for health in healths} == {None}
    await patient.notify("orders")
    async with asyncio.timeout(PATIENCE):
        await arrived.wait()
    health = await patient.health()
    assert (health["generation"], health["channels_confirmed"]) == (1, 1)


async def test_r41_it_may_be_cancelled_anywhere(patient: Patient) -> None:
    """Cancelled at every turn of the loop, it leaves a connection that serves the next call."""
    cancelled = 0
    for turns in range(12):
        asking = asyncio.create_task(patient.health())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        cancelled += (await asyncio.gather(asking, return_exceptions=True))[0].__class__ is (
            asyncio.CancelledError
        )
        assert (await patient.health())["server_error"] is None
    assert cancelled
    assert (await patient.health())["generation"] == 1


async def test_r41_cancelled_in_a_black_hole_it_leaves_the_rest_to_the_listener(
    new_patient: Callable[..., Patient],
) -> None:
    """Nobody waits for the answer any more; that it does not come is noticed all the same."""
    patient = new_patient(heartbeat_timeout=TIMEOUT)
    async with patient.listener:
        asked = patient.proxy.cut_on(b"queue_usage", then="black_hole")
        asking = asyncio.create_task(patient.health())
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(patient.events, ConnectionLost)
        patient.proxy.heal()
        await until(patient.events, Reconnected)
        assert (await patient.health())["server_error"] is None
