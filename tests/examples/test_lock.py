from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncnotify.lock import Lock, Locks

if TYPE_CHECKING:
    from tests.examples.conftest import ExampleRunner, Program

# Those that wait are in the middle of nothing: they have tried in vain
TRIED = """
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND query ~ 'pg_try_advisory_lock' AND state = 'idle')
"""


async def counted(programs: list[Program]) -> list[int]:
    """Wait until these programs have counted; return the values they came to, in order."""
    for program in programs:
        await program.end()
    lines = [line.split() for program in programs for line in program.lines]
    return sorted(int(words[1]) for words in lines if words[0] == "counted")


async def test_lock_keeps_others_out(runner: ExampleRunner) -> None:
    """Three programs add to one counter, in two steps each, and no addition is lost."""
    programs = [await runner.run("lock", "3") for _ in range(3)]
    assert await counted(programs) == list(range(1, 10))


async def test_lock_keeps_others_out_across_an_outage(fragile_runner: ExampleRunner) -> None:
    """No value is counted twice, and nobody waits for ever, though the locks are lost."""
    runner = fragile_runner
    async with Locks(runner.dsn) as locks:
        await locks.install()
        async with Lock(locks, "counter"):
            programs = [await runner.run("lock", "5") for _ in range(2)]
            await runner.until(f"2 = {TRIED}")
        for program in programs:
            await program.expect("counted")
    async with runner.outage():
        pass
    values = await counted(programs)
    assert len(values) == len(set(values)) == 10


async def test_leader_is_followed_by_another(runner: ExampleRunner) -> None:
    """When it is interrupted, when it is killed, and when it is asked to resign."""
    first = await runner.run("leader")
    await first.expect("tick 1")
    second = await runner.run("leader")
    await first.interrupt()
    assert "resigned" in first.said
    await second.expect("leading with token 2")
    third = await runner.run("leader")
    await second.kill()
    await third.expect("leading with token 3")
    fourth = await runner.run("leader")
    await listening(runner)
    await (await runner.run("leader", "resign")).end()
    await fourth.expect("leading with token 4")
    assert "resigned" in await third.expect("resigned")
    for program in (third, fourth):
        await program.interrupt()


async def listening(runner: ExampleRunner) -> None:
    """Wait until both programs listen: one leads, one waits."""
    await asyncio.sleep(0)
    await runner.until("""
        2 = (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND query ~ 'pg_listening_channels' AND state = 'idle')
    """)
