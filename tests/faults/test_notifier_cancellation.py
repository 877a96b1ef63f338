"""A Notifier's callers cancelled at every moment of every call: nothing stays, all else works."""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import ClosedError, ExponentialBackoff, Listener, Notification, Notifier
from tests.faults.conftest import OURS, WAIT_LIMIT
from tests.faults.test_cancellation import every_moment
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable

    from asyncnotify import Stream
    from tests.faults.conftest import ProxiedDatabase
    from tests.faults.test_cancellation import Moment

    Heard = Stream[Notification[str]]
    Pool = asyncpg.Pool[asyncpg.Record]

AT_ONCE = ExponentialBackoff(initial=0.001, cap=0.001)


@pytest_asyncio.fixture
async def heard(database: ProxiedDatabase) -> AsyncIterator[Heard]:
    """What arrives on orders, past the proxy."""
    async with Listener(database.dsn) as listener, listener.stream("orders") as stream:
        yield stream


@pytest_asyncio.fixture
async def notifier(database: ProxiedDatabase) -> AsyncIterator[Notifier]:
    """A running notifier, behind the proxy."""
    async with Notifier(database.proxied_dsn, backoff=AT_ONCE) as notifier:
        await notifier.notify("orders", "warm")
        yield notifier


async def check(notifier: Notifier, heard: Heard, moment: Moment, must: Iterable[str]) -> None:
    """Check that it sends, and that what had to arrive has, in order and once."""
    end = f"end {moment}"
    async with asyncio.timeout(WAIT_LIMIT):
        await notifier.notify("orders", end)
        found: list[str] = []
        async for notification in heard:
            if notification.payload == end:
                break
            found.append(notification.payload)
    expected = list(must)
    assert [payload for payload in found if payload in expected] == expected
    assert len(found) == len(set(found))


async def test_r32_a_call_that_is_alone(
    database: ProxiedDatabase, notifier: Notifier, heard: Heard
) -> None:
    """notify(), cancelled anywhere: one connection, and the next call is served."""

    async def attempt(moment: Moment) -> bool:
        interrupted = await moment.interrupts(notifier.notify("orders", f"{moment}"))
        await check(notifier, heard, moment, () if interrupted else (f"{moment}",))
        await database.until_backends(2)
        return interrupted

    await every_moment(database, attempt, at_least=3)


@pytest.mark.parametrize("retry", [False, True])
async def test_r32_a_call_among_others(
    database: ProxiedDatabase, notifier: Notifier, heard: Heard, *, retry: bool
) -> None:
    """Cancelled anywhere, a call that waits with others, or is sent with them, harms none."""

    async def attempt(moment: Moment) -> bool:
        names = [f"{n} of {moment}" for n in range(5)]
        others = [asyncio.create_task(notifier.notify("orders", name)) for name in names]
        await asyncio.sleep(0)
        mine = notifier.notify("orders", f"{moment}", retry=retry)
        interrupted = await moment.interrupts(mine)
        await asyncio.gather(*others)
        await check(notifier, heard, moment, names)
        await database.until_backends(2)
        return interrupted

    await every_moment(database, attempt, at_least=3)


async def test_r32_the_call_that_others_wait_behind(
    database: ProxiedDatabase, notifier: Notifier, heard: Heard
) -> None:
    """The lone call in flight is cancelled anywhere: those that gathered behind it are sent."""

    async def attempt(moment: Moment) -> bool:
        names = [f"{n} of {moment}" for n in range(5)]
        interrupting = asyncio.create_task(
            moment.interrupts(notifier.notify("orders", f"{moment}"))
        )
        await asyncio.sleep(0)
        others = [asyncio.create_task(notifier.notify("orders", name)) for name in names]
        many = asyncio.create_task(notifier.notify_many([("orders", f"many {moment}")]))
        interrupted = await interrupting
        async with asyncio.timeout(WAIT_LIMIT):
            await asyncio.gather(*others)
            await many
        await check(notifier, heard, moment, names)
        await database.until_backends(2)
        return interrupted

    await every_moment(database, attempt, at_least=3)


async def test_r32_the_first_call(database: ProxiedDatabase, heard: Heard) -> None:
    """Cancelled while its connection is being made, it leaves one connection at most."""

    async def attempt(moment: Moment) -> bool:
        notifier = Notifier(database.proxied_dsn, backoff=AT_ONCE)
        interrupted = await moment.interrupts(notifier.notify("orders", f"{moment}"))
        await check(notifier, heard, moment, () if interrupted else (f"{moment}",))
        await database.until_backends(2)
        await notifier.aclose()
        await database.proxy.wait_idle()
        return interrupted

    await every_moment(database, attempt, at_least=6)


async def test_r32_many(database: ProxiedDatabase, notifier: Notifier, heard: Heard) -> None:
    """notify_many(), cancelled anywhere: what arrived is a beginning of it, and it works on."""

    async def attempt(moment: Moment) -> bool:
        names = [f"{n} of {moment}" for n in range(2_500)]
        interrupted = await moment.interrupts(
            notifier.notify_many(("orders", name) for name in names)
        )
        await check(notifier, heard, moment, () if interrupted else names)
        await database.until_backends(2)
        return interrupted

    await every_moment(database, attempt, at_least=4)


async def test_r32_start(database: ProxiedDatabase, heard: Heard) -> None:
    """start(), cancelled anywhere, leaves nothing, and may be called again."""

    async def attempt(moment: Moment) -> bool:
        notifier = Notifier(database.proxied_dsn, backoff=AT_ONCE)
        interrupted = await moment.interrupts(notifier.start())
        if interrupted:
            await database.proxy.wait_idle()
            await notifier.start()
        await check(notifier, heard, moment, ())
        await notifier.aclose()
        await database.proxy.wait_idle()
        return interrupted

    await every_moment(database, attempt, at_least=6)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_r32_aclose(database: ProxiedDatabase, *, busy: bool) -> None:
    """aclose(), cancelled anywhere, has closed all the same, and every caller is told."""

    async def attempt(moment: Moment) -> bool:
        notifier = Notifier(database.proxied_dsn, backoff=AT_ONCE)
        await notifier.start()
        calls = [
            asyncio.create_task(notifier.notify("orders", str(n))) for n in range(50 if busy else 0)
        ]
        await asyncio.sleep(0)
        begun = asyncio.Event()

        async def close() -> None:
            begun.set()
            await notifier.aclose()

        interrupted = await moment.interrupts(close())
        if not begun.is_set():  # cancelled before its first step, it can have done nothing
            await notifier.aclose()
        async with asyncio.timeout(WAIT_LIMIT):
            await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(ClosedError):
            await notifier.notify("orders")
        await database.proxy.wait_idle()
        return interrupted

    await every_moment(database, attempt, at_least=1)


@pytest_asyncio.fixture
async def pool(database: ProxiedDatabase) -> AsyncIterator[Pool]:
    """A pool of one connection, through the proxy."""
    settings = {"application_name": OURS}
    async with asyncpg.create_pool(
        database.proxied_dsn, min_size=0, max_size=1, server_settings=settings
    ) as pool:
        yield pool


async def check_free(pool: Pool) -> None:
    """Check that the pool's connection can be had, and that nobody keeps it."""
    async with asyncio.timeout(WAIT_LIMIT):
        while True:
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT 1") == 1
            if pool.get_idle_size() == pool.get_size() == 1:
                break


async def test_r32_a_call_through_a_pool(
    database: ProxiedDatabase, pool: Pool, heard: Heard
) -> None:
    """Cancelled while it borrows, sends, or gives back, the pool is none the smaller."""
    async with Notifier(pool=pool, backoff=AT_ONCE) as notifier:

        async def attempt(moment: Moment) -> bool:
            interrupted = await moment.interrupts(notifier.notify("orders", f"{moment}"))
            await check_free(pool)
            await check(notifier, heard, moment, () if interrupted else (f"{moment}",))
            await database.until_backends(2)
            return interrupted

        await every_moment(database, attempt, at_least=3)


@contextmanager
def no_complaints() -> Generator[None]:
    """Check that the event loop has nothing to complain of, once all has been collected."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    complaints: list[str] = []
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    yield
    gc.collect()
    loop.set_exception_handler(handler)
    assert complaints == []


async def test_r32_aclose_with_a_pool(database: ProxiedDatabase, pool: Pool) -> None:
    """aclose(), cancelled anywhere while calls go through a pool, gives back what it had."""

    async def attempt(moment: Moment) -> bool:
        notifier = Notifier(pool=pool, backoff=AT_ONCE)
        await notifier.start()
        calls = [asyncio.create_task(notifier.notify("orders", str(n))) for n in range(5)]
        await asyncio.sleep(0)
        interrupted = await moment.interrupts(notifier.aclose())
        async with asyncio.timeout(WAIT_LIMIT):
            await asyncio.gather(*calls, return_exceptions=True)
        await notifier.aclose()
        await check_free(pool)
        return interrupted

    with no_complaints():
        await every_moment(database, attempt, at_least=1)


async def test_giving_back_may_be_given_up(database: ProxiedDatabase, pool: Pool) -> None:
    """Closed while the server does not answer the pool, it leaves no failure unseen."""
    with no_complaints():
        notifier = Notifier(pool=pool, operation_timeout=scaled(0.3))
        held = database.proxy.cut_on(b"UNLISTEN", then="black_hole")  # the pool cleans up
        await notifier.notify("orders", "1")
        await held.wait()
        await notifier.aclose(0)
        await database.proxy.wait_idle()  # the pool has given up as well
        database.proxy.heal()
        await check_free(pool)
