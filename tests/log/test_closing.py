"""The end of a log: in time, once, whoever asks for it, and nothing is left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify.log import Event, Log
from asyncnotify.log import _log as log_module
from asyncnotify.testing.proxy import FaultProxy
from tests.log.conftest import append, count_of_sessions
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

_reading: list[asyncio.Future[Any]] = []


async def appending(log: Log) -> None:
    """Keep a connection that appends."""
    await log.append("things", "x")


async def reading(log: Log) -> None:
    """Keep connections that read, and a stream that waits."""
    await log.append("things", "x")
    stream = log.read(after="start")
    await anext(stream)
    reads = asyncio.ensure_future(anext(stream, None))
    _reading.append(reads)


async def consuming(log: Log) -> None:
    """Keep a consumer, with something to commit."""
    await log.append_many([("things", "x")] * 2)
    consumer = log.consumer("mailer")
    await anext(consumer)
    await anext(consumer)


async def waking(log: Log) -> None:
    """Keep a connection that wakes readers."""
    await log.wake()
    await log.append("things", "x")


async def handling(log: Log) -> None:
    """Keep a handler that never returns."""
    called = asyncio.Event()

    @log.on("h")
    async def handle(_: Event[str]) -> None:
        called.set()
        await asyncio.Event().wait()

    await log.append("things", "x")
    await log.start()
    await called.wait()


USES = [appending, reading, consuming, waking, handling]


async def all_of_it(log: Log) -> None:
    """Do all of that."""
    for use in USES:
        await use(log)


@pytest.mark.needs_server("a network")
@pytest.mark.parametrize("use", [*USES, all_of_it])
async def test_closing_ends_in_time_though_the_server_does_not_answer(
    dsn: str, installed: Names, use: Callable[[Log], Awaitable[None]]
) -> None:
    """At most half a second after its timeout, whatever waits for a server, or never returns."""
    async with FaultProxy.for_dsn(dsn) as proxy:
        log = Log("orders", proxy.proxied_dsn(dsn), operation_timeout=600, poll=0.05)
        await use(log)
        proxy.black_hole()
        began = time.monotonic()
        await log.aclose(timeout=0.2)
        assert time.monotonic() - began < 0.2 + 0.5 + scaled(0.3)


@pytest.mark.parametrize("use", [*USES, all_of_it])
async def test_a_cancelled_closing_leaves_nothing(
    dsn: str, installed: Names, admin: Connection, use: Callable[[Log], Awaitable[None]]
) -> None:
    """Wherever it is cancelled: no task and no session is left."""
    for turns in range(1, 10):
        log = Log("orders", dsn)
        await use(log)
        closing = asyncio.ensure_future(log.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
    async with asyncio.timeout(scaled(20)):
        while await count_of_sessions(admin):
            pass


@pytest.mark.parametrize("timeout", [0, 5])
@pytest.mark.parametrize("kind", ["stream", "consumer"])
async def test_whoever_waits_for_an_event_learns_of_the_end(
    dsn: str, installed: Names, admin: Connection, kind: str, timeout: float
) -> None:
    """By the end of the iteration, however far it had come, and however little time there is."""
    for turns in [*range(0, 60, 3), 600]:
        log = Log("orders", dsn)
        reader: Any = log.read(after="start") if kind == "stream" else log.consumer("mailer")
        waiting = asyncio.ensure_future(anext(reader, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        await log.aclose(timeout)
        async with asyncio.timeout(scaled(20)):
            assert await waiting is None
    async with asyncio.timeout(scaled(20)):
        while await count_of_sessions(admin):
            pass


@pytest.mark.parametrize("in_child_task", [False, True])
async def test_a_handler_may_close_its_log(
    dsn: str, installed: Names, *, in_child_task: bool
) -> None:
    """Itself, or by a task of its own: it does not wait for itself, and is not cancelled."""
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    log = Log("orders", dsn)

    @log.on("h")
    async def handle(_: Event[str]) -> None:
        began = time.monotonic()
        if in_child_task:
            await asyncio.gather(log.aclose())
        else:
            await log.aclose()
        ended.set_result(time.monotonic() - began)

    await log.start()
    await log.append("things", "x")
    assert await asyncio.wait_for(ended, scaled(20)) < scaled(2.5)
    await log.aclose()  # waits for the handler


async def test_what_a_handler_appends_while_the_log_closes_is_appended(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """The connection for it is the log's own, and is closed with the rest."""
    called = asyncio.Event()
    log = Log("orders", dsn)

    @log.on("h", "in")
    async def handle(_: Event[str]) -> None:
        called.set()
        await asyncio.sleep(0)
        for payload in "abc":
            await log.append("out", payload)

    async with log:
        await append(admin, "x", channel="in")
        await called.wait()
    async with Log("orders", dsn) as log:
        assert (await log.status()).events == 4
    async with asyncio.timeout(scaled(20)):
        while await count_of_sessions(admin):
            pass


async def test_a_handler_is_called_whenever_it_is_registered(dsn: str, installed: Names) -> None:
    """Before the start, or while the log is started, also as its first handler."""
    seen: list[str] = []
    both = asyncio.Event()

    def note(name: str) -> Callable[[Event[str]], None]:
        def handle(_: Event[str]) -> None:
            seen.append(name)
            if len(seen) == 2:
                both.set()

        return handle

    async with Log("orders", dsn) as log, asyncio.timeout(scaled(20)):
        log.on("first")(note("first"))
        await log.append("things", "x")
        log.on("second")(note("second"))
        await both.wait()
    assert sorted(seen) == ["first", "second"]


async def test_a_handler_is_served_once_however_the_start_goes(dsn: str, installed: Names) -> None:
    """Also one that is registered while the log starts: by that start, or by none if it fails."""

    def serving() -> list[str]:
        names = (task.get_name() for task in asyncio.all_tasks())
        return sorted(name for name in names if name.startswith("asyncnotify log handler"))

    log = Log("orders", dsn)
    log.on("first")(print)
    for name in ("second", "third"):
        starting = asyncio.ensure_future(log.start())
        await asyncio.sleep(0)
        assert not starting.done()
        log.on(name)(print)
        if name == "second":
            starting.cancel()
        await asyncio.wait({starting})
        assert starting.cancelled() == (not serving())
    assert serving() == [f"asyncnotify log handler {n}" for n in ("first", "second", "third")]
    await log.aclose()


async def test_a_call_of_a_handler_has_a_context_of_its_own(dsn: str, installed: Names) -> None:
    """A copy of the one in which it was registered, and nothing of an earlier call."""
    variable = contextvars.ContextVar[str]("variable")
    seen: list[Any] = []
    done = asyncio.Event()
    log = Log("orders", dsn)
    variable.set("registered")

    @log.on("h")
    async def handle(_: Event[str]) -> None:
        seen.append(variable.get(None))
        variable.set("of the call before")
        if len(seen) == 2:
            done.set()

    variable.set("of whoever starts")
    async with log, asyncio.timeout(scaled(20)):
        await log.append("things", "x")
        await log.append("things", "y")
        await done.wait()
    assert seen == ["registered"] * 2


def drop(logs: list[Log]) -> None:
    """Lose the last reference to each."""
    logs.clear()
    gc.collect()


async def test_a_log_that_nobody_can_close_any_more_is_a_warning(
    dsn: str, installed: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs on, as a listener does; one that has been closed, or does nothing, is none."""
    kept: list[Any] = []
    monkeypatch.setattr(log_module, "keep", kept.append)
    logs = [Log("orders", dsn)]
    await logs[0].append("things", "x")
    with pytest.warns(ResourceWarning, match="Log 'orders' .* was not closed"):
        drop(logs)
    await kept[0].aclose(5)
    logs.append(Log("orders", dsn))
    await logs[0].append("things", "x")
    await logs[0].aclose()
    drop(logs)
    assert len(kept) == 1
