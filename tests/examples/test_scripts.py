from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Listener

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner, Program

LISTENER = "asyncnotify"
BLOCKED = """
    EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON l.database = d.oid
            WHERE d.datname = current_database() AND NOT l.granted)
"""


async def test_plain_script(fragile_runner: ExampleRunner) -> None:
    """It prints what comes, and after an outage that something may be missing, at that place."""
    runner = fragile_runner
    program = await runner.run("plain_script", "orders", "prices")
    await program.expect("listening on orders, prices")
    await runner.execute("NOTIFY orders, 'one'", "NOTIFY prices, 'two'")
    await program.expect("two")
    async with runner.outage():
        await runner.execute("NOTIFY orders, 'missed'")
    await program.expect("may be missing")
    await runner.execute("NOTIFY orders, 'three'")
    await program.expect("three")
    *before, lost, gap, after = program.lines
    assert before == ["listening on orders, prices", "orders: 'one'", "prices: 'two'"]
    assert lost.startswith("the connection to ")  # a warning in the log
    assert gap.startswith("reconnect: notifications sent since ")
    assert after == "orders: 'three'"
    await program.interrupt()


async def start_cache(runner: ExampleRunner) -> Program:
    """Start the example of a cache; return when it has answered from the cache."""
    await runner.execute(
        runner.load("cache_invalidation").SCHEMA, "INSERT INTO prices VALUES ('tea', 310)"
    )
    program = await runner.run("cache_invalidation", "tea", "0.02")
    await program.expect("tea: 310 cents after 1 queries")
    await program.expect("tea: 310 cents after 1 queries")
    return program


async def test_cache_forgets_what_has_changed(runner: ExampleRunner) -> None:
    """A price is asked for once, and once more after it has changed."""
    program = await start_cache(runner)
    await runner.execute("UPDATE prices SET cents = 320; NOTIFY prices, 'tea'")
    await program.expect("tea: 320 cents after 2 queries")
    await program.expect("tea: 320 cents after 2 queries")
    await program.interrupt()


async def test_cache_serves_no_stale_value_after_an_outage(fragile_runner: ExampleRunner) -> None:
    """The first answer after an outage is what has been written during the outage."""
    program = await start_cache(fragile_runner)
    async with fragile_runner.outage():
        await program.expect("no database")
        await fragile_runner.execute("UPDATE prices SET cents = 330; NOTIFY prices, 'tea'")
    assert "330 cents" in await program.expect("cents")
    await program.interrupt()


async def test_cache_is_not_believed_while_nobody_listens(runner: ExampleRunner) -> None:
    """While only the listener has lost its connection, every answer comes from the table."""
    program = await start_cache(runner)
    runner.proxy.refuse()
    await runner.terminate(LISTENER)
    await program.expect("after 2 queries")
    await runner.execute("UPDATE prices SET cents = 340; NOTIFY prices, 'tea'")
    await program.expect("340 cents")
    runner.proxy.accept()
    await program.interrupt()


GATE = """
    ALTER TABLE prices RENAME TO real_prices;
    CREATE FUNCTION gate() RETURNS bool LANGUAGE plpgsql VOLATILE
    AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END';
    CREATE VIEW prices AS SELECT product, cents FROM real_prices WHERE gate();
    INSERT INTO real_prices VALUES ('tea', 310)
"""


async def test_cache_keeps_nothing_that_changed_while_it_was_read(runner: ExampleRunner) -> None:
    """A value that was read before a change, but arrives after it, is not kept."""
    example, notified = runner.load("cache_invalidation"), asyncio.Event()
    await runner.execute(example.SCHEMA, GATE)
    async with (
        asyncpg.create_pool(runner.dsn, min_size=0) as pool,
        Listener(runner.dsn) as listener,
        runner.connect() as holder,
    ):
        prices = example.Prices(pool)
        await prices.follow(listener)
        await listener.listen("prices", lambda _: notified.set())
        await holder.execute("SELECT pg_advisory_lock(1)")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(prices.get("tea"))
            await runner.until(BLOCKED)
            await runner.execute("UPDATE real_prices SET cents = 320; NOTIFY prices, 'tea'")
            await notified.wait()
            await holder.execute("SELECT pg_advisory_unlock(1)")
        assert reading.result() == 310
        assert await prices.get("tea") == 320


async def test_r45_trigger(fragile_runner: ExampleRunner) -> None:
    """Every change of the table is told, and an outage where changes may be missing."""
    runner = fragile_runner
    program = await runner.run("trigger")
    await program.expect("start: read the table")
    await runner.execute("INSERT INTO products VALUES ('tea', 3.20)")
    await program.expect("tea costs 3.20")
    await runner.execute("UPDATE products SET sku = 'mate', price = 4")
    await program.expect("gone: tea")
    await program.expect("mate costs 4")
    async with runner.outage():
        await runner.execute("INSERT INTO products VALUES ('milk', 1), ('salt', 2)")
    await program.expect("reconnect: read the table")
    await runner.execute("DELETE FROM products WHERE sku = 'mate'")
    await program.expect("gone: mate")
    await runner.execute("TRUNCATE products")
    await program.expect("all products are gone")
    await program.interrupt()


async def test_r45_trigger_takes_keys_that_are_too_large(runner: ExampleRunner) -> None:
    """A row commits though its key does not fit in a notification: its reader reads again."""
    program = await runner.run("trigger")
    await program.expect("start: read the table")
    await runner.execute("INSERT INTO products VALUES (repeat('x', 8000), 1)")
    await program.expect("reread: read the table")
    await runner.execute("INSERT INTO products VALUES (repeat('y', 7000), 2)")
    await program.expect("y costs 2")
    await program.interrupt()


HIJACK = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION $$hijacked$$; END';
    CREATE FUNCTION evil.equal(text, text) RETURNS bool LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION $$hijacked$$; END';
    CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = text, RIGHTARG = text);
"""


async def test_r45_trigger_cannot_be_hijacked(runner: ExampleRunner) -> None:
    """Functions and operators found first on the search path of who writes are not run."""
    program = await runner.run("trigger")
    await program.expect("start: read the table")
    await runner.execute(HIJACK)
    async with runner.connect() as writer:
        await writer.execute("SET search_path = evil, pg_catalog, public")
        await writer.execute("INSERT INTO products VALUES ('tea', 3)")
    await program.expect("tea costs 3")
    await program.interrupt()
    again = await runner.run("trigger")
    await again.expect("start: read the table")
    await again.interrupt()


async def test_live_query(fragile_runner: ExampleRunner) -> None:
    """What is printed is what the query returns, also of what an outage has hidden."""
    runner = fragile_runner
    program = await runner.run("live_query")
    await program.expect("no products")
    await runner.execute("INSERT INTO products VALUES ('tea', 3.20), ('gold', 4000)")
    await program.expect("tea 3.20")
    await runner.execute("UPDATE products SET sku = 'mate', price = 4 WHERE sku = 'tea'")
    await program.expect("mate 4")
    await runner.execute("UPDATE products SET price = price * 3")
    await program.expect("no products")
    async with runner.outage():
        await runner.execute("UPDATE products SET price = 5")
    await program.expect("gold 5, mate 5")
    await runner.execute("TRUNCATE products")
    await program.expect("no products")
    await program.interrupt()
