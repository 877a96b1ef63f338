"""Trap 10: large events and large transactions, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from asyncnotify.log import Log
from asyncnotify.log._entries import PAYLOAD_LIMIT
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("memory of the server, and SQL")

MB: Final = 10**6
SOAK: Final = (pytest.mark.soak, pytest.mark.timeout(1_800))
MEMORY: Final = 50 * MB
WITHIN: Final = scaled(600.0)
MILLION: Final = """
    INSERT INTO asyncnotify.orders_events (slot, channel, payload)
    SELECT 0, 'things', n || repeat(' x', {size} / 2) FROM generate_series(1, {count}) AS n
"""

REPLAY: Final = """
import asyncio, contextlib, json, sys
from pathlib import Path
from asyncnotify.log import Log

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

async def events(log, way):
    if way == "read":
        async with log.read(after="start") as stream:
            async for event in stream:
                yield event
    elif way == "consumer":
        async with log.consumer("one") as consumer:
            async for event in consumer:
                yield event
    else:
        async with log.consumer("one") as consumer:
            async for batch in consumer.batches():
                for event in batch:
                    yield event

async def main(dsn, way, count):
    received = 0
    async with Log("orders", dsn) as log:
        async with contextlib.aclosing(log.read(after="now")) as connected:
            await connected.__aenter__()
        before = status("VmRSS")
        async with contextlib.aclosing(events(log, way)) as given:
            async for event in given:
                received += 1
                assert event.payload.startswith(f"{received} "), received
                if received == count:
                    break
        print(json.dumps({"received": received, "growth": status("VmHWM") - before}))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed, for statements that take long."""
    async with Log("orders", dsn, operation_timeout=WITHIN, close_timeout=WITHIN) as log:
        yield log


@pytest.fixture
def installed_dsn(dsn: str, installed: Names) -> str:
    """The DSN of a database in which the log has been installed."""
    return dsn


@pytest.mark.parametrize(
    "size",
    [
        8 * MB,
        pytest.param(100 * MB, marks=SOAK),
        pytest.param(PAYLOAD_LIMIT, marks=SOAK),
    ],
)
@pytest.mark.parametrize("connection", ["its own", "the caller's"])
async def test_large_payloads_arrive_unchanged(
    log: Log, admin: Connection, size: int, connection: str
) -> None:
    """Of characters that a literal would have to double, up to the limit itself."""
    payload = "'\\" * (size // 2)
    callers = admin if connection == "the caller's" else None
    async with admin.transaction():
        made = await log.append("things", payload, connection=callers)
    async with log.read(after="start") as events:
        event = await anext(events)
    assert event.id == made
    assert event.payload == payload


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no figures of its memory")
@pytest.mark.parametrize("way", ["read", "consumer", "batches"])
@pytest.mark.parametrize(
    "events",
    [
        (30_000, 20),
        (100, 1 * MB),
        pytest.param((1_000_000, 20), marks=SOAK),
        pytest.param((1_000, 1 * MB), marks=SOAK),
    ],
)
async def test_trap_10_one_large_transaction_is_replayed_in_bounded_memory(
    installed_dsn: str, admin: Connection, way: str, events: tuple[int, int]
) -> None:
    """Whatever it holds, the process that reads needs less than 50 MB more for that."""
    count, size = events
    await admin.execute(MILLION.format(count=count, size=size))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", REPLAY, installed_dsn, way, str(count)),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WITHIN):
        output, _ = await process.communicate()
    said = json.loads(output)
    assert said["received"] == count
    assert said["growth"] < MEMORY
