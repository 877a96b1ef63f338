"""asyncnotify: latency, recovery, listening on many channels, and doing nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asyncnotify import Listener
from benchmarks.peers.protocol import Meter, Options, resident, run, say

if TYPE_CHECKING:
    from asyncnotify import Notification


_PAUSE = 0.1  # in which the round trips so far are counted


def _ignore(notification: Notification[str]) -> None:
    pass


async def _listen_to_many(listener: Listener, name: str, channels: int) -> None:
    """Listen on many channels, from as many tasks at once."""
    async with asyncio.TaskGroup() as group:
        for number in range(channels):
            group.create_task(listener.listen(f"{name}_{number}", _ignore))


async def latency(options: Options) -> None:
    """Note how old each notification is when its handler runs."""
    count, ages, all_here = options.number("count"), list[int](), asyncio.Event()

    def note(notification: Notification[str]) -> None:
        ages.append(time.monotonic_ns() - int(notification.payload))
        if len(ages) == count:
            all_here.set()

    async with Listener(options.dsn) as listener:
        await listener.listen("bench", note)
        say("ready")
        await all_here.wait()
        say("done", ages=ages)


async def stream_latency(options: Options) -> None:
    """Note how old each notification is when the loop over a stream gets it."""
    count, ages = options.number("count"), list[int]()
    async with Listener(options.dsn) as listener, listener.stream("bench") as notifications:
        say("ready")
        async for notification in notifications:
            ages.append(time.monotonic_ns() - int(notification.payload))
            if len(ages) == count:
                break
        say("done", ages=ages)


async def recovery(options: Options) -> None:
    """Tell when something arrives that was sent after the loss."""
    back = asyncio.Event()

    def tell(notification: Notification[str]) -> None:  # noqa: ARG001 - that it came is all
        back.set()

    async with Listener(options.dsn) as listener:
        await _listen_to_many(listener, "other", options.number("others"))
        await listener.listen("bench", tell)
        say("ready")
        await back.wait()
        say("back")


async def listen(options: Options) -> None:
    """Listen on many channels, from as many tasks at once."""
    async with Listener(options.dsn) as listener:
        say("ready")
        await asyncio.sleep(_PAUSE)
        meter = Meter()
        await _listen_to_many(listener, "channel", options.number("channels"))
        say("done", **meter.read())


async def listen_in_turn(options: Options) -> None:
    """Listen on many channels, one after the other."""
    async with Listener(options.dsn) as listener:
        say("ready")
        meter = Meter()
        for number in range(options.number("channels")):
            await listener.listen(f"channel_{number}", _ignore)
        say("done", **meter.read())


async def idle(options: Options) -> None:
    """Listen on many channels, and do nothing for a while."""
    async with Listener(options.dsn) as listener:
        before = resident()
        await _listen_to_many(listener, "channel", options.number("channels"))
        grown = resident() - before
        await asyncio.sleep(1.0)  # what the listening itself has left to do
        meter = Meter.ready()
        await asyncio.sleep(options.number("seconds"))
        say("done", **meter.read(), subscriptions=grown)


WORKLOADS = {
    "latency": latency,
    "stream_latency": stream_latency,
    "recovery": recovery,
    "listen": listen,
    "listen_in_turn": listen_in_turn,
    "idle": idle,
}

if __name__ == "__main__":
    run(WORKLOADS)
