"""asyncpg by itself: its ``add_listener``, and what its parser costs without that."""

from __future__ import annotations

import asyncio
import contextlib
import time

import asyncpg

from benchmarks.peers.driver import Connection
from benchmarks.peers.protocol import Meter, Options, run, say


async def callback(options: Options) -> None:
    """Count in a plain function: the least that can be done."""
    count, received, all_here = options.number("count"), 0, asyncio.Event()

    def count_one(*_: object) -> None:
        nonlocal received
        received += 1
        if received == count:
            all_here.set()

    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener("bench", count_one)
    meter = Meter.ready()
    await all_here.wait()
    say("done", received=received, **meter.read())
    await connection.close()


async def queue(options: Options) -> None:
    """Put them into an asyncio.Queue and take them from there, as one has to for a loop."""
    count, received = options.number("count"), 0
    waiting: asyncio.Queue[object] = asyncio.Queue()

    def put(_: object, __: int, ___: str, payload: object) -> None:
        waiting.put_nowait(payload)

    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener("bench", put)
    meter = Meter.ready()
    while received < count:
        await waiting.get()
        received += 1
    say("done", received=received, **meter.read())
    await connection.close()


async def stuck(options: Options) -> None:
    """Put them into a queue that nobody takes from."""
    count, waiting = options.number("count"), asyncio.Queue[object]()

    def put(_: object, __: int, ___: str, payload: object) -> None:
        waiting.put_nowait(payload)

    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener("bench", put)
    meter = Meter.ready()
    while waiting.qsize() < count:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    say("done", received=waiting.qsize(), **meter.read())
    await connection.close()


async def parser(options: Options) -> None:
    """Count where the driver's parser hands them over, before anything is done with them."""
    count, received, all_here = options.number("count"), 0, asyncio.Event()

    class Hooked(Connection):
        """A connection that only counts."""

        def _process_notification(self, *_: object) -> None:
            nonlocal received
            received += 1
            if received == count:
                all_here.set()

    connection = await asyncpg.connect(options.dsn, connection_class=Hooked)
    await connection.execute("LISTEN bench")
    meter = Meter.ready()
    await all_here.wait()
    say("done", received=received, **meter.read())
    await connection.close()


async def latency(options: Options) -> None:
    """Note how old each notification is when its callback runs."""
    count, ages, all_here = options.number("count"), list[int](), asyncio.Event()

    def note(_: object, __: int, ___: str, payload: object) -> None:
        ages.append(time.monotonic_ns() - int(str(payload)))
        if len(ages) == count:
            all_here.set()

    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener("bench", note)
    say("ready")
    await all_here.wait()
    say("done", ages=ages)
    await connection.close()


async def recovery(options: Options) -> None:
    """Tell when something arrives that was sent after the loss."""
    back = asyncio.Event()
    connection = await asyncpg.connect(options.dsn)

    def tell(*_: object) -> None:
        back.set()

    await connection.add_listener("bench", tell)
    say("ready")
    await back.wait()
    say("back")


async def by_hand(options: Options) -> None:
    """Connect anew as soon as the connection is gone: the soonest that the driver can."""
    lost, back = asyncio.Event(), asyncio.Event()

    def note_loss(_: object) -> None:
        lost.set()

    def tell(*_: object) -> None:
        back.set()

    connection = await asyncpg.connect(options.dsn)
    connection.add_termination_listener(note_loss)
    await connection.add_listener("bench", _ignore)
    say("ready")
    await lost.wait()
    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener("bench", tell)
    await back.wait()
    say("back")
    await connection.close()


async def listen(options: Options) -> None:
    """Listen on many channels, one after the other."""
    connection = await asyncpg.connect(options.dsn)
    say("ready")
    meter = Meter()
    for number in range(options.number("channels")):
        await connection.add_listener(f"channel_{number}", _ignore)
    say("done", **meter.read())
    await connection.close()


async def idle(options: Options) -> None:
    """Listen, and do nothing for a while."""
    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener("bench", _ignore)
    meter = Meter.ready()
    await asyncio.sleep(options.number("seconds"))
    say("done", **meter.read())
    await connection.close()


def _ignore(*_: object) -> None:
    pass


WORKLOADS = {
    "callback": callback,
    "queue": queue,
    "stuck": stuck,
    "parser": parser,
    "latency": latency,
    "recovery": recovery,
    "by_hand": by_hand,
    "listen": listen,
    "idle": idle,
}

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run(WORKLOADS)
