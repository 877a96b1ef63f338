"""The examples of the durable log."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp

from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner


async def test_the_outbox_mails_each_order_once(runner: ExampleRunner) -> None:
    """Those that were committed, by two processes at once as well, and none that was not."""
    await (await runner.run("log_outbox", "0")).end()
    programs = [await runner.run("log_outbox", "5") for _ in range(2)]
    for program in programs:
        await program.end()
    async with runner.connect() as connection:
        rows = await connection.fetch("SELECT subject FROM mails")
        orders = await connection.fetch("SELECT id FROM orders")
    assert sorted(row[0] for row in rows) == sorted(f"your order {row[0]}" for row in orders)
    assert len(rows) == 10


async def test_the_read_model_is_made_anew(runner: ExampleRunner) -> None:
    """With the same result."""
    program = await runner.run("log_read_model")
    await program.end()
    balances = ["ann: 300", "bob: 300"]
    assert program.lines == [*balances, "made anew from the first event:", *balances]


async def read(response: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    """Return the next server-sent events, each with its fields."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    async with asyncio.timeout(scaled(20)):
        async for line in response.content:
            name, _, value = line.decode().strip().partition(": ")
            if value:
                fields[name] = value
            elif "event" in fields:
                found.append(fields)
                fields = {}
            if len(found) == count:
                break
    return found


async def test_a_browser_that_comes_back_gets_what_it_has_missed(runner: ExampleRunner) -> None:
    """From the id of the last event that it got, to a new request."""
    port = runner.keep_port()
    program = await runner.run("log_sse", PORT=str(port))
    await program.expect("Uvicorn running on")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/events") as response:
            await read(response, 1)
            await session.post("/orders/1")
            [event] = await read(response, 1)
            assert json.loads(event["data"]) == "1"
        await session.post("/orders/2")
        await session.post("/orders/3")
        async with session.get("/events", headers={"Last-Event-ID": event["id"]}) as response:
            _, second, third = await read(response, 3)
            assert (json.loads(second["data"]), json.loads(third["data"])) == ("2", "3")
        async with session.get("/events", headers={"Last-Event-ID": "nonsense"}) as response:
            assert response.status == 400
    await program.interrupt()
