"""asyncio's debug mode logs what every callback and task is called with: never what is secret."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    Channel,
    Listener,
    Notification,
    Notifier,
)
from asyncnotify._blocking import loop as loops
from tests.hygiene.secret_detector import PASSWORD, PAYLOAD, SECRETS, USER, SecretDetector
from tests.hygiene.secrets_harness import SHORT_BACKOFF, WAIT_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from asyncnotify.testing.server import PostgresServer

WAYS_TO_CONNECT: Final = ("dsn", "password", "async password", "connect", "pool")


def tells_all(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop log everything that it calls."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0


def checked(detector: SecretDetector, *ours: str) -> None:
    """Check that the loop has told of these calls, and of no secret. Handlers tell what they do."""
    told = [line for line in detector.lines if line.startswith("Executing ")]
    for name in ours:
        assert any(name in line for line in told)
    assert [line for line in told if any(secret in line for secret in SECRETS)] == []


async def password() -> str:
    """Return it, as a token service does."""
    return PASSWORD


def dsn_of(server: PostgresServer) -> str:
    """Return a URL with the password."""
    return server.dsn_for("postgres", user=USER, password=PASSWORD)


def connecting(server: PostgresServer, connects_by: str) -> dict[str, Any]:
    """Return the arguments that connect in one of these ways."""
    if connects_by == "dsn":
        return {"dsn": dsn_of(server)}
    if connects_by == "connect":
        return {"connect": lambda: asyncpg.connect(dsn_of(server))}
    given: Callable[[], object] = password if connects_by == "async password" else lambda: PASSWORD
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "user": USER,
        "database": "postgres",
        "password": given,
    }


@asynccontextmanager
async def notifier_by(server: PostgresServer, connects_by: str) -> AsyncGenerator[Notifier]:
    """Have a notifier that connects in one of these ways."""
    if connects_by == "pool":
        async with (
            asyncpg.create_pool(dsn_of(server), min_size=1, max_size=1) as pool,
            Notifier(pool=pool) as notifier,
        ):
            yield notifier
    else:
        async with Notifier(**connecting(server, connects_by)) as notifier:
            yield notifier


def ignore(*_: object) -> None:
    """Do nothing; of an error neither."""


class Inbox:
    """Counts what arrives, and keeps none of it where the loop could tell of it."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = asyncio.Event()

    async def take(self, notification: Notification[Any]) -> None:
        """Take one."""
        assert PAYLOAD in str(notification.payload)
        self.count += 1
        self.changed.set()

    def take_at_once(self, notification: Notification[Any]) -> None:
        """Take one, as a plain function."""
        assert PAYLOAD in str(notification.payload)
        self.count += 1
        self.changed.set()

    def fail(self, notification: Notification[Any]) -> None:
        """Fail, in words without the payload."""
        self.take_at_once(notification)
        msg = "the handler's own words"
        raise LookupError(msg)

    async def until(self, count: int) -> None:
        """Return when so many have come."""
        async with asyncio.timeout(WAIT_LIMIT):
            while self.count < count:
                self.changed.clear()
                await self.changed.wait()


def fail_with_payload(notification: Notification[Any]) -> None:
    """Fail, and quote the payload."""
    raise LookupError(notification.payload)


async def read(stream: Any, count: int) -> None:
    """Take so many from a stream, in a task whose result says nothing."""
    async with stream:
        for _ in range(count):
            assert PAYLOAD in str((await anext(stream)).payload)


@pytest.mark.parametrize("connects_by", WAYS_TO_CONNECT)
async def test_r43_a_loop_in_debug_mode_tells_no_secret(
    detector: SecretDetector, guarded_server: PostgresServer, connects_by: str
) -> None:
    """Handlers of every kind, streams, batches, and sending and connecting in every way."""
    tells_all(asyncio.get_running_loop())
    logging.getLogger("asyncio").setLevel(logging.INFO)
    inbox = Inbox()
    texts, objects = Channel("texts"), Channel("objects", dict)
    options = connecting(guarded_server, "dsn" if connects_by == "pool" else connects_by)
    async with Listener(**options, backoff=SHORT_BACKOFF) as listener:
        await listener.listen(texts, inbox.take)
        await listener.listen(texts, inbox.take_at_once, resync=ignore)
        await listener.listen(texts, inbox.take, concurrency=4)
        await listener.listen(texts, inbox.fail, on_error=ignore)
        await listener.listen(texts, inbox.take, latest=True)
        await listener.listen(objects, inbox.take)
        await listener.listen(texts, fail_with_payload, in_thread=True, on_error=ignore)
        reading = asyncio.create_task(read(listener.stream("texts"), 1))
        async with notifier_by(guarded_server, connects_by) as notifier:
            await notifier.notify("texts", PAYLOAD)
            await reading
            await asyncio.gather(
                *(notifier.notify("texts", f"{PAYLOAD} {number % 7}") for number in range(100)),
                *(notifier.notify("texts", PAYLOAD, retry=True) for _ in range(10)),
            )
            await notifier.notify_many(("texts", f"{PAYLOAD} {number}") for number in range(200))
            await listener.notify(objects, {"text": PAYLOAD})
            await inbox.until(4 * 311 + 2)
    checked(detector, "asyncnotify connection", "asyncnotify handler of 'texts'")


@pytest.mark.parametrize("connects_by", ["dsn", "connect"])
async def test_r43_the_loop_of_the_threads_tells_no_secret(
    detector: SecretDetector,
    guarded_server: PostgresServer,
    connects_by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same through the classes for threads, whose loop is their own."""
    new_loop = loops._new_loop  # noqa: SLF001 - where the loop is made

    def new_debug_loop() -> asyncio.AbstractEventLoop:
        loop = new_loop()
        tells_all(loop)
        return loop

    monkeypatch.setattr(loops, "_new_loop", new_debug_loop)
    await asyncio.to_thread(use_blocking, connecting(guarded_server, connects_by))
    checked(detector, "asyncnotify call from a thread")


def use_blocking(options: dict[str, Any]) -> None:
    """Listen with a handler and a stream, and send in every way."""
    with BlockingListener(**options) as listener, BlockingNotifier(**options) as notifier:
        listener.listen("texts", fail_with_payload, on_error=ignore)
        with listener.stream("texts") as stream:
            notifier.notify("texts", PAYLOAD)
            listener.notify("texts", PAYLOAD)
            notifier.notify_many(("texts", f"{PAYLOAD} {number}") for number in range(3_000))
            taken = [stream.get(timeout=WAIT_LIMIT) for _ in range(3_002)]
        assert all(item is not None for item in taken)
