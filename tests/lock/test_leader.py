from __future__ import annotations

import asyncio
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify import ClosedError, WrongLoopError
from asyncnotify.lock import Leader, Lock, LockNotInstalledError, Locks
from asyncnotify.lock._locks import runtime_of
from tests.lock.conftest import WAIT_LIMIT, holder, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from asyncnotify.lock import Held

    Connection = asyncpg.Connection[Any]

KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
"""


class Work:
    """What leaders run: notes who leads, and ends when it is asked to."""

    def __init__(self) -> None:
        self.leading: list[int] = []
        self.ended: list[str] = []
        self.news = asyncio.Event()

    async def __call__(self, held: Held) -> None:
        """Lead."""
        self.leading.append(held.token)
        self.news.set()
        try:
            await held.resigning
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        else:
            self.ended.append("resigned")
        finally:
            self.leading.remove(held.token)
            self.news.set()

    async def until_led_by(self, token: int) -> None:
        """Wait until the holder of a token leads, and nobody else."""
        async with asyncio.timeout(WAIT_LIMIT):
            while self.leading != [token]:
                self.news.clear()
                await self.news.wait()
                assert len(self.leading) <= 1


@pytest_asyncio.fixture
async def work() -> AsyncIterator[Work]:
    """What the leaders of a test run."""
    yield Work()


async def test_one_of_many_leads(installed: str, work: Work) -> None:
    """Another one takes over when it is closed, which lets it end first."""
    first = Leader("boss", work, installed)
    await first.start()
    await work.until_led_by(1)
    assert (first.is_leader, first.token) == (True, 1)
    async with Leader("boss", work, installed) as second:
        assert (second.is_leader, second.token) == (False, None)
        await first.aclose()
        await work.until_led_by(2)
        assert second.token == 2
    assert work.ended == ["resigned", "resigned"]


async def test_a_leader_is_asked_to_resign_from_anywhere(
    locks: Locks, others: Locks, work: Work
) -> None:
    """By a notification; it pauses, and another one leads."""
    async with (
        Leader("boss", work, locks, pause=1_000) as first,
        Leader("boss", work, others, pause=1_000) as second,
    ):
        await work.until_led_by(1)
        await listening(locks, others)
        asking, other = (second, first) if first.is_leader else (first, second)
        await asking.resign()
        await work.until_led_by(2)
        assert asking.token == 2
        assert not other.is_leader


async def listening(*several: Locks) -> None:
    """Wait until leaders of these can be asked to resign."""
    for locks in several:
        while not runtime_of(locks).wake_ups.is_listening:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.001)  # nothing reports that


async def test_a_leader_that_does_not_end_is_cancelled(installed: str) -> None:
    """After ``drain`` seconds."""
    ended = asyncio.Event()

    async def run(held: Held) -> None:
        started.set()
        try:
            await asyncio.sleep(1_000)  # is cancelled
        finally:
            ended.set()

    started = asyncio.Event()
    async with Leader("boss", run, installed, drain=0.05):
        await started.wait()
    assert ended.is_set()


async def test_a_leader_that_loses_the_lock_is_cancelled_and_stands_again(
    installed: str, work: Work, admin: Connection
) -> None:
    """Its session is ended by the server."""
    async with Leader("boss", work, installed, pause=0.01):
        await work.until_led_by(1)
        await admin.execute(KILL)
        await work.until_led_by(2)
    assert work.ended == ["cancelled", "resigned"]


async def test_a_leader_whose_function_fails_stands_again(
    installed: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raised is logged with its traceback; returning is resigning."""
    tokens: list[int] = []
    enough = asyncio.Event()

    async def run(held: Held) -> None:
        tokens.append(held.token)
        if len(tokens) == 3:
            enough.set()
        elif len(tokens) == 1:
            raise LookupError

    async with Leader("boss", run, installed, pause=0.01):
        async with asyncio.timeout(WAIT_LIMIT):
            await enough.wait()
    [record] = [record for record in caplog.records if record.exc_info]
    assert "'boss'" in record.getMessage()
    assert tokens[:3] == [1, 2, 3]


async def test_a_function_that_ends_in_a_cancellation_of_its_own_is_told(
    installed: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It awaited a task that was cancelled: it would be called again and again, and nobody knew."""
    calls: list[int] = []
    enough = asyncio.Event()

    async def run(held: Held) -> None:
        calls.append(held.token)
        if len(calls) > 1:
            enough.set()
            await held.resigning
            return
        ended = asyncio.ensure_future(asyncio.sleep(1_000))  # is cancelled
        ended.cancel()
        await ended

    async with Leader("boss", run, installed, pause=0.01):
        async with asyncio.timeout(WAIT_LIMIT):
            await enough.wait()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == (
        "the function of leader 'boss' raised CancelledError, though nobody has cancelled it"
    )


async def test_who_only_asks_for_a_resignation_has_nothing_to_close(
    installed: str, work: Work, admin: Connection
) -> None:
    """A script that deploys makes a Leader for that alone: before, and after it has stood."""
    sessions = "application_name = 'asyncnotify' AND datname = current_database()"
    asking = Leader("boss", work, installed)
    await asking.resign()
    await until(admin, f"NOT EXISTS (SELECT FROM pg_stat_activity WHERE {sessions})")
    async with asking:
        await work.until_led_by(1)
        await asking.resign()
        await work.news.wait()
    await asking.resign()
    await until(admin, f"NOT EXISTS (SELECT FROM pg_stat_activity WHERE {sessions})")


async def test_a_killed_leader_is_followed(installed: str, work: Work, admin: Connection) -> None:
    """A process that is killed tells nobody; a leader is one who holds the lock of that name."""
    async with holder("hold", installed, "15") as killed:
        assert await killed.line() == "held 1"
        async with Leader("held", work, installed):
            killed.signal(signal.SIGKILL)
            await work.until_led_by(2)


async def test_what_cannot_be_right_is_refused_when_it_is_said(dsn: str, work: Work) -> None:
    """A function that is not async, or takes nothing; and a database without the table."""

    async def takes_nothing() -> None: ...

    wrong: Any
    for wrong, message in ((print, "async function"), (takes_nothing, "1 argument")):
        with pytest.raises(TypeError, match=message):
            Leader("boss", wrong, dsn)
    with pytest.raises(LockNotInstalledError):
        await Leader("boss", work, dsn).start()


async def test_a_leader_beside_a_lock_of_the_same_name(installed: str, work: Work) -> None:
    """One name is one lock, whoever uses it."""
    async with Locks(installed) as locks, Leader("boss", work, locks):
        await work.until_led_by(1)
        with pytest.raises(TimeoutError):
            async with Lock(locks, "boss", timeout=0):
                pass


async def test_calls_of_start_at_once_make_one_candidate(installed: str, work: Work) -> None:
    """A second one would go on after aclose(), and nobody could end it."""
    leader = Leader("boss", work, installed)
    await asyncio.gather(leader.start(), leader.start())
    await work.until_led_by(1)
    await leader.aclose()
    assert work.ended == ["resigned"]
    async with Leader("boss", work, installed):
        await work.until_led_by(2)


async def test_a_leader_that_is_closed_while_it_starts_does_not_start(
    installed: str, work: Work
) -> None:
    """Its start says so, and it may be started again."""
    leader = Leader("boss", work, installed)
    starting = asyncio.ensure_future(leader.start())
    await asyncio.sleep(0)
    await leader.aclose()
    with pytest.raises(ClosedError, match="boss"):
        await starting
    async with leader:
        await work.until_led_by(1)


async def test_a_leader_that_stands_is_not_started_in_another_loop(
    installed: str, work: Work
) -> None:
    """The call says so: it would return, and the loop that made it would have no candidate."""
    async with Leader("boss", work, installed) as leader:
        await work.until_led_by(1)
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(asyncio.run, leader.start())
        assert leader.is_leader


async def test_a_leader_stands_in_one_event_loop_after_another(installed: str, work: Work) -> None:
    """As each ``asyncio.run()`` makes one."""
    leader = Leader("boss", work, installed)
    for token in (1, 2):

        async def elsewhere(token: int = token) -> None:
            work.news = asyncio.Event()
            async with leader:
                await work.until_led_by(token)

        await asyncio.to_thread(asyncio.run, elsewhere())
    assert work.ended == ["resigned", "resigned"]


async def test_a_fork_stands_for_leader_beside_its_parent(installed: str, work: Work) -> None:
    """Started there, it stands in a session of its own, and harms none."""
    leader = Leader("boss", work, installed)
    await leader.start()
    await work.until_led_by(1)
    child = os.fork()
    if not child:
        _lead_in_child(leader)
    await leader.aclose()
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    async with Leader("boss", work, installed):
        await work.until_led_by(3)


def _lead_in_child(leader: Leader) -> None:
    async def main() -> None:
        async with leader:
            async with asyncio.timeout(WAIT_LIMIT):
                while leader.token != 2:  # noqa: ASYNC110 - as below
                    await asyncio.sleep(0.001)  # nothing reports that

    status = 1
    try:
        asyncio._set_running_loop(None)  # noqa: SLF001 - a fork has none
        asyncio.run(main())
        status = 0
    except BaseException:  # noqa: BLE001 - it is printed, and this is the end of the process
        traceback.print_exc()
    finally:
        os._exit(status)
