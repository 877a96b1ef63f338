"""Connections that the server has ended while they were idle: what is asked then is asked anew."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncnotify.log._names import Names
    from tests.log.conftest import Reader

pytestmark = pytest.mark.needs_server("a driver")

OURS: Final = (
    "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'idle'"
)
SIZE: Final = 5

Call: TypeAlias = "Callable[[Log], Awaitable[object]]"

CALLS: Final[dict[str, Call]] = {
    "append": lambda log: log.append("things", "x"),
    "append_many": lambda log: log.append_many([("things", "x")] * 3),
    "status": lambda log: log.status(),
    "expire": lambda log: log.expire(),
    "dead_letters": lambda log: log.dead_letters(),
    "seek": lambda log: log.seek("mailer", "start"),
    "pause": lambda log: log.pause("mailer"),
    "install": lambda log: log.install(),
}


@pytest_asyncio.fixture(params=["own", "pool"])
async def log(request: pytest.FixtureRequest, dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log on connections of its own, or on a pool that is full of connections."""
    options: dict[str, Any] = {"server_settings": {"application_name": "idle"}}
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "pool":
            pool = asyncpg.create_pool(dsn, min_size=SIZE, max_size=SIZE, **options)
            options = {"pool": await stack.enter_async_context(pool)}
            dsn = ""
        log = Log("orders", dsn or None, **options)
        yield await stack.enter_async_context(log)


def end_sessions(dsn: str) -> None:
    """End all idle sessions. The event loop does not run meanwhile: their end waits to be read."""
    with psycopg.connect(dsn, autocommit=True) as other:
        # Again and again: one that was about to begin may have begun since, and waits for the loop
        while other.execute(f"SELECT pg_terminate_backend(pid) {OURS}").rowcount:
            pass


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_call_after_the_end_of_idle_sessions_does_not_notice(
    log: Log, dsn: str, *, is_read: bool
) -> None:
    """Whether the end has been read, or waits to be read: nothing had been sent."""
    async with log.consumer("mailer"):
        pass
    failed: dict[str, Exception] = {}
    for name, call in CALLS.items():
        await call(log)
        end_sessions(dsn)
        for _ in range(10 * is_read):
            await asyncio.sleep(0)
        try:
            await call(log)
        except Exception as error:  # noqa: BLE001 - all of them are shown
            failed[name] = error
    assert failed == {}


async def test_an_event_that_had_not_been_sent_is_appended_once(
    log: Log, dsn: str, reader: Reader
) -> None:
    """In every call, however often the connection is ended between them."""
    for n in range(5):
        await log.append("things", str(n))
        end_sessions(dsn)
    assert await reader.payloads() == [*map(str, range(5))]


async def test_readers_are_woken_though_the_connection_for_that_had_ended(
    dsn: str, installed: Names
) -> None:
    """With wake="after": the notification is sent on another connection."""
    options: dict[str, Any] = {"server_settings": {"application_name": "idle"}}
    async with (
        Log("orders", dsn, poll=600.0) as readers,
        readers.read(after="start") as stream,
        Log("orders", dsn, wake="after", **options) as log,
    ):
        for n in range(5):
            await log.append("things", str(n))
            assert (await anext(stream)).payload == str(n)
            end_sessions(dsn)
