"""A listener belongs to one event loop and one process: calls from elsewhere say so, harmlessly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncnotify import ClosedError, Notification, State, WrongLoopError
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Listener
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

CALLS: dict[str, Callable[[Listener], Awaitable[object]]] = {
    "start": lambda listener: listener.start(),
    "aclose": lambda listener: listener.aclose(),
    "listen": lambda listener: listener.listen("events", print),
    "unlisten": lambda listener: listener.unlisten("orders"),
    "notify": lambda listener: listener.notify("orders", "1"),
    "wait_connected": lambda listener: listener.wait_connected(),
    "health": lambda listener: listener.health(),
    "stream": lambda listener: anext(listener.stream("events")),
}

FORKS = """
import asyncio, os, sys
import asyncpg
from asyncnotify import Listener, Stats, WrongLoopError

def connect():
    return asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

dsn, factory = sys.argv[1:]

async def misuse(listener, stream):
    refused = 0
    for call in (listener.aclose, listener.notify, listener.listen,
                 listener.unlisten, listener.wait_connected, stream.aclose):
        arguments = {"notify": ["c"], "listen": ["c", print], "unlisten": ["orders"]}
        try:
            await call(*arguments.get(call.__name__, []))
        except WrongLoopError as error:
            assert "process" in str(error)
            refused += 1
    return refused

async def in_child(listener, stream, subscription, events):
    assert not subscription.active
    assert (listener.state, listener.is_connected) == ("new", False)
    assert listener.stats() == Stats()
    refused = await misuse(listener, stream)
    arrived = asyncio.Queue()
    listener.on("registered")(arrived.put_nowait)
    async with listener, listener.stream("orders") as anew:
        assert (listener.state, listener.is_connected) == ("connected", True)
        await listener.notify_many([("orders", "in the child"), ("registered", "")])
        assert (await anext(anew)).payload == "in the child"
        assert (await anext(events)).backend_pid == (await listener.health())["backend_pid"]
        assert (await arrived.get()).channel == "registered"
    assert listener.state == "closed"
    return refused

async def main():
    listener = Listener(dsn) if factory == "dsn" else Listener(connect=connect)
    events = listener.events()
    async with listener:
        subscription = await listener.listen("stock", print)
        async with listener.stream("orders") as stream:
            await listener.notify("orders", "before")
            assert (await anext(stream)).payload == "before"
            child = os.fork()
            if child == 0:
                os._exit(asyncio.run(in_child(listener, stream, subscription, events)))
            _, status = os.waitpid(child, 0)
            assert (listener.state, listener.is_connected) == ("connected", True)
            await listener.notify("orders", "after")
            assert (await anext(stream)).payload == "in the child"
            assert (await anext(stream)).payload == "after"
            assert listener.stats().reconnects == 0
            assert subscription.active
            assert (await anext(events)).backend_pid == (await listener.health())["backend_pid"]
        print(os.waitstatus_to_exitcode(status))

asyncio.run(main())
"""


SESSIONS = """
    SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND application_name = 'asyncnotify'
"""
KILLED = """
import asyncio, os, signal, sys
import asyncpg
from asyncnotify import Listener

def connect():
    return asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

dsn, factory = sys.argv[1:]

async def main():
    async with Listener(dsn) if factory == "dsn" else Listener(connect=connect) as listener:
        await listener.listen("orders", print)
        await listener.notify("orders", "")
        if os.fork() == 0:
            print("forked", flush=True)
            sys.stdin.read()
            os._exit(0)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("name", CALLS)
async def test_r35_calls_from_another_loop_are_refused(
    listener: Listener, database: Database, inbox: Text, name: str
) -> None:
    """From another thread's loop, and from no loop at all, the error names the cause at once."""
    await listener.listen("orders", inbox)

    def elsewhere() -> None:
        async def call() -> None:
            await CALLS[name](listener)

        with pytest.raises(WrongLoopError, match="another event loop"):
            asyncio.run(call())
        coroutine = CALLS[name](listener).__await__()
        with pytest.raises(WrongLoopError, match="another event loop"):
            next(coroutine)

    await asyncio.to_thread(elsewhere)
    await database.notify("orders", "1")
    assert await inbox.payloads(1) == ["1"]
    assert listener.channels == {"orders"}
    assert len(await database.backends()) == 1


async def test_r35_handles_are_refused_elsewhere(
    listener: Listener, database: Database, inbox: Text
) -> None:
    """Streams and subscriptions that have begun belong to the loop as well."""
    subscription = await listener.listen("orders", inbox)
    async with listener.stream("orders") as stream:
        calls: list[Callable[[], Awaitable[object]]] = [
            subscription.cancel,
            stream.aclose,
            stream.__anext__,
        ]

        def elsewhere() -> None:
            async def run(call: Callable[[], Awaitable[object]]) -> None:
                await call()

            for call in calls:
                with pytest.raises(WrongLoopError):
                    asyncio.run(run(call))
            with pytest.raises(WrongLoopError):
                listener.on("events")(print)

        await asyncio.to_thread(elsewhere)
        await database.notify("orders", "1")
        assert (await anext(stream)).payload == "1"
        assert await inbox.payloads(1) == ["1"]


def test_a_closed_loop_is_told_of(factory: ListenerFactory) -> None:
    """A listener whose loop was closed under it says so, not that someone has closed it."""
    listener = factory.listener()

    async def start() -> None:
        await listener.start()

    async def use() -> None:
        with pytest.raises(ClosedError, match=r"loop that started .* closed, .* loop_scope="):
            await listener.listen("orders", print)
        async with listener:
            await listener.notify("orders", "1")
        with pytest.raises(ClosedError, match=r"^the listener is closed; start"):
            await listener.notify("orders", "2")

    asyncio.run(start())
    asyncio.run(use())


async def test_looking_is_allowed_from_any_thread(listener: Listener, inbox: Text) -> None:
    """State, channels, numbers and repr can be read from everywhere."""
    await listener.listen("orders", inbox)

    def look() -> tuple[object, ...]:
        assert "connected" in repr(listener)
        return listener.state, listener.is_connected, listener.channels, listener.stats().gaps

    assert await asyncio.to_thread(look) == (State.CONNECTED, True, {"orders"}, 1)


async def test_a_stream_collected_by_another_thread_ends_its_subscription(
    listener: Listener, database: Database
) -> None:
    """A garbage collector that runs elsewhere disturbs nothing: UNLISTEN goes out all the same."""
    streams = [await listener.stream("orders").__aenter__()]
    await asyncio.to_thread(streams.clear)
    await asyncio.sleep(0)
    assert await database.server_channels(listener) == set()
    assert listener.channels == frozenset()


@pytest.mark.needs_server("process")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_r55_a_fork_says_so_and_may_start_anew(factory: ListenerFactory) -> None:
    """In a forked child it is new, and calls raise until it is started; the parent goes on."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKS, factory.dsn, factory.connected_by],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=False,
    )
    assert (result.stdout, result.returncode) == ("6\n", 0), result.stderr


@pytest.mark.needs_server("process")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_fork_does_not_keep_the_sessions_of_a_killed_parent(
    factory: ListenerFactory, database: Database
) -> None:
    """The server sees at once that they are gone: none listens on without being read."""
    process = subprocess.Popen(  # noqa: ASYNC220 - which nothing else waits for
        [sys.executable, "-c", KILLED, factory.dsn, factory.connected_by],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        while "forked" not in process.stdout.readline():
            assert process.poll() is None
        assert await database.connection.fetchval(SESSIONS) == 2
        process.kill()
        while await database.connection.fetchval(SESSIONS):
            pass  # the limit of the test is that of the wait
