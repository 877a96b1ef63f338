"""
A durable consumer as a process of its own, which is killed at random.

    python -m tests.chaos.log.process plain postgresql://… the/file

It records what it sees, and ends by itself when whoever started it has gone.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify import ConnectError, ConnectionLostError, ExponentialBackoff
from asyncnotify.log import Log, Retry
from tests.chaos.judge.log_history import Kind
from tests.chaos.log.recorded import Recorder, name_of, place_of

if TYPE_CHECKING:
    from asyncnotify.log import Event

__all__ = ["BUCKETS", "LIMITS", "LOG"]

LOG: Final = "chaos"
BUCKETS: Final = 4
LIMITS: Final[dict[str, Any]] = {
    "connect_timeout": 2.0,
    "operation_timeout": 2.0,
    "poll": 0.5,
    "backoff": ExponentialBackoff(initial=0.01, cap=0.3),
}
"""Faults that nobody is told of are noticed soon."""

_BATCH: Final = 50
_PAUSE: Final = 0.1
_FAILING: Final = 0.02
_AT_ONCE: Final = ExponentialBackoff(initial=0.001, cap=0.001)
_INSERT: Final = "INSERT INTO effects (consumer, name, epoch, tick, id) VALUES ($1, $2, $3, $4, $5)"


async def plain(log: Log, recorder: Recorder) -> None:
    """Take one event after another."""
    async with log.consumer("plain", gaps=True) as consumer:
        async for item in consumer:
            recorder.item(item)


async def batches(log: Log, recorder: Recorder) -> None:
    """Take batches."""
    async with log.consumer("batches", gaps=True) as consumer:
        async for batch in consumer.batches(_BATCH):
            recorder.mark(Kind.BATCH)
            for item in batch:
                recorder.item(item)


async def transactional(log: Log, recorder: Recorder) -> None:
    """Write a row for each event, in the transaction that moves the cursor; fail now and then."""
    await _write_rows("transactional", 1, log, recorder)


async def bucketed(log: Log, recorder: Recorder) -> None:
    """Do the same in buckets, which several processes share."""
    await _write_rows("bucketed", BUCKETS, log, recorder)


async def _write_rows(name: str, buckets: int, log: Log, recorder: Recorder) -> None:
    retry = Retry(1_000, backoff=_AT_ONCE)

    @log.on(name, transactional=True, on_error=retry, buckets=buckets)
    async def write(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        place = place_of(event.position)
        await connection.execute(_INSERT, name, name_of(event.payload), *place)
        recorder.item(event)
        if random.random() < _FAILING:
            raise ValueError(event.position)

    while True:
        try:
            await log.start()
        except (ConnectError, ConnectionLostError):
            await asyncio.sleep(_PAUSE)
        else:
            await asyncio.Event().wait()


KINDS: Final = {
    "plain": plain,
    "batches": batches,
    "transactional": transactional,
    "bucketed": bucketed,
}


async def main(kind: str, dsn: str, path: str) -> None:
    """Consume until killed."""
    asyncio.get_running_loop().add_reader(0, lambda: os._exit(1))  # who started this has gone
    recorder = Recorder(path)
    recorder.mark(Kind.STARTED)

    async def connect() -> asyncpg.Connection[Any]:
        settings = {"application_name": "asyncnotify"}
        connection = await asyncpg.connect(dsn, timeout=2.0, server_settings=settings)
        recorder.mark(Kind.CONNECTED)
        return connection

    async with Log(LOG, connect=connect, **LIMITS) as log:
        await KINDS[kind](log, recorder)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
