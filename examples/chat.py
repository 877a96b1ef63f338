"""
A chat in rooms, and who is present in them, over any number of server processes.

    DATABASE_URL=postgresql://localhost/postgres python chat.py
    DATABASE_URL=postgresql://localhost/postgres PORT=8001 python chat.py

Then, with a client for WebSockets, one at each process, and in psql:

    python -m websockets 'ws://localhost:8000/rooms/tea?name=ann'
    python -m websockets 'ws://localhost:8001/rooms/tea?name=bob'
    {"key": "2d9d0a9c-6a1f-4b1e-9d54-0d9f0a4c7a11", "text": "Hello"}
    SELECT * FROM presence;

What people forget:

* A process that is killed with its visitors, who would be present for ever. Each connection has a
  row that its process renews, and any process removes those that nobody has renewed.
* What is said between reading the history and LISTEN. The stream begins first, then its Gap says
  when to read, at the start and after each outage; what comes twice is left out by its number.
* A message of 8,000 bytes, which fits in no notification: others read it from the table.
* A server that dies at COMMIT: the client sends its message again, with the same key.

A room is a channel: a process gets what is said in the rooms of its visitors and nothing else, and
``max_channels`` is the limit on these.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import uvicorn
from fastapi import FastAPI, Path, Query, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, ValidationError

from asyncnotify import Channel, Gap, Listener, Notification, PayloadTooLargeError
from asyncnotify.ext.fanout import Fanout, TooManyChannelsError
from asyncnotify.ext.fastapi import health, lifespan

DSN = os.environ.get("DATABASE_URL")
BEAT = float(os.environ.get("BEAT", "5"))  # seconds in which a process renews its visitors
LIFE = 3 * BEAT  # seconds after which a visitor whom nobody has renewed is removed
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
SCHEMA = """
    SELECT pg_advisory_xact_lock(hashtext('chat'));  -- processes that start at once take turns
    CREATE TABLE IF NOT EXISTS messages (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key uuid NOT NULL UNIQUE,
        room text NOT NULL, name text NOT NULL, text text NOT NULL);
    CREATE INDEX IF NOT EXISTS messages_of_room ON messages (room, id);
    CREATE TABLE IF NOT EXISTS presence (
        visitor uuid PRIMARY KEY, room text NOT NULL, name text NOT NULL,
        seen timestamptz NOT NULL DEFAULT clock_timestamp());
"""
SAY = """
    INSERT INTO messages (key, room, name, text) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO NOTHING RETURNING id
"""
HISTORY = "SELECT id, name, text FROM messages WHERE room = $1 ORDER BY id DESC LIMIT 50"
PRESENT = "SELECT DISTINCT name FROM presence WHERE room = $1 ORDER BY name"
TEXT = "SELECT text FROM messages WHERE id = $1"
RENEW = """
    INSERT INTO presence SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[])
    ON CONFLICT (visitor) DO UPDATE SET seen = clock_timestamp() RETURNING room, xmax = 0 AS changed
"""
LEAVE = "DELETE FROM presence WHERE visitor = ANY($1) RETURNING room, true AS changed"
EXPIRE = """
    DELETE FROM presence WHERE seen < clock_timestamp() - make_interval(secs => $1)
    RETURNING room, true AS changed
"""


class Message(BaseModel):
    """What somebody has said; without its text where that is too long for a notification."""

    id: int
    name: str
    text: str | None


class News(BaseModel):
    """What is notified: a message; or, without one, that others are present than before."""

    message: Message | None = None


class Said(BaseModel):
    """What a client sends."""

    key: UUID
    text: str = Field(max_length=20_000, pattern=r"^[^\x00]+$")


class Visitor(BaseModel, frozen=True):
    """One connection of a client, in a room."""

    id: UUID
    room: str
    name: str


def channel_of(room: str) -> Channel[News]:
    """Return the channel of a room."""
    return Channel(f"chat_{room}", News)


class Presence:
    """The visitors of this process and their rows, which one task writes."""

    def __init__(self, pool: Any) -> None:  # noqa: ANN401 - FastAPI cannot read that of asyncpg
        self._pool = pool
        self._here: dict[UUID, Visitor] = {}
        self._left: set[UUID] = set()
        self._changed = asyncio.Event()
        self._renewing_since = time.monotonic()

    @contextlib.contextmanager
    def of(self, visitor: Visitor) -> Generator[None]:
        """Let a visitor be present for as long as the block runs."""
        self._here[visitor.id] = visitor
        self._changed.set()
        try:
            yield
        finally:
            del self._here[visitor.id]
            self._left.add(visitor.id)
            self._changed.set()

    async def keep(self) -> None:
        """Renew the rows until cancelled: when visitors come or leave, and at every beat."""
        while True:
            self._changed.clear()
            await self.renew()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._changed.wait()

    async def renew(self) -> None:
        """Write the rows once; what fails is done at the next beat."""
        left = frozenset(self._left)
        try:
            async with self._pool.acquire(timeout=5) as connection, connection.transaction():
                await self._write(connection, left)
        except FAILURES as error:
            self._renewing_since = time.monotonic()
            print(f"presence is not renewed: {error}")
        else:
            self._left -= left

    async def _write(self, connection: Any, left: frozenset[UUID]) -> None:  # noqa: ANN401
        here = self._here.values()
        fields = [[one.id for one in here], [one.room for one in here], [one.name for one in here]]
        changed = await connection.fetch(RENEW, *fields)
        changed += await connection.fetch(LEAVE, left)
        if time.monotonic() - self._renewing_since > LIFE:  # after an outage all renew first
            changed += await connection.fetch(EXPIRE, LIFE)
        for room in {row["room"] for row in changed if row["changed"]}:
            await listener.notify(channel_of(room), News(), connection=connection)


listener = Listener(DSN)
fanout = Fanout[Visitor](listener, max_channels=1_000, buffer=100)


@contextlib.asynccontextmanager
async def prepare(_: FastAPI) -> AsyncGenerator[dict[str, object]]:
    """Make the tables, and keep the presence of this process's visitors."""
    async with asyncpg.create_pool(DSN, min_size=0, timeout=5, command_timeout=5) as pool:
        await pool.execute(SCHEMA)
        presence = Presence(pool)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(presence.keep())
            yield {"pool": pool, "presence": presence}
            keeping.cancel()
        await presence.renew()


app = FastAPI(title="Chat", lifespan=lifespan(listener, inner=prepare, end_streams=True))
app.get("/health")(health)


@app.websocket("/rooms/{room}")
async def serve(
    socket: WebSocket,
    room: Annotated[str, Path(pattern=r"^[a-z0-9-]{1,40}$")],
    name: Annotated[str, Query(pattern=r"^[\w -]{1,40}$")],
) -> None:
    """Let a client see and speak in a room until it leaves."""
    visitor = Visitor(id=uuid4(), room=room, name=name)
    await socket.accept()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(show(socket, visitor))
            await hear(socket, visitor)
    except* WebSocketDisconnect:
        pass
    except* (TimeoutError, TooManyChannelsError):  # too slow, or one room too many
        await close(socket, 1013)


async def hear(socket: WebSocket, visitor: Visitor) -> None:
    """Take what a client says until it leaves, which raises WebSocketDisconnect."""
    while True:
        try:
            said = Said.model_validate_json(await socket.receive_text())
        except (ValidationError, KeyError):  # KeyError: bytes, not text
            await send(socket, {"refused": "a message has a key and a text"})
            continue
        try:
            await say(socket.state.pool, visitor, said)
        except FAILURES:  # it may have been said: with the same key it is not said twice
            await send(socket, {"failed": str(said.key)})


async def say(pool: Any, visitor: Visitor, said: Said) -> None:  # noqa: ANN401
    """Insert a message and notify the room, in one transaction."""
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        row = said.key, visitor.room, visitor.name, said.text
        if (number := await connection.fetchval(SAY, *row)) is None:
            return
        message = Message(id=number, name=visitor.name, text=said.text)
        channel = channel_of(visitor.room)
        try:
            await listener.notify(channel, News(message=message), connection=connection)
        except PayloadTooLargeError:
            message.text = None
            await listener.notify(channel, News(message=message), connection=connection)


async def show(socket: WebSocket, visitor: Visitor) -> None:
    """Send a client what is said in its room, and who is present, until the streams end."""
    view = View(socket.state.pool, visitor.room)
    async with fanout.subscribe([channel_of(visitor.room)], visitor) as stream:
        with socket.state.presence.of(visitor):
            async for item in stream:
                for message in await view.read_until_it_succeeds(item):
                    await send(socket, message)
    await close(socket, 1012)


async def send(socket: WebSocket, message: dict[str, Any]) -> None:
    """Send a client something; raise TimeoutError if it does not take it."""
    async with asyncio.timeout(30):
        await socket.send_json(message)


async def close(socket: WebSocket, code: int) -> None:
    """Close a socket; that of a client which reads nothing any more too."""
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
        async with asyncio.timeout(5):
            await socket.close(code)


class View:
    """What one client is to be shown of a room."""

    def __init__(self, pool: Any, room: str) -> None:  # noqa: ANN401
        self._pool = pool
        self._room = room
        self._shown: set[int] = set()

    async def read_until_it_succeeds(self, item: Notification[News] | Gap) -> list[dict[str, Any]]:
        """Return what is to be sent when this comes."""
        while True:
            try:
                return await self._read(item)
            except FAILURES as error:
                print(f"trying again: {error}")
                await asyncio.sleep(0.5)

    async def _read(self, item: Notification[News] | Gap) -> list[dict[str, Any]]:
        match item:
            case Gap():
                return [{"history": await self._history()}, {"present": await self._present()}]
            case Notification(payload=News(message=Message() as message)):
                if message.id in self._shown:  # came between LISTEN and the reading of the history
                    return []
                return [{"message": await self._whole(message)}]
            case _:
                return [{"present": await self._present()}]

    async def _history(self) -> list[dict[str, object]]:
        rows = await self._pool.fetch(HISTORY, self._room)
        self._shown = {row["id"] for row in rows}
        return [dict(row) for row in reversed(rows)]

    async def _present(self) -> list[str]:
        return [row["name"] for row in await self._pool.fetch(PRESENT, self._room)]

    async def _whole(self, message: Message) -> dict[str, object]:
        if message.text is None:
            message.text = await self._pool.fetchval(TEXT, message.id)
        return message.model_dump()


def main() -> None:
    """Serve until Ctrl-C."""
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))


if __name__ == "__main__":
    main()
