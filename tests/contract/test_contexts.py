"""In whose context things run: long-lived tasks in that of nobody."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import Listener, Notification, Notifier
from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.contract.conftest import Database, Inbox

REQUEST: ContextVar[str] = ContextVar("request", default="nobody's")


class RequestsInTheLog(logging.Handler):
    """Notes in whose context each line was logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.requests: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        self.requests.append(REQUEST.get())


@pytest.mark.needs_server("driver")
async def test_r50_connections_and_log_lines_carry_nobody_s_context(
    dsn: str, database: Database
) -> None:
    """Whoever starts, notifies first or loses the connection: it is made anew for nobody."""
    dialled: list[str] = []

    async def connect() -> asyncpg.Connection:
        dialled.append(REQUEST.get())
        return await asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

    log, logger = RequestsInTheLog(), logging.getLogger("asyncnotify.connection")
    REQUEST.set("the first request's")
    listener = Listener(connect=connect, heartbeat=0.05, heartbeat_timeout=scaled(5.0))
    await listener.start()
    logger.addHandler(log)
    try:
        await listener.notify("orders", "")
        await database.interrupt(listener)
        await database.fence(listener)
    finally:
        logger.removeHandler(log)
        await listener.aclose()
    assert len(dialled) == 3
    assert set(dialled) == {"nobody's"}
    assert log.requests
    assert set(log.requests) == {"nobody's"}


@pytest.mark.needs_server("driver")
async def test_r50_what_is_sent_together_is_in_nobody_s_context(dsn: str) -> None:
    """The connection of a notifier is made in the context of no caller."""
    dialled: list[str] = []

    async def connect() -> asyncpg.Connection:
        dialled.append(REQUEST.get())
        return await asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

    REQUEST.set("the first request's")
    async with Notifier(connect=connect) as notifier:
        await asyncio.gather(*(notifier.notify("orders", str(n)) for n in range(10)))
    assert dialled == ["nobody's"]


class User:
    """Who sends a request: in its context, and to be collected with that."""


USER: ContextVar[User] = ContextVar("user")


async def test_r50_no_context_of_a_request_is_kept(listener: Listener, dsn: str) -> None:
    """Neither of the first request nor of any other, while all goes on without a pause."""
    users: list[weakref.ref[User]] = []
    await listener.listen("stock", lambda _: None)  # goes on, and is looked at from time to time
    async with Notifier(dsn, operation_timeout=scaled(1.0)) as notifier, listener.stream("orders"):

        async def request(call: Callable[[], Awaitable[object]]) -> None:
            user = User()
            users.append(weakref.ref(user))
            USER.set(user)
            await call()

        # Without timeouts: of one that is over the event loop keeps the context for so long
        async def listen_for_a_while() -> None:
            subscription = await listener.listen(
                "other", lambda _: None, slow_after=0.2, timeout=None
            )
            await subscription.cancel()

        async def iterate_for_a_while() -> None:
            async with listener.stream("other", timeout=None):
                await notifier.notify("other")

        calls: list[Callable[[], Awaitable[object]]] = [
            functools.partial(notifier.notify, "orders", "1"),
            functools.partial(listener.notify, "orders", "2", retry=True),
            functools.partial(listener.notify_many, [("orders", "3")]),
            functools.partial(listener.unlisten, "other"),
            listener.wait_connected,
            functools.partial(listener.health, server=False),
            listen_for_a_while,
            iterate_for_a_while,
        ]
        for call in calls:
            await asyncio.create_task(request(call))
        until = asyncio.get_running_loop().time() + 1.1  # beyond the deadline of the first
        while asyncio.get_running_loop().time() < until:
            await asyncio.create_task(request(calls[0]))
        await asyncio.sleep(0)  # the event loop itself keeps the last one until then
        gc.collect()
        assert [user() for user in users if user() is not None] == []


async def test_r50_a_handler_runs_in_the_context_in_which_it_was_registered(
    listener: Listener, database: Database, new_inbox: type[Inbox[str]]
) -> None:
    """listen() in one request, on() in another: each finds its own, at every call."""
    seen = new_inbox()

    def handler(_notification: Notification[str]) -> None:
        seen(REQUEST.get())
        REQUEST.set("what a call has set")

    REQUEST.set("one request's")
    await listener.listen("orders", handler)
    REQUEST.set("another's")
    listener.on("other")(handler)
    await database.notify("orders", "1", "2")
    await database.fence(listener)
    await database.notify("other", "1", "2")
    found = [await seen.next() for _ in range(4)]
    assert found == ["one request's"] * 2 + ["another's"] * 2


Close = Callable[[], Coroutine[object, object, None]]


async def itself(close: Close) -> None:
    """Close in the handler."""
    await close()


async def in_a_task(close: Close) -> None:
    """Close in a task that the handler starts."""
    await asyncio.create_task(close())


async def gathered(close: Close) -> None:
    """Close as one of several things that the handler waits for."""
    await asyncio.gather(close(), asyncio.sleep(0))


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("way", [itself, in_a_task, gathered])
async def test_closing_in_a_task_of_a_handler_does_not_wait_for_the_handler(
    dsn: str,
    database: Database,
    way: Callable[[Close], Coroutine[object, object, None]],
    concurrency: int,
) -> None:
    """In the handler, in a task that it starts, in gather(): nobody waits for himself."""
    closed = asyncio.get_running_loop().create_future()

    async def handler(_notification: Notification[str]) -> None:
        try:
            await way(listener.aclose)
        except BaseException as error:
            closed.set_exception(error)
            raise
        closed.set_result(None)

    listener = Listener(dsn, close_timeout=30)
    await listener.start()
    await listener.listen("orders", handler, concurrency=concurrency)
    await database.notify("orders", "")
    async with asyncio.timeout(scaled(10)):
        await closed
