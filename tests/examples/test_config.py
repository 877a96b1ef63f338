"""The settings of examples/config_reload.py: typed, replaced as a whole, and never wrong ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify import Listener
from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner, Program

BLOCKED: Final = """
    EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON l.database = d.oid
            WHERE d.datname = current_database() AND NOT l.granted)
"""
THE_REST: Final = ""  # an application_name: what the example opens for queries of its own
PUT: Final = """
    INSERT INTO settings VALUES ('{0}', '{1}') ON CONFLICT (name) DO UPDATE SET value = '{1}';
    NOTIFY settings
"""


async def put(runner: ExampleRunner, name: str, value: object) -> None:
    """Change a setting, and say so in the same transaction."""
    await runner.execute(PUT.format(name, value))


async def start_config(runner: ExampleRunner) -> Program:
    """Start the example; return when it has read an empty table."""
    program = await runner.run("config_reload")
    await program.expect("settings: colour='red' low=1 high=10")
    return program


async def test_config_is_right_after_an_outage(fragile_runner: ExampleRunner) -> None:
    """Settings are read when they change, and when a change may have been missed."""
    program = await start_config(fragile_runner)
    await put(fragile_runner, "colour", "green")
    await program.expect("settings: colour='green' low=1 high=10")
    async with fragile_runner.outage():
        await put(fragile_runner, "colour", "blue")
    await program.expect("settings: colour='blue' low=1 high=10")
    await program.interrupt()


async def test_config_is_read_once_for_many_notifications(runner: ExampleRunner) -> None:
    """What is notified while the settings are being read leads to one more reading."""
    program = await start_config(runner)
    async with runner.connect() as holder, holder.transaction():
        await holder.execute("LOCK settings IN ACCESS EXCLUSIVE MODE")
        await runner.execute("NOTIFY settings")
        await runner.until(BLOCKED)
        await runner.execute(
            "SELECT pg_notify('settings', n::text) FROM generate_series(1, 1000) n"
        )
    for n in range(100, 120):  # were a thousand readings due, many would come between these
        await put(runner, "high", n)
        await program.expect(f"high={n}")
    assert len(program.lines) < 40
    await program.interrupt()


async def test_config_is_read_again_when_the_reading_fails(runner: ExampleRunner) -> None:
    """A notification is answered though the connection dies under the question."""
    program = await start_config(runner)
    async with runner.connect() as holder, holder.transaction():
        await holder.execute("LOCK settings IN ACCESS EXCLUSIVE MODE")
        await holder.execute("INSERT INTO settings VALUES ('colour', 'green')")
        await runner.execute("NOTIFY settings")
        await runner.until(BLOCKED)
        await runner.terminate(THE_REST)
        await program.expect("still the old settings")
    await program.expect("settings: colour='green'")
    await program.interrupt()


async def test_config_that_is_wrong_is_refused_with_the_reason(runner: ExampleRunner) -> None:
    """Of one setting, of two together, of a name; the next that is right is taken whole."""
    program = await start_config(runner)
    await put(runner, "colour", "secret")
    assert "colour: Input should be 'red', 'green'" in await program.expect("refused")
    await put(runner, "low", "20")
    assert "colour:" in await program.expect("refused")
    await put(runner, "colour", "blue")
    assert "together: Value error, low is above high" in await program.expect("refused")
    await put(runner, "colur", "blue")
    assert "colur: Extra inputs are not permitted" in await program.expect("refused")
    await runner.execute("DELETE FROM settings WHERE name = 'colur'")
    await put(runner, "high", "30")
    await program.expect("settings: colour='blue' low=20 high=30")
    assert "secret" not in program.said
    await program.interrupt()


async def test_config_that_is_wrong_at_the_start_waits_for_a_right_one(
    runner: ExampleRunner,
) -> None:
    """The program says why, and has its settings as soon as they are mended."""
    example = runner.load("config_reload")
    await runner.execute(example.SCHEMA)
    await put(runner, "high", "much")
    program = await runner.run("config_reload")
    assert "high: Input should be a valid integer" in await program.expect("refused")
    await put(runner, "high", "99")
    await program.expect("settings: colour='red' low=1 high=99")
    await program.interrupt()


async def follow_pairs(configuration: Any, last: int, seen: set[tuple[int, int]]) -> None:
    """Note which two settings are in force together, until the last ones are."""
    async with asyncio.timeout(scaled(20.0)):
        while configuration.current.low != last:
            settings = configuration.current
            seen.add((settings.low, settings.high))
            await asyncio.sleep(0)


async def test_config_is_never_half_of_the_old_and_half_of_the_new(runner: ExampleRunner) -> None:
    """Two settings change in one transaction; no reader sees one of them without the other."""
    example, seen = runner.load("config_reload"), set[tuple[int, int]]()
    await runner.execute(example.SCHEMA)
    dsn = runner.proxy.proxied_dsn(runner.dsn)
    async with (
        asyncpg.create_pool(dsn, min_size=0) as pool,
        Listener(dsn) as listener,
        asyncio.TaskGroup() as group,
    ):
        configuration = example.Configuration(pool)
        reload = configuration.reload
        await listener.listen("settings", reload, resync=reload, latest=True)
        reading = group.create_task(follow_pairs(configuration, 100, seen))
        for n in range(2, 101):
            await runner.execute(PUT.format("low", n) + ";" + PUT.format("high", 10 * n))
            if n % 10 == 0 and n < 100:
                await runner.execute(PUT.format("low", 500) + ";" + PUT.format("high", 400))
            if n % 30 == 0:
                runner.proxy.reset()
        await reading
    assert len(seen) > 10
    assert all(high == 10 * low for low, high in seen), seen
    assert configuration.current.high == 1000
