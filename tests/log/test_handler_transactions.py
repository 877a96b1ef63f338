"""Transactions of handlers: whatever a function leaves behind, each event has one outcome."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import ExponentialBackoff
from asyncnotify.log import Event, Log, Retry
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("SQL in the handler")

AT_ONCE: Final = ExponentialBackoff(initial=0.001, cap=0.001)

TABLE: Final = "CREATE TABLE effects (n int, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)"

WAYS: Final = {
    "an error that it caught": "SELECT 1 / 0",
    "a deferred constraint": "INSERT INTO effects VALUES (2), (2)",
    "a rollback": "ROLLBACK",
    "a commit": "COMMIT",
    "another transaction": "ROLLBACK; BEGIN",
    "a chain": "ROLLBACK AND CHAIN",
}
"""What a handler does to its transaction before it returns, as if all were well."""


@pytest.mark.parametrize("way", WAYS)
async def test_what_ends_or_breaks_the_transaction_is_an_error_of_the_handler(
    dsn: str, installed: Names, admin: Connection, way: str
) -> None:
    """It is tried as often as Retry says, then a dead letter; it is neither lost nor for ever."""
    await admin.execute(TABLE)
    calls: list[str] = []
    finished = asyncio.Event()
    log = Log("orders", dsn)

    @log.on("h", transactional=True, on_error=Retry(2, backoff=AT_ONCE))
    async def handle(event: Event[str], connection: Any) -> None:
        calls.append(event.payload)
        if event.payload == "bad":
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute(WAYS[way])
        else:
            await connection.execute("INSERT INTO effects VALUES (1)")
            finished.set()

    async with log, asyncio.timeout(scaled(20)):
        await log.append("things", "bad")
        await log.append("things", "good")
        await finished.wait()
        [letter] = await log.dead_letters()
        assert (letter.event.payload, letter.attempts) == ("bad", 2)
    assert calls == ["bad", "bad", "good"]
    assert await admin.fetchval("SELECT count(*) FROM effects") == 1


@pytest.mark.parametrize("way", ["a rollback", "another transaction"])
async def test_a_dead_letter_whose_transaction_the_handler_ends_stays(
    dsn: str, installed: Names, way: str
) -> None:
    """What the handler did is undone, so the letter cannot have been dealt with."""
    asked = asyncio.Event()
    log = Log("orders", dsn)

    @log.on("h", transactional=True, on_error=Retry(1))
    async def handle(event: Event[str], connection: Any) -> None:
        if asked.is_set():
            await connection.execute(WAYS[way])
            return
        asked.set()
        raise ValueError(event.channel)

    async with log, asyncio.timeout(scaled(20)):
        await log.append("things", "x")
        while not (letters := await log.dead_letters()):
            await asked.wait()
        with pytest.raises(Exception, match="ended the transaction"):
            await log.retry(letters[0])
        assert await log.dead_letters() == letters
