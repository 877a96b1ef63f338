"""One notification to many streams of one channel, beside waking as many bare futures."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from asyncnotify import Listener
from benchmarks.peers.protocol import Options, resident, run, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Notification, Stream


class Crowd:
    """Tasks that wait for the same thing; it tells when each has got it once more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.all_awake = asyncio.Event()
        self._awake = 0

    def wake(self) -> None:
        """Count one task that got it."""
        self._awake += 1
        if self._awake == self.size:
            self._awake = 0
            self.all_awake.set()


async def _follow(stream: Stream[Notification[str]], crowd: Crowd) -> None:
    async for _ in stream:
        crowd.wake()


async def _await_futures(waiting: list[asyncio.Future[None]], crowd: Crowd) -> None:
    loop = asyncio.get_running_loop()
    while True:
        future: asyncio.Future[None] = loop.create_future()
        waiting.append(future)
        await future
        crowd.wake()


async def _measure(crowd: Crowd, trigger: Callable[[], Awaitable[None]]) -> float:
    """Return the CPU from just before the trigger until all are awake."""
    crowd.all_awake.clear()
    await asyncio.sleep(0)
    before = time.process_time()
    await trigger()
    await crowd.all_awake.wait()
    return time.process_time() - before


async def fanout(options: Options) -> None:
    """Wake streams and futures in turn; what asking for a notification costs is in it."""
    size, repetitions = options.number("streams"), options.number("repetitions")
    streams_crowd, futures_crowd = Crowd(size), Crowd(size)
    waiting: list[asyncio.Future[None]] = []

    async def ask() -> None:
        say("send")

    async def set_all() -> None:
        futures, waiting[:] = waiting[:], []
        for future in futures:
            future.set_result(None)

    async with Listener(options.dsn) as listener, listener.stream("bench"):
        before = resident()  # what the first stream of a channel costs is not an idle one's
        streams = [listener.stream("bench") for _ in range(size)]
        for stream in streams:
            await stream.__aenter__()  # thousands cannot be nested
        memory = (resident() - before) / size
        tasks = [asyncio.create_task(_follow(one, streams_crowd)) for one in streams]
        tasks += [asyncio.create_task(_await_futures(waiting, futures_crowd)) for _ in streams]
        await asyncio.sleep(0)
        say("ready")
        for_streams, for_futures = list[float](), list[float]()
        for _ in range(repetitions):
            for_streams.append(await _measure(streams_crowd, ask))
            for_futures.append(await _measure(futures_crowd, set_all))
        say(
            "done",
            streams=statistics.median(for_streams),
            futures=statistics.median(for_futures),
            memory=memory,
        )
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


if __name__ == "__main__":
    run({"fanout": fanout})
