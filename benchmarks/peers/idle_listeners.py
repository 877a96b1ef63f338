"""Sessions that listen on another channel and hear nothing: what they cost those who notify."""

from __future__ import annotations

import asyncio

import asyncpg

from benchmarks.peers.protocol import Options, run, say


async def listeners(options: Options) -> None:
    """Listen with so many sessions, until ended."""
    count = options.number("sessions")
    connections = [await asyncpg.connect(options.dsn) for _ in range(count)]
    for connection in connections:
        await connection.execute("LISTEN elsewhere")
    say("ready")
    await asyncio.Event().wait()


if __name__ == "__main__":
    run({"listeners": listeners})
