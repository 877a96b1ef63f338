"""Lives and losses leave nothing behind: no session, file, task, thread, object, or memory."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    ConnectTimeoutError,
    ExponentialBackoff,
    Gap,
    Listener,
    Notification,
    Reconnected,
    RetryScheduled,
)
from asyncnotify.testing.proxy import FaultProxy
from tests.hygiene.error_injector import ErrorInjector, error_response
from tests.hygiene.secret_detector import OURS, chain
from tests.hygiene.secrets_harness import WAIT_LIMIT, until
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from tests.hygiene.secrets_harness import Connection

    Life = Callable[["Owner"], Awaitable[None]]

PROCESS: Final = Path("/proc/self")
ALLOWANCE: Final = 5  # MiB in 1,000 lives or losses
AT_ONCE: Final = ExponentialBackoff(initial=0.001, cap=0.002)

pytestmark = pytest.mark.skipif(not PROCESS.exists(), reason="looks at itself in /proc")

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    files: int
    tasks: int
    threads: int
    objects: Counter[str]

    @classmethod
    def now(cls) -> Footprint:
        """Look at it, without what only waits to be collected."""
        gc.collect()
        kinds = (type(thing) for thing in gc.get_objects())
        modules = (OURS, "asyncpg")
        ours = (k for k in kinds if str(getattr(k, "__module__", "")).startswith(modules))
        return cls(
            files=len(list((PROCESS / "fd").iterdir())),
            tasks=len(asyncio.all_tasks()),
            threads=threading.active_count(),
            objects=Counter(kind.__qualname__ for kind in ours),
        )


def resident() -> float:
    """Return how much memory the process has, in MiB."""
    gc.collect()
    pages = int((PROCESS / "statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


class Owner:
    """A database, and listeners on it by a DSN or by connect=."""

    def __init__(self, dsn: str, admin: Connection, connects_by: str) -> None:
        self.dsn = dsn
        self.admin = admin
        self._connects_by = connects_by

    def listener(self, **options: Any) -> Listener:
        """Make a listener as the test says."""
        options = {"backoff": AT_ONCE, **options}
        if self._connects_by == "dsn":
            return Listener(self.dsn, **options)
        settings = {"application_name": OURS}
        connect = functools.partial(asyncpg.connect, self.dsn, server_settings=settings)
        return Listener(connect=connect, **options)

    async def until_left(self, but: int = 0) -> None:
        """Wait until the server has no session of ours any more, or but so many."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = $2"
        database = await self.admin.fetchval("SELECT current_database()")
        async with asyncio.timeout(WAIT_LIMIT):
            while await self.admin.fetchval(query, database, OURS) > but:
                await self.admin.execute("SELECT pg_sleep(0.01)")

    async def footprint(self) -> Footprint:
        """Return what the process holds when all sessions have ended."""
        await self.until_left()
        return Footprint.now()


@pytest_asyncio.fixture
async def place(dsn: str, admin: Connection, connects_by: str) -> AsyncIterator[Owner]:
    """The test's database."""
    yield Owner(dsn, admin, connects_by)


@pytest.fixture
def connects_by() -> str:
    """How listeners connect; tests that try both ways override it."""
    return "dsn"


# -- lives ----------------------------------------------------------------------------------------


async def live(place: Owner) -> None:
    """Use everything there is, and close."""
    inbox = asyncio.Queue[Notification[str]]()
    listener = place.listener()
    events = listener.events()
    async with listener:
        subscription = await listener.listen("orders", inbox.put_nowait)
        async with listener.stream("orders", "events") as stream:
            await listener.notify("orders", "news")
            await inbox.get()
            await anext(stream)
        await listener.health()
        await subscription.cancel()
        await listener.listen("orders", print, latest=True)
        await listener.unlisten("orders")
    assert [type(event).__name__ async for event in events] == ["Connected", "Closed"]


async def live_again(place: Owner) -> None:
    """Start one listener three times, with a handler that was registered before."""
    listener = place.listener()
    listener.on("orders")(print)
    for _ in range(3):
        async with listener:
            pass


async def leave_a_stream(place: Owner) -> None:
    """Break out of a stream, and forget it."""
    async with place.listener() as listener:
        async for _ in listener.stream("orders", gaps=True):
            break


async def leave_by_an_error(place: Owner) -> None:
    """Leave the block by an exception, with a handler at work."""
    with suppress(LookupError):
        async with place.listener() as listener:
            await listener.listen("orders", lambda _: asyncio.Event().wait())
            await listener.notify("orders")
            raise LookupError


async def start_in_vain(place: Owner) -> None:
    """Start where nobody is."""
    with suppress(ConnectTimeoutError):
        await Listener(
            port=1, host="127.0.0.1", backoff=AT_ONCE, start_timeout=scaled(0.01)
        ).start()


async def cancel_the_start(place: Owner) -> None:
    """Cancel the start after some turns of the loop."""
    starting = asyncio.create_task(place.listener().start())
    for _ in range(next(TURNS)):
        await asyncio.sleep(0)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting


TURNS: Final = itertools.cycle(range(0, 20, 3))
OTHER_LIVES: Final = (
    live_again,
    leave_a_stream,
    leave_by_an_error,
    start_in_vain,
    cancel_the_start,
)


@asynccontextmanager
async def nothing_is_left(look: Callable[[], Awaitable[Footprint]]) -> AsyncGenerator[None]:
    """Check that what is done within leaves nothing, in no way, and that nobody is warned of it."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before, memory = await look(), resident()
        yield
        assert await look() == before
    assert resident() - memory < ALLOWANCE
    assert not [str(warning.message) for warning in warned]


async def check_lives(place: Owner, life: Life, *, times: int, warm_up: int) -> None:
    """Live so many times; all has to be as it was after the first few."""
    for _ in range(warm_up):
        await life(place)
    async with nothing_is_left(place.footprint):
        for _ in range(times):
            await life(place)


@by_dsn_and_by_connect
async def test_r34_a_hundred_lives_leave_nothing(place: Owner) -> None:
    """Started, used and closed a hundred times: all is as it was before."""
    await check_lives(place, live, times=100, warm_up=20)


@pytest.mark.parametrize("life", OTHER_LIVES)
async def test_r34_however_they_end_lives_leave_nothing(place: Owner, life: Life) -> None:
    """Restarted, broken off, cancelled, in vain: all is as it was before."""
    await check_lives(place, life, times=20, warm_up=5)


@pytest.mark.soak
@pytest.mark.timeout(600)
@by_dsn_and_by_connect
async def test_r34_a_thousand_lives_leave_nothing(place: Owner) -> None:
    """Started, used and closed a thousand times: all is as it was, but for 5 MiB at most."""
    await check_lives(place, live, times=1_000, warm_up=100)


# -- losses ---------------------------------------------------------------------------------------


class Flapping:
    """A running listener that loses its connection over and over."""

    def __init__(self, place: Owner) -> None:
        self._owner = place
        self._inbox = asyncio.Queue[Notification[str]]()
        self.listener = place.listener()
        self.stream = self.listener.stream("orders", gaps=True)
        self.losses = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run it, with a handler and a stream."""
        self._events = self.listener.events()
        async with self.listener, self.stream:
            await self.listener.listen("orders", self._inbox.put_nowait)
            assert isinstance(await anext(self.stream), Gap)
            yield

    async def flap(self) -> None:
        """Lose the connection, and come back: one Gap, and what is sent then is delivered."""
        pid = (await self.listener.health(server=False))["backend_pid"]
        await self._owner.admin.execute("SELECT pg_terminate_backend($1)", pid)
        assert (await until(self._events, Reconnected)).backend_pid != pid
        self.losses += 1
        await self._owner.admin.execute("SELECT pg_notify('orders', $1)", str(self.losses))
        async with asyncio.timeout(WAIT_LIMIT):
            assert isinstance(await anext(self.stream), Gap)
            for taken in (await anext(self.stream), await self._inbox.get()):
                assert isinstance(taken, Notification)
                assert taken.payload == str(self.losses)

    async def footprint(self) -> Footprint:
        """Return what the process holds when the server has ended all sessions but one."""
        await self._owner.until_left(but=1)
        return Footprint.now()


async def check_losses(place: Owner, *, times: int, warm_up: int) -> None:
    """Lose the connection so many times; all has to be as it was after the first few."""
    flapping = Flapping(place)
    async with flapping.running():
        for _ in range(warm_up):
            await flapping.flap()
        async with nothing_is_left(flapping.footprint):
            for _ in range(times):
                await flapping.flap()
        stats = flapping.listener.stats()
    assert stats.reconnects == flapping.losses == times + warm_up
    assert stats.gaps == 2 * (1 + flapping.losses)
    assert stats.received == flapping.losses


@by_dsn_and_by_connect
async def test_r15_a_hundred_losses_leave_nothing(place: Owner) -> None:
    """Each is one reconnect and one Gap for each subscription; all is as it was before."""
    await check_losses(place, times=100, warm_up=20)


@pytest.mark.soak
@pytest.mark.timeout(600)
@by_dsn_and_by_connect
async def test_r15_a_thousand_losses_leave_nothing(place: Owner) -> None:
    """Each is one reconnect and one Gap; all is as it was, but for 5 MiB at most."""
    await check_losses(place, times=1_000, warm_up=100)


@by_dsn_and_by_connect
async def test_r14_a_listen_that_fails_leaves_no_session(
    injector: ErrorInjector, root: Connection, connects_by: str
) -> None:
    """A connection on which LISTEN was refused is dropped, in use or new: one is left."""
    place = Owner(injector.dsn, root, connects_by)
    refusal = error_response("53200", "out of shared memory")

    async def look() -> Footprint:
        await place.until_left(but=1)
        return Footprint.now()

    async def fail(times: int) -> None:
        for number in range(times):
            injector.answer("LISTEN", refusal, times=2)
            # Each time another channel: its statement must not be prepared already
            await (await listener.listen(f"channel {number}", print)).cancel()

    async with place.listener() as listener:
        await fail(5)
        async with nothing_is_left(look):
            await fail(20)
        assert listener.stats().reconnects == 25


def pausing_after(*attempts: int) -> Callable[[], Iterator[float]]:
    """Return a backoff that hardly waits, except after these attempts."""
    return lambda: (0.5 if number in attempts else 0.0 for number in itertools.count())


@by_dsn_and_by_connect
async def test_r28_nothing_grows_with_the_number_of_failures(
    place: Owner, connects_by: str
) -> None:
    """After three hundred attempts in vain all is as after twenty; an error has no more causes."""
    async with FaultProxy.for_dsn(place.dsn) as proxy:
        flaky = Owner(proxy.proxied_dsn(place.dsn), place.admin, connects_by)
        listener = flaky.listener(backoff=pausing_after(20, 320))
        events = listener.events()

        async def fail(until_attempt: int) -> int:
            while (failed := await until(events, RetryScheduled)).attempt < until_attempt:
                pass
            return len(chain(failed.cause))

        async def look() -> Footprint:
            return Footprint.now()

        async with listener:
            await listener.listen("orders", print)
            proxy.refuse()
            proxy.reset()
            causes = await fail(20)
            async with nothing_is_left(look):
                assert await fail(320) == causes
            proxy.accept()
            await listener.wait_connected(WAIT_LIMIT)


# -- with every warning an error ------------------------------------------------------------------

SCRIPT: Final = """
import asyncio, asyncpg, logging, sys
from asyncnotify import Listener, Reconnected

async def live(dsn):
    listener = Listener(dsn)
    events = listener.events()
    async with listener:
        arrived = asyncio.Event()
        await listener.listen("orders", lambda _: arrived.set())
        await listener.notify("orders")
        await arrived.wait()
        async for _ in listener.stream("orders", gaps=True):
            break
        pid = (await listener.health())["backend_pid"]
        killer = await asyncpg.connect(dsn)
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
        await killer.close()
        while not isinstance(await anext(events), Reconnected):
            pass
        async with listener.stream("orders", gaps=True) as stream:
            await anext(stream)

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60
    for _ in range(10):
        await live(sys.argv[1])

logging.disable(logging.WARNING)  # what remains are errors
asyncio.run(main())
print("done")
"""


def test_r34_python_has_nothing_to_warn_of(dsn: str) -> None:
    """In development mode, with all warnings errors, until the interpreter is gone."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, dsn]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=WAIT_LIMIT * 3,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
