"""broadcaster: a subscriber of its PostgreSQL backend."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.protocol import Meter, Options, run, say


async def burst(options: Options) -> None:
    """Take them one by one."""
    count, received = options.number("count"), 0
    module: Any = importlib.import_module("broadcaster")
    broadcast: Any = module.Broadcast(options.dsn)
    async with broadcast, broadcast.subscribe("bench") as subscriber:
        meter = Meter.ready()
        async for _ in subscriber:
            received += 1
            if received == count:
                break
        say("done", received=received, **meter.read())


async def recovery(options: Options) -> None:
    """Tell when something arrives that was sent after the loss."""
    module: Any = importlib.import_module("broadcaster")
    broadcast: Any = module.Broadcast(options.dsn)
    async with broadcast, broadcast.subscribe("bench") as subscriber:
        say("ready")
        async for _ in subscriber:
            say("back")


if __name__ == "__main__":
    run({"burst": burst, "recovery": recovery})
