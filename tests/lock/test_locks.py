from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import ClosedError, Listener, WrongLoopError
from asyncnotify.lock import (
    AlreadyHeldError,
    Held,
    Lock,
    LockLostError,
    LockNameError,
    LockNotInstalledError,
    Locks,
    LockTimeoutError,
    TooManyLocksError,
)
from asyncnotify.lock._locks import runtime_of
from tests.lock.conftest import WAIT_LIMIT, held, holder, tried, until
from tests.support.machine import scaled

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    Connection = asyncpg.Connection[Any]

HELD = "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted)"
OURS = "application_name = 'asyncnotify' AND datname = current_database()"
KILL = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}"


async def contend(dsn: str, witness: Path, *, processes: int, tasks: int, turns: int) -> None:
    """Have tasks in several processes take turns at one lock."""

    async def contender() -> None:
        async with holder("turns", dsn, str(witness), str(tasks), str(turns)) as program:
            assert await program.output() == "done\n"

    async with asyncio.TaskGroup() as group:
        for _ in range(processes):
            group.create_task(contender())


@pytest.mark.timeout(60)
async def test_fifty_contenders_are_never_two_holders(
    installed: str, admin: Connection, witness: Path
) -> None:
    """In five processes; each turn has a token of its own, and none is skipped."""
    await contend(installed, witness, processes=5, tasks=10, turns=4)
    assert await admin.fetchval("SELECT token FROM asyncnotify.locks") == 200


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_fifty_contenders_are_never_two_holders_for_long(
    installed: str, admin: Connection, witness: Path
) -> None:
    """In five processes, for a thousand turns of each."""
    await contend(installed, witness, processes=5, tasks=10, turns=1_000)
    assert await admin.fetchval("SELECT token FROM asyncnotify.locks") == 50_000


async def test_a_lock_shares_its_session_and_closes_it(installed: str, admin: Connection) -> None:
    """All locks of a DSN are held in one session of the server, which ends with the last."""
    async with Lock(installed, "a"), Lock(installed, "b"), Lock(installed, "c"):
        query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        assert await admin.fetchval(query) == 1
        assert await admin.fetchval(f"SELECT {HELD}") == 3
    await until(admin, f"NOT EXISTS (SELECT FROM pg_stat_activity WHERE {OURS})")


async def test_tasks_of_one_process_take_turns_in_their_order(locks: Locks) -> None:
    """Who has asked first is served first."""
    served: list[int] = []

    async def take(number: int) -> None:
        async with Lock(locks, "x"):
            served.append(number)

    async with asyncio.TaskGroup() as group, Lock(locks, "x"):
        for number in range(20):
            group.create_task(take(number))
        await asyncio.sleep(0)
    assert served == list(range(20))


async def test_a_release_wakes_who_waits_in_another_session(
    locks: Locks, others: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the notification alone: it would not try again by itself."""
    monkeypatch.setattr("asyncnotify.lock._serving.TICK", 1_000.0)
    async with asyncio.timeout(WAIT_LIMIT):
        for _ in range(20):
            async with Lock(locks, "x"):
                waiting = asyncio.create_task(take(others, "x"))
                await tried(others, "x")
            await waiting


async def take(locks: Locks, name: str) -> int:
    """Take a lock, release it, and return its token."""
    async with Lock(locks, name) as held:
        return held.token


async def test_the_name_is_a_key_that_sql_knows_too(locks: Locks, admin: Connection) -> None:
    """``lock_key()`` gives the key of the advisory lock, for names of all kinds."""
    for name in ("x", "nightly report", "grüße 🐘", "a'b\\c", "y" * 1_024):
        async with Lock(locks, name):
            query = "SELECT pg_try_advisory_lock(asyncnotify.lock_key($1))"
            assert await admin.fetchval(query, name) is False
        assert await admin.fetchval(query, name) is True


# -- waiting ------------------------------------------------------------------------------------


async def test_a_lock_that_is_not_free_in_time(locks: Locks, others: Locks) -> None:
    """Raises LockTimeoutError; with 0 after one attempt, in any session."""
    async with Lock(locks, "x"):
        for timeout in (0.05, 0):
            with pytest.raises(LockTimeoutError, match="'x'"):
                await asyncio.create_task(enter(Lock(others, "x", timeout=timeout)))
        with pytest.raises(LockTimeoutError):
            await asyncio.create_task(enter(Lock(locks, "x", timeout=0)))
    assert await take(others, "x") == 2


async def enter(lock: Lock) -> None:
    """Take a lock, and release it."""
    async with lock:
        pass


def test_in_another_loop_than_asyncios_the_remedy_is_told() -> None:
    """As a listener tells it."""
    trio = pytest.importorskip("trio")

    async def take() -> None:
        async with Lock("postgresql://localhost/db", "report"):
            pass

    with pytest.raises(WrongLoopError, match=r"trio.*asyncio\.run"):
        trio.run(take)


@pytest.mark.parametrize("name", ["postgresql://localhost/db", 5, ""])
def test_a_name_that_cannot_be_is_told_with_a_remedy(name: Any) -> None:
    """Of a URL, in whose place the DSN comes."""
    with pytest.raises(LockNameError, match=r"Lock\(dsn, name\)|a text is needed"):
        Lock("report", name)


async def test_a_task_does_not_wait_for_itself(locks: Locks) -> None:
    """Entering what it holds raises AlreadyHeldError, also by another object."""
    async with Lock(locks, "x"):
        with pytest.raises(AlreadyHeldError, match="'x'"):
            await enter(Lock(locks, "x"))
    await enter(Lock(locks, "x"))


@pytest.mark.parametrize("is_asked_in_vain", [False, True])
async def test_who_was_cancelled_while_releasing_may_take_it_again(
    locks: Locks, admin: Connection, *, is_asked_in_vain: bool
) -> None:
    """The release goes on by itself, and the same task waits for it as any other."""
    lock = Lock(locks, "x")
    leaving = asyncio.Event()

    async def take_twice() -> int:
        with contextlib.suppress(asyncio.CancelledError):
            async with lock:
                os.kill(backend, signal.SIGSTOP)
                leaving.set()
        if is_asked_in_vain:
            with pytest.raises(LockTimeoutError):
                await enter(Lock(locks, "x", timeout=0))
        os.kill(backend, signal.SIGCONT)
        async with lock as held:
            return held.token

    await enter(lock)
    backend = await admin.fetchval(f"SELECT pid FROM pg_stat_activity WHERE {OURS}")
    taking = asyncio.create_task(take_twice())
    try:
        async with asyncio.timeout(WAIT_LIMIT):
            await leaving.wait()
            taking.cancel()
            assert await taking == 3
    finally:
        os.kill(backend, signal.SIGCONT)


async def test_who_has_lost_a_lock_may_take_it_again_in_its_body(
    installed: str, admin: Connection
) -> None:
    """For its clean-up; the loss is told at the end, and the session is closed with the last."""
    lock = Lock(installed, "x")
    tokens: list[int] = []

    async def lose() -> None:
        async with lock as held:
            tokens.append(held.token)
            try:
                await admin.execute(KILL)
                await asyncio.sleep(1_000)  # is cancelled
            finally:
                async with lock as again:
                    tokens.append(again.token)

    with pytest.raises(LockLostError) as raised:
        async with asyncio.timeout(WAIT_LIMIT):
            await lose()
    assert (tokens, raised.value.token) == ([1, 2], 1)
    await until(admin, f"NOT EXISTS (SELECT FROM pg_stat_activity WHERE {OURS})")


async def test_a_lock_is_left_by_who_has_entered_it(locks: Locks) -> None:
    """Another task leaves for the only one that has entered; which of several is not guessed."""
    lock = Lock(locks, "x")
    with pytest.raises(RuntimeError, match="'x'"):
        await lock.__aexit__(None, None, None)
    await lock.__aenter__()
    await asyncio.create_task(lock.__aexit__(None, None, None))
    await enter(lock)


async def test_the_number_of_locks_has_a_limit(installed: str, admin: Connection) -> None:
    """The next one is refused before anything is sent, and there is room again after a release."""
    async with Locks(installed, limit=2) as locks, Lock(locks, "a"):
        async with Lock(locks, "b"):
            with pytest.raises(TooManyLocksError, match="2 locks"):
                await enter(Lock(locks, "c"))
        await enter(Lock(locks, "c"))


async def test_without_the_table_there_is_no_lock(dsn: str, admin: Connection) -> None:
    """LockNotInstalledError says what to do, and nothing stays locked."""
    async with Locks(dsn) as locks:
        with pytest.raises(LockNotInstalledError, match="install"):
            await enter(Lock(locks, "x"))
        assert await admin.fetchval(f"SELECT {HELD}") == 0
        await locks.install()
        assert await take(locks, "x") == 1


async def test_the_owner_of_the_schema_installs(dsn: str, admin: Connection) -> None:
    """Without the right to create schemas in the database; again, too, and takes a lock then."""
    await admin.execute("CREATE ROLE locks_owner LOGIN")
    await admin.execute("CREATE SCHEMA asyncnotify AUTHORIZATION locks_owner")
    try:
        async with Locks(dsn, user="locks_owner") as locks:
            for _ in range(2):
                await locks.install()
            assert await take(locks, "x") == 1
    finally:
        await admin.execute("DROP OWNED BY locks_owner; DROP ROLE locks_owner")


async def test_a_cancelled_acquire_leaks_nothing(
    locks: Locks, others: Locks, admin: Connection
) -> None:
    """Whenever it is cancelled: the lock is free for others, and no waiter stays."""
    await take(others, "x")
    for turns in range(40):
        task = asyncio.create_task(take(locks, "x"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        async with asyncio.timeout(WAIT_LIMIT):
            await take(others, "x")
    await until(admin, f"{HELD} = 0")
    async with asyncio.timeout(WAIT_LIMIT):
        while runtime_of(locks).queue:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.001)  # nothing reports that


async def test_who_waits_holds_nothing_that_vacuum_needs(
    locks: Locks, installed: str, admin: Connection
) -> None:
    """No session that waits has a snapshot, a transaction, or a lock that it waits for."""
    async with Lock(locks, "x"), Locks(installed) as others:
        tasks = [asyncio.create_task(take(others, "x")) for _ in range(50)]
        await tried(others, "x")
        query = f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND state = 'idle'"
        for _ in range(20):
            assert await admin.fetchval(query) >= 1
            busy = f"""SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND state = 'idle'
                AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)"""
            assert await admin.fetchval(busy) == 0
        assert await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# -- losing -------------------------------------------------------------------------------------


async def test_a_loss_cancels_the_body(locks: Locks, admin: Connection) -> None:
    """At once; ``async with`` raises LockLostError, and the task is not left cancelled."""
    seen: list[Held] = []

    async def lose() -> None:
        async with Lock(locks, "x") as held:
            seen.append(held)
            await admin.execute(KILL)
            await asyncio.sleep(1_000)  # is cancelled

    with pytest.raises(LockLostError, match="'x'") as raised:
        async with asyncio.timeout(WAIT_LIMIT):
            await lose()
    [held] = seen
    await held.lost
    assert held.lost
    assert raised.value.token == held.token
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert await take(locks, "x") == held.token + 1


async def test_a_body_that_ignores_the_loss_is_told_at_its_end(
    locks: Locks, admin: Connection
) -> None:
    """Swallowing the cancellation does not make the lock have been held."""

    async def ignore() -> None:
        async with Lock(locks, "x"):
            with contextlib.suppress(asyncio.CancelledError):
                await admin.execute(KILL)
                await asyncio.sleep(WAIT_LIMIT)  # is cancelled, if that was not

    with pytest.raises(LockLostError):
        await ignore()


async def test_what_the_body_raises_is_not_replaced(locks: Locks, admin: Connection) -> None:
    """Its own exception passes, with a loss noted on it."""

    async def fail() -> None:
        async with Lock(locks, "x"):
            with contextlib.suppress(asyncio.CancelledError):
                await admin.execute(KILL)
                await asyncio.sleep(WAIT_LIMIT)  # is cancelled, if that was not
            raise LookupError

    with pytest.raises(LookupError) as raised:
        await fail()
    assert "was lost" in raised.value.__notes__[0]


async def test_a_cancellation_by_others_passes(locks: Locks, others: Locks) -> None:
    """Alone it releases the lock; together with a loss it is not turned into one."""
    for loses in (False, True):
        holding = asyncio.create_task(hold_until_cancelled(locks))
        present = await held(locks, "x")
        if loses:
            present.lose("a test says so")
        holding.cancel()
        await asyncio.wait({holding})
        assert holding.cancelled()
        await asyncio.wait_for(take(others, "x"), WAIT_LIMIT)


async def hold_until_cancelled(locks: Locks) -> None:
    """Hold a lock for longer than any test."""
    async with Lock(locks, "x"):
        await asyncio.sleep(1_000)  # is cancelled


async def test_a_loss_during_the_release_is_told(locks: Locks, admin: Connection) -> None:
    """Leaving without an exception means that the server has confirmed the lock until the end."""

    async def end_with_the_session() -> None:
        async with Lock(locks, "x"):
            present = await held(locks, "x")
            present.on_loss = None  # as if the body had ended before it could be cancelled
            await admin.execute(KILL)

    with pytest.raises(LockLostError):
        await end_with_the_session()


async def test_closing_loses_what_is_held_and_ends_who_waits(installed: str) -> None:
    """The bodies are cancelled, and calls that wait raise ClosedError."""
    locks = Locks(installed)
    holding = asyncio.create_task(hold_until_cancelled(locks))
    await held(locks, "x")
    waiting = asyncio.create_task(take(locks, "x"))
    await asyncio.sleep(0)
    await locks.aclose()
    results = await asyncio.gather(holding, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [LockLostError, ClosedError]


async def test_a_listener_of_the_users_wakes_too(installed: str, locks: Locks) -> None:
    """With ``listener=`` no other one is started, and it goes on afterwards."""
    async with Listener(installed) as listener:
        async with Locks(installed, listener=listener) as others:
            async with Lock(locks, "x"):
                waiting = asyncio.create_task(take(others, "x"))
                await tried(others, "x")
                assert listener.channels == {"asyncnotify_lock"}
            await waiting
        assert listener.is_connected
        assert not listener.channels


async def test_wake_ups_begin_as_soon_as_they_can(
    installed: str, locks: Locks, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the listener is started later, is started again, or forgets the channel."""
    listener = Listener(installed)
    async with Locks(installed, listener=listener) as others:

        async def is_woken() -> None:
            async with Lock(locks, "x"):
                waiting = asyncio.create_task(take(others, "x"))
                async with asyncio.timeout(WAIT_LIMIT):
                    await tried(others, "x")
            await waiting

        async with Lock(locks, "x"):
            waiting = asyncio.create_task(take(others, "x"))
            async with asyncio.timeout(WAIT_LIMIT):
                while not caplog.messages:  # noqa: ASYNC110 - as below
                    await asyncio.sleep(0.001)  # nothing reports that
            [message] = caplog.messages
            assert "once a second" in message
            assert "has not been started" in message
            await listener.start()
            async with asyncio.timeout(WAIT_LIMIT):
                await tried(others, "x")
        await waiting
        await listener.aclose()
        await listener.start()
        await is_woken()
        await listener.unlisten("asyncnotify_lock")
        await is_woken()
    await listener.aclose()


# -- figures ------------------------------------------------------------------------------------


def p95(seconds: list[float]) -> float:
    """Return the value that 95 of 100 do not exceed."""
    return sorted(seconds)[int(len(seconds) * 0.95)]


async def released_after(locks: Locks, others: Locks) -> float:
    """Return the seconds from a release to the next holder, in another session."""
    loop = asyncio.get_running_loop()

    async def at() -> float:
        async with Lock(others, "x"):
            return loop.time()

    async with Lock(locks, "x"):
        waiting = asyncio.create_task(at())
        await tried(others, "x")
        released = loop.time()
    return await waiting - released


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_the_next_holder_comes_soon_after_a_release(locks: Locks, others: Locks) -> None:
    """Of 200 releases, 95 % within 20 ms."""
    seconds = [await released_after(locks, others) for _ in range(200)]
    assert p95(seconds) <= scaled(0.020), sorted(seconds)


async def killed_after(dsn: str, others: Locks) -> float:
    """Return the seconds from ``kill -9`` of a holder to the next one."""
    loop = asyncio.get_running_loop()

    async def at() -> float:
        async with Lock(others, "held"):
            return loop.time()

    async with holder("hold", dsn, "15") as program:
        assert (await program.line()).startswith("held")
        waiting = asyncio.create_task(at())
        await tried(others, "held")
        killed = loop.time()
        program.signal(9)
        return await waiting - killed


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_the_next_holder_comes_soon_after_a_kill(installed: str, others: Locks) -> None:
    """Of 40 holders that are killed, 95 % are followed within 1.2 s."""
    seconds = [await killed_after(installed, others) for _ in range(40)]
    assert p95(seconds) <= scaled(1.2), sorted(seconds)


@pytest.mark.parametrize("timeout", [0, 5])
async def test_whoever_waits_for_a_lock_learns_of_the_end(
    installed: str, others: Locks, timeout: float
) -> None:
    """However far the call has come, and however little time there is for closing."""
    async with Lock(others, "x"):
        for turns in [*range(1, 20), 300]:
            locks = Locks(installed)
            waiting = asyncio.ensure_future(Lock(locks, "x").__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0)
            await locks.aclose(timeout)
            async with asyncio.timeout(WAIT_LIMIT):
                with pytest.raises(ClosedError):
                    await waiting
