from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner


async def test_threads_share_orders_and_keep_prices(fragile_runner: ExampleRunner) -> None:
    """Orders are worked off, prices are kept, both also after an outage; Ctrl-C ends it."""
    runner = fragile_runner
    program = await runner.run("threads")
    await program.expect("waiting for orders")
    await runner.execute("NOTIFY prices, 'tea=310'")
    await program.expect("tea costs 310")
    await runner.execute("NOTIFY orders, '1'")
    await program.expect("order 1 is done; 1 prices are known")
    async with runner.outage():
        await runner.execute("NOTIFY prices, 'tea=320'")
    await program.expect("prices read anew: reconnect")
    await runner.execute("NOTIFY orders, '2'")
    await program.expect("order 2 is done; 0 prices are known")
    await program.interrupt()


async def test_a_bad_price_concerns_nobody_else(runner: ExampleRunner) -> None:
    """What a handler raises is logged, and the next price is kept."""
    program = await runner.run("threads")
    await program.expect("waiting for orders")
    await runner.execute("NOTIFY prices, 'cheap'", "NOTIFY prices, 'tea=310'")
    await program.expect("the handler of 'prices' raised")
    await program.expect("in on_price")
    await program.expect("tea costs 310")
