"""The tables of examples/shop.py agree in the end, whatever has been killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner, Program

FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
IN_STOCK = 1_000
BUY = """
    WITH taken AS (UPDATE stock SET quantity = quantity - 1 WHERE sku = 'tea' RETURNING sku)
    INSERT INTO orders (sku, quantity, customer) SELECT sku, 1, $1 FROM taken
"""
ALL_MAILED = """
    (SELECT count(*) FROM mails)
    >= (SELECT count(*) FROM orders) + (SELECT count(*) FROM registrations)
"""
EXPECTED_MAILS = """
    SELECT customer AS recipient, 'your order ' || id AS subject FROM orders
    UNION ALL SELECT email, 'welcome' FROM registrations
"""


async def trade(runner: ExampleRunner, first: int, count: int) -> None:
    """Order and register so many times, or until the connection is taken away."""
    with contextlib.suppress(*FAILURES):
        async with runner.connect() as connection:
            for number in range(first, first + count):
                await connection.execute(BUY, f"customer {number}")
                await connection.execute("INSERT INTO registrations VALUES ($1)", f"{number}")


async def start_shop(runner: ExampleRunner) -> Program:
    """Start the shop; return once it follows its tables, of which each has been read at its Gap."""
    program = await runner.run("shop")
    configuration = "configuration: greeting='welcome' scarce_below=5"
    await program.expect_all(configuration, "scarce: nothing", "scarce: nothing")
    return program


async def test_stock_orders_and_mails_agree_after_an_outage(fragile_runner: ExampleRunner) -> None:
    """Each order and each registration is mailed once, and what is scarce is what the table has."""
    runner = fragile_runner
    program = await start_shop(runner)
    await runner.execute(f"INSERT INTO stock VALUES ('tea', {IN_STOCK}, 'A1'), ('salt', 3, 'A2')")
    await program.expect("scarce: salt 3")
    async with asyncio.TaskGroup() as group:
        group.create_task(trade(runner, 1, 100))
        await program.expect("mailed to customer 5")
        async with runner.outage():
            await trade(runner, 101, 5)
            await runner.execute("UPDATE stock SET quantity = 2 WHERE sku = 'salt'")
    await program.expect("scarce: salt 2")
    await runner.until(ALL_MAILED)
    async with runner.connect() as connection:
        mails = await connection.fetch("SELECT recipient, subject FROM mails")
        expected = await connection.fetch(EXPECTED_MAILS)
        left = await connection.fetchval("SELECT quantity FROM stock WHERE sku = 'tea'")
        bought = await connection.fetchval("SELECT count(*) FROM orders")
    assert sorted(map(tuple, mails)) == sorted(map(tuple, expected))
    assert left == IN_STOCK - bought


async def test_what_stops_to_be_scarce_is_told(runner: ExampleRunner) -> None:
    """And what moves to another shelf is not."""
    program = await start_shop(runner)
    await runner.execute("INSERT INTO stock VALUES ('tea', 3, 'A1')")
    await program.expect("scarce: tea 3")
    await runner.execute("UPDATE stock SET shelf = 'B7'", "UPDATE stock SET quantity = 30")
    assert await program.expect("scarce") == "scarce: nothing\n"
    await program.interrupt()


async def test_a_configuration_that_cannot_be_is_refused(runner: ExampleRunner) -> None:
    """The old one goes on as a whole, until one comes that can be."""
    program = await start_shop(runner)
    await runner.execute(
        "INSERT INTO stock VALUES ('tea', 3, 'A1')",
        "INSERT INTO configuration VALUES ('greeting', 'hello'), ('scarce_below', 'a few')",
    )
    await program.expect("configuration refused, because of scarce_below")
    await runner.execute("INSERT INTO registrations VALUES ('ann')")
    await program.expect("welcomed ann")
    await runner.until("(SELECT subject FROM mails) = 'welcome'")
    await runner.execute("UPDATE configuration SET value = '2' WHERE name = 'scarce_below'")
    await program.expect("configuration: greeting='hello' scarce_below=2")
    await program.expect("scarce: nothing")
    await program.interrupt()
