"""What a server, or whatever answers at the port, says: never raw in a log or on a terminal."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    AsyncNotifyError,
    BlockingListener,
    ConnectionLost,
    Listener,
    Notifier,
    RetryScheduled,
)
from tests.hygiene.error_injector import READY, ErrorInjector
from tests.hygiene.hostile_server import GREETING, HOSTILE, HostileServer, hostile_error
from tests.hygiene.secrets_harness import SHORT_BACKOFF, SOON, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.secret_detector import SecretDetector

OPTIONS: dict[str, Any] = {**SOON, "backoff": SHORT_BACKOFF}


def raw_in(texts: list[str]) -> list[str]:
    """Return the lines that hold something that acts; what they consist of is separated by LF."""
    lines = [line for text in texts for line in text.split("\n")]
    return [ascii(line) for line in lines if not line.replace("\xa0", " ").isprintable()]


def as_printed(error: BaseException) -> str:
    """Return an error as Python prints it when nobody catches it."""
    return "".join(traceback.format_exception(error))


@pytest.fixture(autouse=True)
def all_is_said_in_harmless_words(detector: SecretDetector) -> Iterator[None]:
    """Check after each test all log lines, and all that the test has recorded."""
    detector.setLevel(logging.DEBUG)
    logging.getLogger("asyncnotify").setLevel(logging.DEBUG)
    yield
    logging.getLogger("asyncnotify").setLevel(logging.NOTSET)
    assert detector.texts
    assert raw_in([*detector.lines, *detector.texts]) == []


ANSWERS = {
    "refusal": (hostile_error("28P01"), b""),
    "trouble": (hostile_error("57P03"), b""),
    "unknown": (hostile_error("ZZ\x1b00"), b""),
    "question": (GREETING, hostile_error("42501", "ERROR") + b"Z\0\0\0\x05I"),
    "end": (GREETING, hostile_error("57P01")),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("kind", [Listener, Notifier])
async def test_what_a_server_says_at_the_start(
    detector: SecretDetector, answer: tuple[bytes, bytes], kind: type[Listener | Notifier]
) -> None:
    """In the error, with all its causes as Python prints them, and in the log."""
    async with HostileServer(*answer) as server:
        made = kind(server.dsn, **OPTIONS)
        with pytest.raises(AsyncNotifyError) as refused:
            await made.start()
        detector.record(as_printed(refused.value), made)
        if hostile_error("57P01") not in answer:  # the driver does not tell of the last words
            assert "forged" in str(refused.value)


async def test_what_a_server_says_to_a_thread(detector: SecretDetector) -> None:
    """The classes for threads tell nothing else."""
    async with HostileServer(*ANSWERS["trouble"]) as server:
        listener = BlockingListener(server.dsn, **OPTIONS)
        with pytest.raises(AsyncNotifyError) as refused:
            await asyncio.to_thread(listener.start)
        detector.record(as_printed(refused.value), listener)
        await asyncio.to_thread(listener.close)


async def test_what_a_server_says_while_a_listener_runs(
    detector: SecretDetector, guarded_server: PostgresServer, asyncio_errors: list[str]
) -> None:
    """The refusal of a notification and of a channel; the end of the session."""
    async with ErrorInjector(guarded_server) as injector:
        listener = Listener(injector.dsn, **OPTIONS)
        events = listener.events()
        async with listener:
            injector.answer("SELECT pg_catalog.pg_notify", hostile_error("22023", "ERROR"))
            with pytest.raises(Exception, match="forged") as refused:
                await listener.notify("orders", "x")
            detector.record(as_printed(refused.value))
            injector.answer('LISTEN "bad"', hostile_error("22P05", "ERROR"), times=2)
            with pytest.raises(AsyncNotifyError) as no_channel:
                await listener.listen("bad", print)
            detector.record(as_printed(no_channel.value))
            injector.send_unasked(hostile_error("57P01") + READY)
            lost = await until(events, ConnectionLost)
            detector.record(lost, await listener.health())
    asyncio_errors.clear()  # asyncpg was not prepared for it


async def test_names_that_the_user_gives(detector: SecretDetector) -> None:
    """Of users, databases, channels: they may come from a request."""
    listener = Listener(
        host="127.0.0.1", port=1, user=HOSTILE, database=HOSTILE, **OPTIONS, on_event=print
    )
    events = listener.events()
    with pytest.raises(AsyncNotifyError) as refused:
        await listener.start()
    detector.record(listener, as_printed(refused.value), await until(events, RetryScheduled))
    with pytest.raises(AsyncNotifyError) as no_channel:
        listener.on(HOSTILE * 10)(print)
    detector.record(as_printed(no_channel.value))
