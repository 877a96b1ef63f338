"""asyncpg-listen: a handler, called in a task of its own for each notification."""

from __future__ import annotations

import asyncio
import functools
import importlib
from typing import Any

import asyncpg

from benchmarks.peers.driver import Connection
from benchmarks.peers.protocol import Meter, Options, run, say


class Recording(Connection):
    """A connection that tells when a listener has been added: the library itself does not."""

    listening: asyncio.Event

    async def add_listener(self, channel: str, callback: Any) -> None:  # noqa: ANN401 - passed on
        """Add it, and tell."""
        await super().add_listener(channel, callback)
        self.listening.set()


async def _run(options: Options, handler: Any) -> asyncio.Task[None]:  # noqa: ANN401 - theirs
    """Return once it listens."""
    module: Any = importlib.import_module("asyncpg_listen")
    Recording.listening = asyncio.Event()
    connect = functools.partial(asyncpg.connect, options.dsn, connection_class=Recording)
    listener = module.NotificationListener(connect)
    running = asyncio.create_task(
        listener.run({"bench": handler}, notification_timeout=module.NO_TIMEOUT)
    )
    await Recording.listening.wait()
    return running


async def burst(options: Options) -> None:
    """Count in the handler."""
    count, received, all_here = options.number("count"), 0, asyncio.Event()

    async def handle(_: object) -> None:
        nonlocal received
        received += 1
        if received == count:
            all_here.set()

    running = await _run(options, handle)
    meter = Meter.ready()
    await all_here.wait()
    say("done", received=received, **meter.read())
    running.cancel()


async def recovery(options: Options) -> None:
    """Tell when something arrives that was sent after the loss."""
    back = asyncio.Event()

    async def handle(_: object) -> None:
        back.set()

    running = await _run(options, handle)
    say("ready")
    await back.wait()
    say("back")
    running.cancel()


if __name__ == "__main__":
    run({"burst": burst, "recovery": recovery})
