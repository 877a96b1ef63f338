"""A Notifier belongs to one event loop and one process, and its arguments are checked at once."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Listener, Notification, Notifier, WrongLoopError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.contract.conftest import Database, Inbox

    Text = Inbox[Notification[str]]
    Call = Callable[[Notifier], Awaitable[object]]

CALLS: dict[str, Call] = {
    "start": lambda notifier: notifier.start(),
    "notify": lambda notifier: notifier.notify("orders", "1"),
    "retry": lambda notifier: notifier.notify("orders", "1", retry=True),
    "many": lambda notifier: notifier.notify_many([("orders", "1")]),
    "aclose": lambda notifier: notifier.aclose(),
}

FORKS = """
import asyncio, os, sys
from asyncnotify import Notifier, WrongLoopError

dsn, how = sys.argv[1:]
notifier = Notifier(dsn)

async def misuse():
    refused = 0
    for call in (notifier.notify("orders", "child"),
                 notifier.notify("orders", "child", retry=True),
                 notifier.notify_many([("orders", "child")])):
        try:
            await call
        except WrongLoopError as error:
            assert "process" in str(error)
            refused += 1
    return refused

def forked():
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = asyncio.run(misuse())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)

async def main():
    await notifier.notify("orders", "before")
    if how == "running":
        print(forked())
        await notifier.notify("orders", "after")
        await notifier.aclose()

asyncio.run(main())
if how == "ended":  # asyncio.run() has cancelled what was left
    print(forked())
    asyncio.run(main())
"""


@pytest_asyncio.fixture
async def notifier(dsn: str) -> AsyncIterator[Notifier]:
    """A notifier that has sent something."""
    async with Notifier(dsn) as notifier:
        await notifier.notify("orders", "first")
        yield notifier


@pytest.mark.parametrize("name", CALLS)
async def test_r35_calls_from_another_loop_are_refused(
    notifier: Notifier, database: Database, name: str
) -> None:
    """From another thread's loop, and from no loop at all, the error names the cause at once."""
    [backend] = await database.backends()

    def elsewhere() -> None:
        async def call() -> None:
            await CALLS[name](notifier)

        with pytest.raises(WrongLoopError, match="another event loop"):
            asyncio.run(call())
        coroutine = CALLS[name](notifier).__await__()
        with pytest.raises(WrongLoopError, match="another event loop"):
            next(coroutine)

    await asyncio.to_thread(elsewhere)
    await notifier.notify("orders", "still")
    assert [b["pid"] for b in await database.backends()] == [backend["pid"]]


@pytest.mark.needs_server("process")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["running", "ended"])
async def test_r35_a_fork_is_refused_and_leaves_the_parent_alone(
    dsn: str, inbox: Text, how: str
) -> None:
    """In a forked child sending raises, also when the parent's loop has ended."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", inbox)
        result = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", FORKS, dsn, how],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (result.stdout, result.returncode) == ("3\n", 0), result.stderr
        assert await inbox.payloads(2) == ["before", "after" if how == "running" else "before"]


def test_one_loop_after_another(dsn: str) -> None:
    """A notifier of the module's serves each asyncio.run() in its turn, closed or not."""
    notifier = Notifier(dsn)

    async def live(*, closes: bool) -> None:
        await notifier.start()
        await notifier.notify("orders", "1")
        assert await notifier.notify_many([("orders", "1")]) == 1
        if closes:
            await notifier.aclose()

    for closes in (True, False, False, True):
        asyncio.run(live(closes=closes))
    gc.collect()


async def test_looking_at_it_tells_no_secret(dsn: str) -> None:
    """Its repr names the target, without the password."""
    secret = "hunter2"
    notifier = Notifier("postgresql://alice:hunter2@db.example:5433/shop")
    assert repr(notifier) == "<Notifier alice@db.example:5433/shop>"
    assert secret not in repr(notifier)


@pytest.mark.parametrize(
    "options",
    [
        {"queue": 0},
        {"queue": -1},
        {"queue": 1.5},
        {"connect_timeout": 0},
        {"operation_timeout": -1},
        {"operation_timeout": float("inf")},
        {"start_timeout": 0},
        {"retry_timeout": "1"},
        {"close_timeout": float("nan")},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    """A ValueError that names the argument."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Notifier(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dsm": "x"}, "dsm"),
        ({"timeout": 1}, "connect_timeout"),
        ({"dsn": "x", "connect": asyncpg.connect}, "dsn"),
        ({"heartbeat": 1}, "heartbeat"),
        ({"dsn": 7}, "int"),
        ({"connect": "x"}, "str"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_arguments_that_do_not_go_together_are_refused(options: dict[str, Any], told: str) -> None:
    """A TypeError that names what is wrong."""
    with pytest.raises(TypeError, match=told):
        Notifier(**options)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_aclose_refuses_a_time_that_cannot_be(notifier: Notifier, timeout: float) -> None:
    """And has not closed."""
    with pytest.raises(ValueError, match="timeout"):
        await notifier.aclose(timeout)
    await notifier.notify("orders", "still")
