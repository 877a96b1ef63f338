"""The dict of examples/live_query.py equals its query, whatever is written and whatever breaks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import ExponentialBackoff, Listener
from tests.support.machine import scaled

if TYPE_CHECKING:
    from types import ModuleType

    from tests.examples.conftest import ExampleRunner

    Connection = asyncpg.Connection[asyncpg.Record]

ROUNDS_BETWEEN_FENCES: Final = 4
STATEMENTS: Final = (
    """INSERT INTO products SELECT 'p' || n, {b} FROM generate_series({a}, {a} + 5) n
       ON CONFLICT (sku) DO UPDATE SET price = products.price + 1""",
    "INSERT INTO products VALUES ('p{a}', {b}) ON CONFLICT DO NOTHING",
    "UPDATE products SET price = {b} WHERE price BETWEEN {a} AND {a} + 3",
    "UPDATE products SET price = 20 - price",
    """UPDATE products SET sku = 'p{b}' WHERE sku = 'p{a}'
       AND NOT EXISTS (SELECT FROM products WHERE sku = 'p{b}')""",
    """WITH gone AS (DELETE FROM products WHERE sku = 'p{a}' RETURNING *)
       INSERT INTO products SELECT 'q' || sku, price FROM gone ON CONFLICT DO NOTHING""",
    "DELETE FROM products WHERE price < {b} AND sku <> 'p{a}'",
    "DELETE FROM products WHERE length(sku) > 20",
    "TRUNCATE products",
    # too long for a notification, and too many for those of one statement
    "INSERT INTO products VALUES (repeat('x', 8000) || {a}, {b}) ON CONFLICT DO NOTHING",
    """INSERT INTO products SELECT repeat(md5({a}::text), 20) || n, {b}
       FROM generate_series(1, 300) n ON CONFLICT DO NOTHING""",
)


class LiveQueryHarness:
    """The example's query through a network that fails, and a writer that nothing disturbs."""

    def __init__(self, runner: ExampleRunner, writer: Connection, chance: random.Random) -> None:
        self.runner = runner
        self.writer = writer
        self.chance = chance
        self.example: ModuleType = runner.load("live_query")
        self.rows: dict[Any, Any] = {}
        self.fences = 0
        self._news = asyncio.Event()

    def on_read(self, rows: dict[Any, Any]) -> None:
        """Note what the example keeps."""
        self.rows = rows
        self._news.set()

    async def write(self) -> None:
        """Run some statements in a transaction, which may be rolled back."""
        transaction = self.writer.transaction()
        await transaction.start()
        for _ in range(self.chance.randrange(1, 4)):
            a, b = self.chance.randrange(20), self.chance.randrange(20)
            await self.writer.execute(self.chance.choice(STATEMENTS).format(a=a, b=b))
        await (transaction.rollback() if self.chance.random() < 0.2 else transaction.commit())

    async def break_something(self) -> None:
        """Break the listener's connection or those that read, in one way or another."""
        proxy = self.runner.proxy
        match self.chance.randrange(6):
            case 0:
                proxy.reset()
            case 1:
                proxy.fin()
            case 2:
                await self.runner.terminate("asyncnotify")
            case 3:
                await self.runner.terminate("")  # those that read
            case 4:
                proxy.refuse()
                proxy.reset()
            case _:
                proxy.black_hole()

    async def compare(self) -> None:
        """Write a row; once the example has it, it has all that was written before, and no more."""
        self.runner.proxy.heal()
        self.runner.proxy.accept()
        self.fences += 1
        fence = f"fence {self.fences}"
        await self.writer.execute("INSERT INTO products VALUES ($1, 1)", fence)
        async with asyncio.timeout(scaled(20.0)):
            while fence not in self.rows:
                self._news.clear()
                await self._news.wait()
        rows = await self.writer.fetch(self.example.QUERY)
        assert self.rows == {row["sku"]: row for row in rows}


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [
        (1, 100),
        pytest.param(2, 2_000, marks=[pytest.mark.soak, pytest.mark.timeout(400)]),
    ],
)
async def test_r46_a_live_query_equals_the_query_at_every_fence(
    runner: ExampleRunner, seed: int, rounds: int
) -> None:
    """After statements at random, and with connections that are cut, refused and silent."""
    chance = random.Random(seed)
    listener = Listener(
        runner.proxy.proxied_dsn(runner.dsn),
        heartbeat=0.3,
        heartbeat_timeout=scaled(0.3),
        backoff=ExponentialBackoff(initial=0.01, cap=0.2),
    )
    async with runner.connect() as writer, asyncpg.create_pool(runner.dsn, min_size=0) as pool:
        harness = LiveQueryHarness(runner, writer, chance)
        example = harness.example
        await writer.execute(example.SCHEMA)
        await example.products.install(writer)
        query = example.LiveQuery(pool, example.products, example.QUERY, harness.on_read)
        async with listener, asyncio.TaskGroup() as group:
            following = group.create_task(query.follow(listener))
            for number in range(1, rounds + 1):
                if chance.random() < 0.3:
                    await harness.break_something()
                await harness.write()
                if number % ROUNDS_BETWEEN_FENCES == 0:
                    await harness.compare()
            stats = listener.stats()
            following.cancel()
    assert harness.fences == rounds // ROUNDS_BETWEEN_FENCES
    assert min(stats.delivered, stats.reconnects, stats.rereads) > 5, stats
    assert stats.decode_errors == 0
