"""What replaces the driver's methods, as tracing agents do, sees nothing of what a log does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify.log import Event, Log, Retry
from tests.contract.test_untraced import BY_TEST, REPLACED, noting

if TYPE_CHECKING:
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("a driver")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a tracing agent would note from here on."""
    noted: list[str] = []
    for owner, name in REPLACED:
        monkeypatch.setattr(owner, name, noting(noted, name, getattr(owner, name)))
    return noted


async def use(log: Log) -> None:
    """Install, append, read, consume, handle and operate a log, and poll it."""
    handled: list[str] = []
    await log.install()

    @log.on("handler", transactional=True, on_error=Retry(1))
    async def handle(event: Event[str], connection: Connection) -> None:
        BY_TEST.set(True)
        async with connection.transaction():
            await connection.execute("SELECT 1")
        handled.append(event.payload)
        assert event.payload != "2"

    @log.on("split", buckets=2)
    def count(event: Event[str]) -> None:
        handled.append(event.payload)

    await log.append("things", "1")
    await log.append_many([("things", "2"), ("things", "3")])
    async with log, log.consumer("mailer") as consumer, log.read(after="start") as stream:
        assert [(await anext(stream)).payload for _ in range(3)] == ["1", "2", "3"]
        assert [(await anext(consumer)).payload for _ in range(3)] == ["1", "2", "3"]
        while len(handled) < 6:
            await log.expire()
        [letter] = await log.dead_letters("handler")
        await log.discard(letter)
        await log.seek("mailer", "start")
        assert (await log.status()).events == 3


async def test_r50_a_log_leaves_no_trace(dsn: str, noted: list[str]) -> None:
    """Ticks, polls, cursors, LISTEN, and the transactions in which handlers are called."""
    await use(Log("orders", dsn, poll=0.01))
    await use(Log("orders2", dsn, wake="after"))
    assert noted == []


async def test_r50_a_logs_pool_is_noted_for_what_it_does_itself(dsn: str, noted: list[str]) -> None:
    """It resets a connection that it gets back; what the log does on that is not noted."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=9) as pool:
        await use(Log("orders", pool=pool, poll=0.01))
    assert [text for text in noted if "RESET ALL" not in text] == []


async def test_r50_what_the_caller_appends_in_a_transaction_of_his_own_is_noted(
    dsn: str, admin: Connection, noted: list[str]
) -> None:
    """And what a handler does on the connection that it gets: that is the caller's."""
    log = Log("orders", dsn)
    await log.install()
    async with admin.transaction():
        await log.append("things", "1", connection=admin)
    assert [text for text in noted if "orders_append" in text]
    done: list[Any] = []
    noted.clear()

    @log.on("handler", transactional=True)
    async def handle(_: Event[str], connection: Connection) -> None:
        await connection.execute("SELECT 'mine'")
        done.append(connection.is_in_transaction())

    async with log:
        while not done:
            await log.expire()
    assert done == [True]
    assert {text for text in noted if "SELECT 'mine'" not in text} == set()
    assert noted
