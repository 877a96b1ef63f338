"""The cache of examples/cache_invalidation.py is never stale after a Gap, whatever breaks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import ConnectionLost, ExponentialBackoff, Listener, Reconnected
from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import ConnectionEvent, Gap, Notification
    from tests.examples.conftest import ExampleRunner

    Connection = asyncpg.Connection[asyncpg.Record]

PRODUCTS: Final = ("tea", "mate", "milk")
READERS: Final = 3
ROUNDS_BETWEEN_FENCES: Final = 4
SLOW_ANSWER: Final = 0.003  # seconds: a notification overtakes a value that was read before it


def watch(prices: Any, on_forgotten: Callable[[str], None]) -> None:
    """Call a function with each product that the example's cache has forgotten."""
    forget_one, forget_all = prices.forget, prices.forget_all

    def forget(notification: Notification[str]) -> None:
        forget_one(notification)
        on_forgotten(notification.payload)

    def forget_each(*gap: Gap) -> None:
        forget_all(*gap)
        for product in PRODUCTS:
            on_forgotten(product)

    prices.forget, prices.forget_all = forget, forget_each


class CacheHarness:
    """The example's cache, those who read it, and a writer that nothing disturbs."""

    def __init__(self, runner: ExampleRunner, writer: Connection, chance: random.Random) -> None:
        self.runner = runner
        self.writer = writer
        self.chance = chance
        self.prices: Any = None
        self.committed: dict[str, int] = dict.fromkeys(PRODUCTS, 0)
        self.oldest_allowed = dict(self.committed)
        self.stale: list[tuple[str, int, ConnectionEvent]] = []
        self.reads = 0
        self.fences = 0

    def note_forgotten(self, product: str) -> None:
        """Allow nothing older than what is committed by now to reads that begin from here on."""
        self.oldest_allowed[product] = self.committed[product]

    def on_event(self, event: ConnectionEvent) -> None:
        """Pass events to the cache; from a loss, and from a new connection on, nothing is stale."""
        self.prices.on_event(event)
        if isinstance(event, ConnectionLost | Reconnected):
            self.oldest_allowed = dict(self.committed)
            self.stale += [
                (product, price, event)
                for product, oldest in self.oldest_allowed.items()
                if (price := self.prices.cached(product)) is not None and price < oldest
            ]

    async def read(self) -> None:
        """Read at random until cancelled; no price is older than what the cache must know."""
        while True:
            product = self.chance.choice(PRODUCTS)
            oldest = self.oldest_allowed[product]
            assert await self.prices.get(product) >= oldest
            self.reads += 1
            await asyncio.sleep(0)  # a price from the cache lets nobody else run

    async def write(self) -> None:
        """Raise a price and say so in the same transaction, which may be rolled back."""
        product = self.chance.choice(PRODUCTS)
        transaction = self.writer.transaction()
        await transaction.start()
        await self.writer.execute(
            f"UPDATE prices SET cents = cents + 1 WHERE product = '{product}';"
            f"NOTIFY prices, '{product}'"
        )
        if self.chance.random() < 0.2:
            await transaction.rollback()
        else:
            await transaction.commit()
            self.committed[product] += 1

    async def break_something(self) -> None:
        """Break the listener's connection in one way or another."""
        proxy = self.runner.proxy
        match self.chance.randrange(5):
            case 0:
                proxy.reset()
            case 1:
                proxy.fin()
            case 2:
                await self.runner.terminate("asyncnotify")
            case 3:
                proxy.refuse()
                proxy.reset()
            case _:
                proxy.black_hole()

    async def compare(self, listener: Listener) -> None:
        """End all faults: every price comes from the cache, and is the one in the table."""
        self.runner.proxy.heal()
        self.runner.proxy.accept()
        self.fences += 1
        async with asyncio.timeout(scaled(20.0)):
            await listener.wait_connected()
            while not await self._is_right_and_cached():
                pass

    async def _is_right_and_cached(self) -> bool:
        await asyncio.sleep(0)  # if all comes from the cache, nothing below lets others run
        queries = self.prices.queries
        found = {product: await self.prices.get(product) for product in PRODUCTS}
        return self.prices.queries == queries and found == self.committed


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [
        (1, 100),
        pytest.param(2, 2_000, marks=[pytest.mark.soak, pytest.mark.timeout(400)]),
    ],
)
async def test_the_cache_is_never_stale_once_a_gap_is_handled(
    runner: ExampleRunner, seed: int, rounds: int
) -> None:
    """Nor from the moment that a loss is known; with reads, writes and faults at random."""
    async with runner.connect() as writer, FaultProxy.for_dsn(runner.dsn) as slow:
        harness = CacheHarness(runner, writer, random.Random(seed))
        example = runner.load("cache_invalidation")
        await writer.execute(example.SCHEMA)
        await writer.executemany("INSERT INTO prices VALUES ($1, 0)", [(p,) for p in PRODUCTS])
        slow.delay(to_client=SLOW_ANSWER)
        async with asyncpg.create_pool(slow.proxied_dsn(runner.dsn), min_size=0) as pool:
            harness.prices = example.Prices(pool)
            watch(harness.prices, harness.note_forgotten)
            listener = Listener(
                runner.proxy.proxied_dsn(runner.dsn),
                heartbeat=0.3,
                heartbeat_timeout=scaled(0.3),
                backoff=ExponentialBackoff(initial=0.01, cap=0.2),
                on_event=harness.on_event,
            )
            async with listener:
                await harness.prices.follow(listener)
                await run_rounds(harness, listener, rounds)
            stats = listener.stats()
    assert not harness.stale
    assert harness.fences == rounds // ROUNDS_BETWEEN_FENCES
    assert min(stats.delivered, stats.reconnects) > 5, stats
    assert harness.reads > 2 * harness.prices.queries, "the cache was of no use"


async def run_rounds(harness: CacheHarness, listener: Listener, rounds: int) -> None:
    """Write and break while others read, and compare now and then."""
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(harness.read()) for _ in range(READERS)]
        for number in range(1, rounds + 1):
            if harness.chance.random() < 0.3:
                await harness.break_something()
            await harness.write()
            if number % ROUNDS_BETWEEN_FENCES == 0:
                await harness.compare(listener)
        for reader in readers:
            reader.cancel()
