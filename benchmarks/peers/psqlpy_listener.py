"""psqlpy: its listener, on a driver written in Rust."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from benchmarks.peers.protocol import Meter, Options, run, say

_INTERVAL = 0.05


async def _ignore(*_: object) -> None:
    pass


async def _notify_until(pool: Any, heard: asyncio.Event) -> None:  # noqa: ANN401 - not typed
    """Send empty notifications until one is heard: it listens from its first step only."""
    connection = await pool.connection()
    while not heard.is_set():
        await connection.execute("NOTIFY bench")
        await asyncio.sleep(_INTERVAL)


async def burst(options: Options) -> None:
    """Take them one by one."""
    module: Any = importlib.import_module("psqlpy")
    pool = module.ConnectionPool(dsn=options.dsn, max_db_pool_size=2)
    listener = pool.listener()
    await listener.add_callback(channel="bench", callback=_ignore)
    await listener.startup()
    heard = asyncio.Event()
    knocking = asyncio.create_task(_notify_until(pool, heard))
    await anext(listener)
    heard.set()
    await knocking
    count, received = options.number("count"), 0
    meter = Meter.ready()
    async for notification in listener:
        if notification.payload:
            received += 1
        if received == count:
            break
    say("done", received=received, **meter.read())
    await listener.shutdown()


if __name__ == "__main__":
    run({"burst": burst})
