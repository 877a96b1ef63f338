"""``Log.end_streams()``: those who read come to an end; those who consume go on."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify.log import BlockingLog, Event, Log
from asyncnotify.testing.proxy import FaultProxy
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log._names import Names


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that runs."""
    async with Log(installed.log, dsn) as log:
        yield log


async def rest(stream: Any) -> list[str]:
    """Return the payloads that are left, once the stream has ended."""
    return [event.payload async for event in stream]


async def test_streams_end_after_what_they_have_read(log: Log) -> None:
    """Those that wait end at once, those that have not begun read nothing; later ones go on."""
    await log.append_many([("things", str(n)) for n in range(5)])
    waiting, unread, full = log.read(), log.read(after="start"), log.read(after="start")
    async with waiting, unread, full:
        ends = asyncio.ensure_future(rest(waiting))
        assert (await anext(full)).payload == "0"
        log.end_streams()
        later = log.read(after="start")
        assert await ends == []
        assert await rest(full) == ["1", "2", "3", "4"]
        assert await rest(unread) == []
        async with later:
            assert (await anext(later)).payload == "0"


async def test_who_reads_to_the_end_gets_all_of_it(log: Log) -> None:
    """It ends by itself, and whoever counts on that must not be told of an end that is none."""
    await log.append_many([("things", str(n)) for n in range(2_500)])
    async with log.read(after="start") as stream:
        items = stream.until_end()
        found = [(await anext(items)).payload]
        log.end_streams(also_new=True)
        found += await rest(items)
        assert len(found) == 2_500
        assert await rest(stream) == []


async def test_consumers_and_handlers_go_on(log: Log) -> None:
    """They serve no client."""
    handled: asyncio.Queue[str] = asyncio.Queue()

    @log.on("handler")
    async def handle(event: Event[str]) -> None:
        handled.put_nowait(event.payload)

    await log.aclose()
    await log.start()
    async with log.consumer("mailer") as consumer:
        log.end_streams(also_new=True)
        await log.append("things", "x")
        assert (await anext(consumer)).payload == await handled.get() == "x"


async def test_new_streams_end_at_once_until_the_log_is_closed(log: Log) -> None:
    """Also where the log has not been used before; then it reads as before."""
    await log.append("things", "x")
    log.end_streams(also_new=True)
    log.end_streams()
    async with log.read(after="start") as stream:
        assert await rest(stream) == []
    await log.aclose()
    async with log.read(after="start") as stream:
        assert (await anext(stream)).payload == "x"
    with pytest.raises(TypeError, match="also_new"):
        log.end_streams(also_new=None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.needs_server("a port that nobody serves")
@pytest.mark.parametrize("end", ["end_streams", "aclose"])
async def test_a_stream_without_a_server_ends_at_once(dsn: str, log: Log, end: str) -> None:
    """It does not wait until the next attempt to connect is due."""
    await log.append("things", "x")
    hourly = functools.partial(itertools.repeat, 3600.0)
    async with (
        FaultProxy.for_dsn(dsn) as proxy,
        Log(log.name, proxy.proxied_dsn(dsn), poll=0.01, backoff=hourly) as apart,
        apart.read(after="start") as stream,
    ):
        await anext(stream)
        ends = asyncio.ensure_future(rest(stream))
        proxy.refuse()
        proxy.reset()
        while stream._retry_at < asyncio.get_running_loop().time() + 60:  # noqa: SLF001, ASYNC110 - nothing else tells that it waits
            await asyncio.sleep(0)
        await (apart.aclose() if end == "aclose" else asyncio.to_thread(apart.end_streams))
        async with asyncio.timeout(scaled(20)):
            assert await ends == []


def test_a_thread_that_waits_is_told_of_the_end(dsn: str, installed: Names) -> None:
    """The call comes from another thread, or from a signal handler."""
    with BlockingLog(installed.log, dsn) as log, log.read() as stream:
        ending = threading.Timer(0.1, log.end_streams)
        ending.start()
        assert list(stream) == []
        ending.join()
