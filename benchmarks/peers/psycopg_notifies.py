"""psycopg 3: the notifications of an AsyncConnection."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.protocol import Meter, Options, run, say


async def _listening(options: Options) -> Any:  # noqa: ANN401 - it need not be installed
    psycopg: Any = importlib.import_module("psycopg")
    connection = await psycopg.AsyncConnection.connect(options.dsn, autocommit=True)
    await connection.execute("LISTEN bench")
    return connection


async def burst(options: Options) -> None:
    """Take them one by one."""
    count, received = options.number("count"), 0
    connection = await _listening(options)
    meter = Meter.ready()
    async for _ in connection.notifies():
        received += 1
        if received == count:
            break
    say("done", received=received, **meter.read())


async def recovery(options: Options) -> None:
    """Tell when something arrives that was sent after the loss."""
    connection = await _listening(options)
    say("ready")
    async for _ in connection.notifies():
        say("back")


if __name__ == "__main__":
    run({"burst": burst, "recovery": recovery})
