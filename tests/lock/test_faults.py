from __future__ import annotations

import asyncio
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import ConnectError, PoolerError, WrongLoopError
from asyncnotify.lock import Lock, LockLostError, Locks
from asyncnotify.testing.proxy import FaultProxy
from tests.lock.conftest import WAIT_LIMIT, holder, tried, until
from tests.support.machine import scaled
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

    Connection = asyncpg.Connection[Any]

LIFE = scaled(1.0)


async def take(locks: Locks, name: str = "x") -> int:
    """Take a lock, release it, and return its token."""
    async with Lock(locks, name) as held:
        return held.token


async def test_the_write_of_a_frozen_holder_is_refused(installed: str, admin: Connection) -> None:
    """Frozen past its life it loses the lock; thawed it is cancelled, and the server refuses it."""
    await admin.execute("CREATE TABLE written (token int)")
    async with holder("hold", installed, str(LIFE)) as frozen, Locks(installed) as locks:
        assert await frozen.line() == "held 1"
        frozen.signal(signal.SIGSTOP)
        async with asyncio.timeout(WAIT_LIMIT):
            assert await take(locks, "held") == 2
        frozen.tell("write")
        frozen.signal(signal.SIGCONT)
        assert await frozen.line() == "refused ANL01"
        assert await frozen.line() == "lost"
        assert await frozen.end() == 0
    assert await admin.fetchval("SELECT count(*) FROM written") == 0


async def test_a_holder_that_lives_keeps_the_lock(installed: str, admin: Connection) -> None:
    """Idle for several lives, it asks the server often enough."""
    life = 2 * LIFE  # a busy machine may let a server wait for a part of a second
    await admin.execute("CREATE TABLE written (token int)")
    async with holder("hold", installed, str(life)) as living, Locks(installed) as locks:
        assert await living.line() == "held 1"
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 2 * life:
            with pytest.raises(TimeoutError):
                async with Lock(locks, "held", timeout=life / 4):
                    pass
        living.tell("write")
        assert await living.line() == "written"
        assert await living.end() == 0


async def test_the_lock_of_a_killed_holder_is_free(installed: str) -> None:
    """``kill -9`` tells nobody; who waits tries once a second."""
    async with holder("hold", installed, "15") as killed, Locks(installed) as locks:
        assert await killed.line() == "held 1"
        waiting = asyncio.create_task(take(locks, "held"))
        killed.signal(signal.SIGKILL)
        async with asyncio.timeout(WAIT_LIMIT):
            assert await waiting == 2


async def test_a_holder_behind_a_dead_network_knows_before_the_lock_is_free(
    installed: str, admin: Connection
) -> None:
    """Both ends find out by their own clocks: the holder first, and then the server."""
    loop = asyncio.get_running_loop()
    async with FaultProxy.for_dsn(installed) as proxy, Locks(installed) as others:
        dsn = proxy.proxied_dsn(installed)
        async with Locks(dsn, life=2 * LIFE, close_timeout=0.1) as locks:
            tasks: list[asyncio.Task[float]] = []

            async def lose() -> None:
                async with Lock(locks, "x"):
                    tasks.append(asyncio.create_task(taken_at(others)))
                    proxy.black_hole()
                    await asyncio.sleep(WAIT_LIMIT)  # is cancelled

            with pytest.raises(LockLostError):
                await lose()
            lost = loop.time()
            assert lost < await asyncio.wait_for(tasks[0], WAIT_LIMIT)
            proxy.heal()


async def taken_at(locks: Locks) -> float:
    """Return when the lock could be taken."""
    async with Lock(locks, "x"):
        return asyncio.get_running_loop().time()


async def test_fifty_who_wait_outlive_the_server(own_server: PostgresServer) -> None:
    """It is killed and started again: the holder is told, and each of them gets the lock."""
    await Locks(own_server.dsn).install()
    async with Locks(own_server.dsn) as locks, Locks(own_server.dsn) as others:
        tasks: list[asyncio.Task[int]] = []

        async def lose() -> None:
            async with Lock(locks, "x"):
                tasks.extend(asyncio.create_task(take(one)) for one in (locks, others) * 25)
                await asyncio.sleep(WAIT_LIMIT)  # is cancelled

        losing = asyncio.create_task(lose())
        await tried(others, "x")
        await asyncio.to_thread(own_server.stop, "immediate")
        with pytest.raises(LockLostError):
            await losing
        await asyncio.to_thread(own_server.start)
        async with asyncio.timeout(WAIT_LIMIT):
            tokens = await asyncio.gather(*tasks)
    assert sorted(tokens) == list(range(2, 52))


async def test_without_a_server_there_is_an_error_in_time(own_server: PostgresServer) -> None:
    """After ``start_timeout``; a wrong database is told at once."""
    dsn = own_server.dsn_for("missing")
    async with Locks(dsn) as locks:
        with pytest.raises(ConnectError, match="missing"):
            await take(locks)
    await asyncio.to_thread(own_server.stop)
    async with Locks(own_server.dsn, start_timeout=scaled(0.2)) as locks:
        with pytest.raises(ConnectError):
            await asyncio.wait_for(take(locks), WAIT_LIMIT)


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_pooler_in_between_is_refused(own_server: PostgresServer, mode: Any) -> None:
    """Its sessions are not ours: a lock could be anybody's."""
    with PgBouncer(own_server, pool_mode=mode) as bouncer:
        async with Locks(bouncer.dsn) as locks:
            with pytest.raises(PoolerError, match="pooler"):
                await take(locks)


async def test_a_fork_takes_locks_of_its_own(installed: str, admin: Connection) -> None:
    """The child has a session of its own, waits for the parent's lock, and harms none."""
    async with Locks(installed) as locks, Lock(locks, "x") as held:
        child = os.fork()
        if not child:
            _in_child(locks, installed)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status[1]) == 0
        async with admin.transaction():
            await held.check(admin)


def _in_child(locks: Locks, dsn: str) -> None:
    async def main() -> None:
        async with Lock(locks, "y"):
            with pytest.raises(TimeoutError):
                async with Lock(dsn, "x", timeout=0):
                    pass
        await locks.aclose()

    status = 1
    try:
        asyncio._set_running_loop(None)  # noqa: SLF001 - a fork has none
        asyncio.run(main())
        status = 0
    except BaseException:  # noqa: BLE001 - it is printed, and this is the end of the process
        traceback.print_exc()
    finally:
        os._exit(status)


async def test_each_event_loop_has_locks_of_its_own(installed: str) -> None:
    """By a DSN in any of them; a Locks belongs to the one that uses it."""
    async with Locks(installed) as locks, Lock(locks, "x"), Lock(installed, "y"):

        async def elsewhere() -> None:
            async with Lock(installed, "z"):
                for taken in ("x", "y"):
                    with pytest.raises(TimeoutError):
                        async with Lock(installed, taken, timeout=0):
                            pass
            with pytest.raises(WrongLoopError):
                await take(locks)

        await asyncio.to_thread(asyncio.run, elsewhere())


async def test_memory_for_locks_that_is_exhausted_is_told(own_server: PostgresServer) -> None:
    """The server's error reaches who waits, and the session keeps nothing of the batch."""
    await Locks(own_server.dsn).install()
    admin = await asyncpg.connect(own_server.dsn)
    try:
        async with Locks(own_server.dsn) as locks:
            assert await take(locks) == 1
            with pytest.raises(asyncpg.OutOfMemoryError):
                await admin.execute(
                    "SELECT pg_advisory_lock(i) FROM generate_series(1, 1000000) AS i"
                )
            names = [f"lock {number}" for number in range(50)]
            outcomes = await asyncio.gather(
                *(take(locks, name) for name in names), return_exceptions=True
            )
            refused = [one for one in outcomes if isinstance(one, BaseException)]
            assert {type(one) for one in refused} == {asyncpg.OutOfMemoryError}
            await admin.execute("SELECT pg_advisory_unlock_all()")
            await until(admin, "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')")
            assert await take(locks) == 2
    finally:
        await admin.close()
