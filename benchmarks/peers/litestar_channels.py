"""Litestar: the asyncpg backend of its channels."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.protocol import Meter, Options, run, say


async def _backend(options: Options) -> Any:  # noqa: ANN401 - it need not be installed
    module: Any = importlib.import_module("litestar.channels.backends.asyncpg")
    backend = module.AsyncPgChannelsBackend(options.dsn)
    await backend.on_startup()
    await backend.subscribe(["bench"])
    return backend


async def burst(options: Options) -> None:
    """Take them one by one."""
    count, received = options.number("count"), 0
    backend = await _backend(options)
    meter = Meter.ready()
    async for _ in backend.stream_events():
        received += 1
        if received == count:
            break
    say("done", received=received, **meter.read())
    await backend.on_shutdown()


async def recovery(options: Options) -> None:
    """Tell when something arrives that was sent after the loss."""
    backend = await _backend(options)
    say("ready")
    async for _ in backend.stream_events():
        say("back")


if __name__ == "__main__":
    run({"burst": burst, "recovery": recovery})
