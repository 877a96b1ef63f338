"""What the judges read in the database itself, past the faulty network."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from tests.chaos.judge.log_history import History, Rule, Seen
from tests.chaos.log.writers import APPLICATION
from tests.chaos.sender import LOST
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from tests.chaos.judge.log_history import Place

__all__ = [
    "answered",
    "committed",
    "connected",
    "end_writers",
    "farthest_behind",
    "read_effects",
    "watch_cursors",
    "without_effect",
]

T = TypeVar("T")

_TIMEOUT: Final = 5.0
_RECOVERED: Final = scaled(60.0)
_CURSORS: Final = "SELECT consumer, epoch, tick, id FROM asyncnotify.chaos_consumers"
_EFFECTS: Final = "SELECT name, epoch, tick, id FROM effects WHERE consumer = $1 ORDER BY n"
_LAST: Final = "SELECT name FROM effects WHERE consumer = $1 ORDER BY n DESC LIMIT 1"
_BEHIND: Final = """
    SELECT (SELECT max(top) FROM asyncnotify.chaos_ticks) - min(id)
    FROM asyncnotify.chaos_consumers WHERE consumer <> $1
"""
_COUNTS: Final = "SELECT consumer, count(*) FROM effects GROUP BY consumer"


@asynccontextmanager
async def connected(dsn: str) -> AsyncGenerator[asyncpg.Connection[Any]]:
    """Connect for as long as the block runs."""
    connection = await asyncpg.connect(dsn, timeout=_TIMEOUT, command_timeout=_TIMEOUT)
    try:
        yield connection
    finally:
        connection.terminate()


async def watch_cursors(dsn: str, cursors: Mapping[str, list[tuple[float, Place]]]) -> None:
    """Note again and again where the cursors of consumers stand."""
    while True:
        with suppress(*LOST, TimeoutError):
            async with connected(dsn) as connection:
                while True:
                    for row in await connection.fetch(_CURSORS):
                        if (noted := cursors.get(row["consumer"])) is not None:
                            noted.append((time.monotonic(), (row["epoch"], row["tick"], row["id"])))
                    await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)


async def farthest_behind(dsn: str, *, except_for: str) -> int:
    """Return how many events, about, the slowest consumer still has to come to."""
    async with connected(dsn) as connection:
        return await connection.fetchval(_BEHIND, except_for) or 0


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """
    Ask again until the server answers: it may be recovering from the last fault.

    Raises:
        TimeoutError: It does not for a minute.
    """
    last: BaseException | None = None
    try:
        async with asyncio.timeout(_RECOVERED):
            while True:
                try:
                    return await ask()
                except LOST as error:
                    last = error
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TimeoutError(repr(last)) from last


async def end_writers(dsn: str) -> None:
    """End what writers have left open: from here on it is known what was committed."""
    async with ServerFaults(dsn) as faults:
        for pid in await faults.terminate(application_name=APPLICATION):
            await faults.until_gone(pid)


async def committed(dsn: str) -> set[str]:
    """Return the names of the events whose transactions have committed."""
    async with connected(dsn) as connection:
        return {row[0] for row in await connection.fetch("TABLE sent", timeout=60.0)}


async def without_effect(dsn: str, name: str) -> list[str]:
    """Return which of the consumers that write rows have not got to the event of this name."""
    async with connected(dsn) as connection:
        if await connection.fetchval(_LAST, "transactional") != name:
            return ["transactional"]
        counts = dict(await connection.fetch(_COUNTS))
    # What is last in the order is not what the last bucket comes to
    return ["bucketed"] if counts.get("bucketed", 0) < counts["transactional"] else []


async def read_effects(dsn: str, consumer: str) -> History:
    """Return what a consumer has written, as a history."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(_EFFECTS, consumer, timeout=60.0)
    history = History(consumer, Rule.ONCE)
    history.entries += [Seen((row[1], row[2], row[3]), row[0]) for row in rows]
    return history
