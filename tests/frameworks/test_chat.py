"""examples/chat.py, in two processes that may be killed, on a database that may be taken away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio

pytest.importorskip("websockets")

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.examples.conftest import WAIT_LIMIT, ExampleRunner, Program, new_runner
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncnotify.testing.server import PostgresServer

BLOCKED = """
    EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON l.database = d.oid
            WHERE d.datname = current_database() AND NOT l.granted)
"""
SAID_MEANWHILE = """
    WITH said AS (
        INSERT INTO messages (key, room, name, text)
        VALUES (gen_random_uuid(), 'tea', 'eve', 'said meanwhile') RETURNING id, name, text
    ) SELECT pg_notify('chat_tea', json_build_object('message', to_json(said))::text) FROM said
"""


class Client:
    """A client of one process, in one room."""

    def __init__(self, connection: ClientConnection) -> None:
        self.received: list[dict[str, Any]] = []
        self._connection = connection

    async def send(self, frame: str | bytes) -> None:
        """Send a text, or bytes."""
        await self._connection.send(frame)

    async def say(self, text: str, key: str = "") -> None:
        """Say something."""
        await self.send(json.dumps({"key": key or str(uuid4()), "text": text}))

    async def next(self, kind: str) -> Any:
        """Return the next of this kind; what is of another one is skipped."""
        async with asyncio.timeout(WAIT_LIMIT):
            while True:
                self.received.append(json.loads(await self._connection.recv()))
                if kind in self.received[-1]:
                    return self.received[-1][kind]

    async def text(self) -> str:
        """Return the text of the next message."""
        text: str = (await self.next("message"))["text"]
        return text

    async def until_present(self, *names: str) -> None:
        """Return once these are present, and nobody else."""
        while await self.next("present") != [*names]:
            pass


class Process:
    """A process that serves the chat."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self._port = port

    @contextlib.asynccontextmanager
    async def client(self, name: str, room: str = "tea") -> AsyncGenerator[Client]:
        """Connect a client."""
        address = f"ws://127.0.0.1:{self._port}/rooms/{room}?name={name}"
        async with connect(address, proxy=None, max_size=None) as connection:
            yield Client(connection)


async def serve(runner: ExampleRunner, beat: str = "0.3") -> Process:
    """Start a process; beat: the seconds in which it renews its visitors."""
    port = runner.keep_port()
    program = await runner.run("chat", PORT=str(port), BEAT=beat)
    await program.expect("Uvicorn running on")
    return Process(program, port)


@pytest_asyncio.fixture
async def runner(dsn: str) -> AsyncIterator[ExampleRunner]:
    """A database behind a proxy."""
    async with new_runner(dsn, None) as runner:
        yield runner


@pytest_asyncio.fixture
async def fragile_runner(own_server: PostgresServer) -> AsyncIterator[ExampleRunner]:
    """A server that is killed, behind a proxy."""
    async with new_runner(own_server.dsn, own_server) as runner:
        yield runner


async def test_a_killed_process_takes_its_visitors_with_it(runner: ExampleRunner) -> None:
    """They are present no longer; they come again by another process, and find the history."""
    first, second = await asyncio.gather(serve(runner), serve(runner))
    async with second.client("bob") as bob:
        async with first.client("ann") as ann:
            await bob.until_present("ann", "bob")
            await ann.until_present("ann", "bob")
            await ann.say("hello")
            assert [await ann.text(), await bob.text()] == ["hello", "hello"]
            await first.program.kill()
        await bob.until_present("bob")
        await bob.say("where are you?")
        assert await bob.text() == "where are you?"
        async with second.client("ann") as ann:
            history = await ann.next("history")
            assert [one["text"] for one in history] == ["hello", "where are you?"]
            await bob.until_present("ann", "bob")
        await bob.until_present("bob")
    await second.program.interrupt()
    await runner.until("NOT EXISTS (SELECT FROM presence)")


async def test_nothing_that_was_said_is_missing_after_an_outage(
    fragile_runner: ExampleRunner,
) -> None:
    """The history is read again, nobody has gone, and what failed is said once by its key."""
    runner = fragile_runner
    beat = str(scaled(1.0))  # within three of them the outage is over, and each has renewed its own
    one, two = await asyncio.gather(serve(runner, beat), serve(runner, beat))
    async with one.client("ann") as ann, two.client("bob") as bob:
        for client in ann, bob:
            await client.until_present("ann", "bob")
            client.received.clear()
        key = str(uuid4())
        async with runner.outage():
            await one.program.expect("presence is not renewed")
            await ann.say("are you there?", key)
            assert await ann.next("failed") == key
            await runner.execute(SAID_MEANWHILE)
        for client in ann, bob:
            assert [said["text"] for said in await client.next("history")] == ["said meanwhile"]
            assert await client.next("present") == ["ann", "bob"]
        for _ in range(2):
            await ann.say("are you there?", key)
        await ann.say("x" * 20_000)
        assert [await bob.text(), await bob.text()] == ["are you there?", "x" * 20_000]
        present = [one["present"] for one in bob.received if "present" in one]
        assert all(names == ["ann", "bob"] for names in present)
        for process in one, two:
            await process.program.interrupt()  # also while clients are connected
    await runner.until("NOT EXISTS (SELECT FROM presence)")


async def test_what_is_said_while_the_history_is_read_is_shown_once(runner: ExampleRunner) -> None:
    """It is in the history, which is read after LISTEN, and its notification is left out."""
    process = await serve(runner)
    async with runner.connect() as holder, contextlib.AsyncExitStack() as stack:
        async with holder.transaction():
            await holder.execute("LOCK messages IN ACCESS EXCLUSIVE MODE")
            bob = await stack.enter_async_context(process.client("bob"))
            await runner.until(BLOCKED)
            await holder.execute(SAID_MEANWHILE)
        assert [said["text"] for said in await bob.next("history")] == ["said meanwhile"]
        await bob.say("hello")
        assert await bob.text() == "hello"
    await process.program.interrupt()


async def test_what_is_no_message_is_refused(runner: ExampleRunner) -> None:
    """And the client may go on; a room or a name that cannot be is refused before a LISTEN."""
    process = await serve(runner)
    async with process.client("ann") as ann:
        await ann.until_present("ann")
        for frame in "nonsense", b"bytes", json.dumps({"key": str(uuid4()), "text": "\0"}):
            await ann.send(frame)
            await ann.next("refused")
        await ann.say("hello")
        assert await ann.text() == "hello"
    for name, room in ("ann", "A;B"), ("%00", "tea"):
        with pytest.raises(InvalidStatus):
            async with process.client(name, room):
                pass
    await process.program.interrupt()
