from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import Listener

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    from tests.examples.conftest import ExampleRunner, Program

NEVER = 1_000.0  # seconds: far more than a test may take
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
# A listener asks that of the server behind its first LISTEN
WAITING = f"({SESSIONS} AND query ~ 'pg_listening_channels' AND state = 'idle')"
TRIED = f"({SESSIONS} AND query ~ 'pg_try_advisory_lock' AND state = 'idle')"


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
    runner, example = fragile_runner, fragile_runner.load("lock")
    async with runner.connect() as holder:
        await holder.fetch(example.TRY, "counter")
        programs = [await runner.run("lock", "5") for _ in range(2)]
        await runner.until(f"2 = {WAITING}")
        await holder.fetch(example.RELEASE, "counter")
    async with runner.outage():
        for program in programs:
            await program.expect("the connection to")
    values = await counted(programs)
    assert len(values) == len(set(values)) == 10


async def take(lock: AbstractAsyncContextManager[object]) -> None:
    """Wait for a lock, and give it back."""
    async with lock:
        pass


@pytest.fixture
def example(runner: ExampleRunner, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, for this process to take part."""
    monkeypatch.setenv("DATABASE_URL", runner.dsn)
    return runner.load("lock")


async def test_lock_wakes_who_waits(runner: ExampleRunner, example: ModuleType) -> None:
    """A release is a reason to try again: the waiter needs no timeout for that."""
    async with (
        Listener(runner.dsn) as listener,
        asyncio.timeout(10),
        asyncio.TaskGroup() as group,
        example.lock(listener, "x"),
    ):
        group.create_task(take(example.lock(listener, "x", retry=NEVER)))
        while not any(s.gaps and not s.backlog for s in listener.stats().subscriptions):
            await listener.notify("turn")  # until the waiter has seen the gap at the start
        await runner.until(f"2 = {TRIED}")


async def test_lock_takes_a_gap_for_a_release(runner: ExampleRunner, example: ModuleType) -> None:
    """A release that nobody could hear wakes who waits as soon as anything can be heard."""
    async with (
        Listener(runner.proxy.proxied_dsn(runner.dsn)) as listener,
        asyncio.timeout(10),
        asyncio.TaskGroup() as group,
        runner.connect() as holder,
    ):
        await holder.fetch(example.TRY, "x")
        group.create_task(take(example.lock(listener, "x", retry=NEVER)))
        await runner.until(f"1 = {WAITING}")
        runner.proxy.refuse()
        runner.proxy.reset()
        await holder.fetch(example.RELEASE, "x")
        runner.proxy.accept()


async def test_lock_of_a_dead_holder_is_free(runner: ExampleRunner, example: ModuleType) -> None:
    """A holder whose session was ended tells nobody, and learns that the lock is lost."""

    async def lose() -> None:
        async with example.lock(listener, "x"):
            await runner.terminate("")
            await take(example.lock(listener, "x", retry=0.05))

    async with Listener(runner.dsn) as listener, asyncio.timeout(10):
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError)):
            await lose()


async def test_lock_needs_no_listener(runner: ExampleRunner, example: ModuleType) -> None:
    """While nobody can listen, a lock that is free is taken, and one that is not is waited for."""
    async with (
        Listener(runner.proxy.proxied_dsn(runner.dsn)) as listener,
        asyncio.timeout(10),
        asyncio.TaskGroup() as group,
    ):
        runner.proxy.refuse()
        runner.proxy.reset()
        async with example.lock(listener, "x"):
            waiting = group.create_task(take(example.lock(listener, "x", retry=0.05)))
            await runner.until(f"2 = {TRIED}")
        await waiting
        assert not listener.is_connected
