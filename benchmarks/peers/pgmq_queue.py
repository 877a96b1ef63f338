"""pgmq: its functions in SQL, called by asyncpg; and its own client, which costs more."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import asyncpg

from benchmarks.peers.protocol import Options, run, say
from benchmarks.peers.queues import Ages, Progress, portions

_INSTALLED = "SELECT to_regclass('pgmq.meta') IS NOT NULL"
_DROP = "SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues()"
_CREATE = "SELECT pgmq.create('bench')"
_NOTIFY = "SELECT pgmq.enable_notify_insert('bench', 0)"
_CHANNEL = "pgmq.q_bench.INSERT"
_SEND = "SELECT * FROM pgmq.send(queue_name => 'bench', msg => <payload>::text::jsonb)"
_FILL = """
    SELECT count(*) FROM pgmq.send_batch('bench', (
        SELECT array_agg(<payload>::jsonb) FROM generate_series($1::int, $2::int) AS number
    ))
"""
_READ = "SELECT * FROM pgmq.read('bench', 60, $1)"
_READ_WITH_POLL = "SELECT * FROM pgmq.read_with_poll('bench', 60, 100)"
_POP = "SELECT * FROM pgmq.pop('bench', $1)"
_DELETE = "SELECT pgmq.delete('bench', $1::bigint[])"


async def fill(options: Options) -> None:
    """Make the queue anew, with so many messages."""
    connection = await asyncpg.connect(options.dsn)
    if not await connection.fetchval(_INSTALLED):
        installer: Any = importlib.import_module("pgmq.install")
        await connection.execute(installer.get_embedded_install_sql())
    await connection.execute(_DROP)
    await connection.execute(_CREATE)
    if options.text("wake") == "true":
        await connection.execute(_NOTIFY)
    for statement, first, last in portions(_FILL, options.number("count")):
        await connection.execute(statement, first, last)
    await connection.close()
    say("done")


async def statement(_: Options) -> None:
    """Tell how a message is sent."""
    say("statement", sql=_SEND)


async def consume(options: Options) -> None:
    """Read batches, and delete each."""
    progress, size = Progress(options), options.number("batch")
    connection = await asyncpg.connect(options.dsn)
    read, delete = await connection.prepare(_READ), await connection.prepare(_DELETE)
    say("ready")
    while not progress.is_done:
        rows = await read.fetch(size)
        await delete.fetch([row["msg_id"] for row in rows])
        progress.add(len(rows))
    progress.tell()


async def client(options: Options) -> None:
    """Do the same by pgmq's own client, which makes an object of each message."""
    progress, size = Progress(options), options.number("batch")
    package: Any = importlib.import_module("pgmq.async_queue")
    queue = package.PGMQueue(conn_string=options.dsn, init_extension=False, pool_size=1)
    await queue.init()
    say("ready")
    while not progress.is_done:
        messages = await queue.read_batch("bench", vt=60, batch_size=size)
        await queue.delete_batch("bench", [message.msg_id for message in messages])
        progress.add(len(messages))
    progress.tell()
    await queue.close()


async def pop(options: Options) -> None:
    """Pop batches, which reads and deletes at once: a crash of the consumer loses them."""
    progress, size = Progress(options), options.number("batch")
    connection = await asyncpg.connect(options.dsn)
    statement = await connection.prepare(_POP)
    say("ready")
    while not progress.is_done:
        progress.add(len(await statement.fetch(size)))
    progress.tell()


async def _take(connection: Any, query: str, ages: Ages, *arguments: int) -> int:  # noqa: ANN401 - asyncpg's
    rows = await connection.fetch(query, *arguments)
    for row in rows:
        ages.note(row["message"])
    await connection.fetch(_DELETE, [row["msg_id"] for row in rows])
    return len(rows)


async def latency(options: Options) -> None:
    """Note how old each message is; the server looks every 100 ms."""
    ages = Ages(options)
    connection = await asyncpg.connect(options.dsn)
    say("ready")
    while not ages.all_here.is_set():
        await _take(connection, _READ_WITH_POLL, ages)
    ages.tell()


async def notified_latency(options: Options) -> None:
    """Note how old each message is; a notification says when to read."""
    ages, news = Ages(options), asyncio.Event()

    def note(*_: object) -> None:
        news.set()

    connection = await asyncpg.connect(options.dsn)
    await connection.add_listener(_CHANNEL, note)
    say("ready")
    while not ages.all_here.is_set():
        await news.wait()
        news.clear()
        while await _take(connection, _READ, ages, 100):
            pass
    ages.tell()


WORKLOADS = {
    "fill": fill,
    "statement": statement,
    "consume": consume,
    "client": client,
    "pop": pop,
    "latency": latency,
    "notified_latency": notified_latency,
}

if __name__ == "__main__":
    run(WORKLOADS)
