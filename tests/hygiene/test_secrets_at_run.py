"""Whatever goes wrong while a listener runs, it tells no password, no DSN and no payload."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
import pytest

from asyncnotify import (
    BufferOverflowError,
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectionLostError,
    ConnectTimeoutError,
    Listener,
    ListenTimeoutError,
    Notifier,
    PayloadError,
    Reconnected,
    RetryScheduled,
    State,
)
from tests.hygiene.conftest import superuser
from tests.hygiene.error_injector import ErrorInjector, error_response, message
from tests.hygiene.secret_detector import PASSWORD, PAYLOAD, SECRETS, USER
from tests.hygiene.secrets_harness import WAIT_LIMIT, until
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults
from tests.support.server_features import can_fill_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import ConnectionEvent, Stream
    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.secret_detector import SecretDetector
    from tests.hygiene.secrets_harness import RunningListener, SecretsHarness

    Row = Callable[[SecretsHarness], Awaitable[object]]


async def killed(harness: SecretsHarness) -> None:
    """The server ends the session."""
    async with harness.running() as run:
        await run.kill()
        await run.reconnects()


async def rotated_password(harness: SecretsHarness) -> None:
    """The password is not valid any more: degraded, and back once it is valid again."""
    async with harness.running() as run, ServerFaults(harness.server.dsn) as faults:
        await faults.set_password(USER, "another")
        try:
            await run.kill()
            await until(run.events, RetryScheduled)
            assert run.listener.state is State.DEGRADED
            await run.record_everything()
        finally:
            await faults.set_password(USER, PASSWORD)
        await run.reconnects()


async def server_gone(harness: SecretsHarness) -> None:
    """The connection is reset, and there is nobody, then somebody else."""
    async with harness.running() as run:
        harness.proxy.refuse()
        harness.proxy.reset()
        await until(run.events, RetryScheduled)
        await run.record_everything()
        await run.raises(ConnectError, run.listener.notify("orders", PAYLOAD))
        await run.raises(ConnectTimeoutError, run.listener.wait_connected(0.01))
        listening = run.listener.listen("secret", print, timeout=0.01)
        await run.raises(ListenTimeoutError, listening)
        harness.proxy.garbage()
        await until(run.events, RetryScheduled)
        await run.record_everything()
        harness.proxy.accept()
        await run.reconnects()


async def black_hole(harness: SecretsHarness) -> None:
    """The network drops everything, heartbeats as well."""
    async with harness.running(
        heartbeat=0.1, heartbeat_timeout=scaled(0.4), connect_timeout=scaled(0.4)
    ) as run:
        harness.proxy.black_hole()
        await until(run.events, ConnectionLost)
        await until(run.events, RetryScheduled)
        await run.record_everything()
        harness.proxy.heal()
        await run.reconnects()


async def last_words(harness: SecretsHarness) -> None:
    """The server says goodbye, and its end does not arrive."""
    async with harness.running(heartbeat=0.1, heartbeat_timeout=scaled(0.5)) as run:
        harness.proxy.hold_fin()
        await run.kill()
        harness.proxy.heal()
        await run.reconnects()


async def unreadable_notification(harness: SecretsHarness) -> None:
    """A notification arrives that is no UTF-8."""
    patience = {"heartbeat": 0.1, "heartbeat_timeout": scaled(2.0)}
    async with (
        ErrorInjector(harness.server) as injector,
        harness.running(port=injector.port, **patience) as run,
    ):
        body = struct.pack("!i", 1) + b"orders\0" + PAYLOAD.encode() + b"\xff\0"
        injector.send_unasked(message(b"A", body))
        await until(run.events, ConnectionLost)
        await run.reconnects()


async def poison(harness: SecretsHarness) -> None:
    """A payload that the server cannot convert ends the session."""
    await harness.root.execute(
        "CREATE DATABASE poison TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'"
    )
    async with superuser(harness.server.dsn_for("poison")) as sender:
        listener = harness.listener(database="poison")
        events = listener.events()
        async with listener, listener.stream("orders") as stream:
            await sender.execute(f"SELECT pg_notify('orders', E'{PAYLOAD} \\xff')")
            await until(events, Reconnected)
            harness.detector.record(listener, listener.stats(), stream, await listener.health())
    await harness.root.execute("DROP DATABASE poison WITH (FORCE)")


async def server_errors(harness: SecretsHarness) -> None:
    """LISTEN meets the bug of 2025, then an error, then the end."""
    async with (
        ErrorInjector(harness.server) as injector,
        harness.running(port=injector.port) as run,
    ):
        for sqlstate, text in (("58P01", "could not access status"), ("53200", "out of memory")):
            injector.answer(f'LISTEN "{sqlstate}"', error_response(sqlstate, text))
            await run.listener.listen(sqlstate, print)
        injector.send_unasked(error_response("57P01", "terminating", "FATAL"))
        await until(run.events, ConnectionLost)
        await run.record_everything()


async def handlers_that_raise(harness: SecretsHarness) -> None:
    """Handlers, on_error and resync fail, in words of their own."""
    told = asyncio.Queue[object]()

    async def fail(_: object) -> None:
        msg = "the handler's own words"
        raise LookupError(msg)

    def fail_as_well(error: BaseException, item: object) -> None:
        harness.detector.record(error, item)
        told.put_nowait(item)
        msg = "the words of on_error"
        raise LookupError(msg)

    def fail_later(notification: object) -> object:
        return fail(notification)

    def too_many(notification: object) -> None:
        cast("Any", fail)(notification, notification)

    async with harness.running() as run:
        for handler in (fail, too_many, fail_later):
            await run.listener.listen("failing", handler, on_error=fail_as_well)
        await run.listener.listen("failing", print, resync=fail, on_error=fail_as_well)
        await run.notify("failing", 2)
        async with asyncio.timeout(WAIT_LIMIT):
            for _ in range(7):
                await told.get()
        await run.record_everything()


async def on_event_raises(harness: SecretsHarness) -> None:
    """on_event fails, in words of its own."""

    def fail(event: ConnectionEvent) -> None:
        harness.detector.record(event)
        msg = "the words of on_event"
        raise LookupError(msg)

    async with harness.running(on_event=fail) as run:
        await run.kill()
        await run.reconnects()


async def overflows(harness: SecretsHarness) -> None:
    """Consumers are too slow: told of once, and ended where that was asked for."""
    never = asyncio.Event()
    errors = asyncio.Queue[object]()

    def heard(error: BaseException, item: object) -> None:
        harness.detector.record(error, item)
        errors.put_nowait(error)

    async def stuck(_: object) -> None:
        await never.wait()

    async with harness.running(close_timeout=0.1) as run:
        await run.listener.listen("flood", stuck, buffer=2)
        await run.listener.listen("flood", stuck, buffer=2, overflow="fail", on_error=heard)
        async with run.listener.stream("flood", buffer=2, overflow="fail") as stream:
            await run.notify("flood", 100)
            await run.delivers()
            # It may arrive in pieces: the two that fail end at the first loss, and drop no more
            while run.listener.stats().dropped < 97 + 1 + 1:  # noqa: ASYNC110 - judged later
                await asyncio.sleep(0)
            await run.raises(BufferOverflowError, _exhaust(stream))
        await run.record_everything()


async def _exhaust(stream: Stream[Any]) -> None:
    async for _ in stream:
        pass


async def notifies_that_fail(harness: SecretsHarness) -> None:
    """What cannot be sent, was not sent, or may have been sent, is not part of the error."""
    unsendable: tuple[Any, ...] = (
        PAYLOAD * 1_000,
        f"{PAYLOAD}\0",
        f"{PAYLOAD}\udcff",
        PAYLOAD.encode(),
        [PAYLOAD],
    )
    async with harness.running() as run:
        for payload in unsendable:
            await run.raises(PayloadError, run.listener.notify("orders", payload))
        for answer in (None, b"SELECT 1"):
            harness.proxy.cut_on(PAYLOAD.encode(), answer=answer)
            await run.raises(ConnectionLostError, run.listener.notify("orders", PAYLOAD))
            await until(run.events, Reconnected)
        if can_fill_queue(harness.server):
            await _full_queue(harness, run)
        await run.listener.health()
    await run.raises(ClosedError, run.listener.notify("orders", PAYLOAD))


async def _full_queue(harness: SecretsHarness, run: RunningListener) -> None:
    async with ServerFaults(harness.server.dsn) as faults:
        async with faults.queue_held("full") as holder:
            pid = holder.get_server_pid()
            await run.raises(asyncpg.ProgramLimitExceededError, _fill(run.listener))
            await holder.execute(f"SELECT '{PAYLOAD}'")  # its query is nobody's affair
            await run.record_everything()
        await faults.until_gone(pid)


async def _fill(listener: Listener) -> None:
    for number in range(100):  # ten times what there is room for
        sent = (listener.notify("full", f"{PAYLOAD} {number} {n:07900}") for n in range(50))
        await asyncio.gather(*sent)


async def closing_in_a_hurry(harness: SecretsHarness) -> None:
    """Handlers that do not end, and notifications that wait to be sent, when it is closed."""

    async def stubborn(_: object) -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()

    listener = harness.listener(close_timeout=0.1)
    async with listener:
        await listener.listen("orders", stubborn)
        await listener.notify("orders", PAYLOAD)
        harness.proxy.black_hole()
        sending = asyncio.create_task(listener.notify("orders", PAYLOAD))
    with pytest.raises((ConnectionLostError, ClosedError)) as lost:
        await sending
    harness.detector.record(lost.value, listener)


RUNS: Final = (
    killed,
    rotated_password,
    server_gone,
    black_hole,
    last_words,
    unreadable_notification,
    poison,
    server_errors,
    handlers_that_raise,
    on_event_raises,
    overflows,
    notifies_that_fail,
    closing_in_a_hurry,
)


@pytest.mark.parametrize("connects_by", ["dsn", "connect"])
@pytest.mark.parametrize("row", RUNS, ids=lambda row: row.__name__)
async def test_r43_whatever_goes_wrong_no_secret_is_told(
    harness: SecretsHarness, row: Row, asyncio_errors: list[str]
) -> None:
    """Not by the log, the events, the errors, the counters, or any object's repr."""
    await row(harness)
    harness.check()
    asyncio_errors.clear()  # asyncpg is not prepared for everything; the detector has heard it


# -- statements that hold a payload ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["notify", "many", "connection"])
async def test_r43_a_notification_that_is_refused_is_not_told(
    detector: SecretDetector, guarded_server: PostgresServer, how: str
) -> None:
    """Behind a pooler it is a part of the statement, which the driver keeps in its errors."""
    async with (
        ErrorInjector(guarded_server, other_pid=True) as injector,
        superuser(injector.dsn) as connection,
        Notifier(injector.dsn) as notifier,
    ):
        # Before 14 a server does not tell whether its role defaults to transactions that may wait
        for before in ("", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "):
            for function in ("pg_notify", "count"):
                beginning = f"{before}SELECT pg_catalog.{function}("
                injector.answer(beginning, error_response("22023", "too many"))
        sending: dict[str, Callable[[], Awaitable[object]]] = {
            "notify": lambda: notifier.notify("orders", PAYLOAD),
            "many": lambda: notifier.notify_many([("orders", PAYLOAD), ("events", PAYLOAD)]),
            "connection": lambda: notifier.notify("orders", PAYLOAD, connection=connection),
        }
        with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
            await sending[how]()
        detector.record(refused.value)
    assert "too many" in "".join(detector.texts)
    assert detector.containing(*SECRETS) == []
