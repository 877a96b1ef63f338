"""Connections without a server: a publisher's side of sending, at the times that a test says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify._asyncpg import failures
from asyncnotify._asyncpg.publishing import PublishingSession
from asyncnotify._publishing.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Pair = tuple[str, str]

ANSWER_TIME = 1.0
TIMEOUT = 5.0


class FakeSession(PublishingSession):
    """Takes statements and answers each after a while, unless it is terminated before."""

    def __init__(self, server: FakePublishingServer) -> None:
        # Not calling super().__init__() is the point: that wants a connection of the driver's
        self._server = server
        self._ended = asyncio.get_running_loop().create_future()

    @property
    def lost(self) -> bool:
        """Whether it was terminated."""
        return self._ended.done()

    def terminate(self) -> None:
        """End the session: statements without an answer fail."""
        if not self._ended.done():
            self._ended.set_result(None)
            self._server.terminated.append(self)

    async def rest(self) -> bool:
        """Stay with the publisher, or go back to a pool."""
        if self._server.rest_time:
            await asyncio.sleep(self._server.rest_time)
        return self._server.keeps

    async def close(self, timeout: float) -> None:
        """End in good order."""
        self._server.closed.append((self, timeout))
        await asyncio.sleep(self._server.close_time)

    async def notify(self, channel: str, payload: str) -> None:
        """Take one notification."""
        self._server.single_statements += 1
        await self._statement([(channel, payload)])

    async def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> None:
        """Take several notifications."""
        await self._statement(list(zip(channels, payloads, strict=True)))

    async def _statement(self, pairs: list[Pair]) -> None:
        server = self._server
        if server.goodbyes:
            raise server.goodbyes.pop(0)
        server.statements.append(pairs)
        await asyncio.wait({self._ended}, timeout=server.answer_time)
        if self._ended.done():
            message = "connection was closed in the middle of operation"
            raise asyncpg.ConnectionDoesNotExistError(message)
        for _, payload in pairs:
            if payload in server.refused:
                raise server.refused[payload]
        server.committed.extend(pairs)


class FakePublishingServer:
    """Opens the sessions of a publisher, and runs that publisher."""

    failures = failures

    def __init__(self) -> None:
        self.keeps = True  # a session that rests; a pool takes it back
        self.open_time = self.rest_time = self.close_time = 0.0
        self.answer_time: float = ANSWER_TIME
        self.open_errors: list[Exception] = []
        self.goodbyes: list[Exception] = []  # for the next statements, which are not sent
        self.refused: dict[str, BaseException] = {}
        self.sessions: list[FakeSession] = []
        self.closed: list[tuple[PublishingSession, float]] = []
        self.terminated: list[PublishingSession] = []
        self.statements: list[list[Pair]] = []  # that were sent, with their pairs
        self.committed: list[Pair] = []
        self.single_statements = 0  # statements that a call has sent by itself
        self.calls: list[asyncio.Task[None]] = []

    def begin(self, *, queue: int = 10_000, max_age: float | None = None) -> Publisher:
        """Let a publisher run."""
        self.publisher = Publisher(self, timeout=TIMEOUT, queue=queue, max_age=max_age)
        self.running = asyncio.create_task(self.publisher.run())
        return self.publisher

    async def start_with_session(
        self, *, queue: int = 10_000, max_age: float | None = None
    ) -> Publisher:
        """Let a publisher run that holds a session already, and rests."""
        publisher = self.begin(queue=queue, max_age=max_age)
        await publisher.publish_all((), ())
        await turns()
        return publisher

    async def end(self) -> None:
        """End the publisher, and check that no caller was forgotten."""
        self.running.cancel()
        ended, _ = await asyncio.wait({self.running})
        await turns()
        untold = [call for call in self.calls if not call.done()]
        for call in untold:
            call.cancel()
        await outcomes([*self.calls, *ended])
        self.calls.clear()  # else thousands would stay, which every later test looks through
        assert not untold, f"{len(untold)} callers were never told"

    def call(self, payload: str, channel: str = "c") -> asyncio.Task[None]:
        """Have a task publish something."""
        task = asyncio.create_task(self._publish(channel, payload))
        self.calls.append(task)
        return task

    def call_each(self, payloads: Iterable[str]) -> list[asyncio.Task[None]]:
        """Have each published by a task of its own."""
        return [self.call(payload) for payload in payloads]

    async def _publish(self, channel: str, payload: str) -> None:
        await self.publisher.publish(channel, payload)

    @property
    def payloads(self) -> list[str]:
        """What has been committed, in its order."""
        return [payload for _, payload in self.committed]

    @property
    def sizes(self) -> list[int]:
        """How many notifications each statement held."""
        return [len(pairs) for pairs in self.statements]

    # -- what a publisher asks for

    @property
    def target(self) -> str:
        """The name of the server in messages."""
        return "the fake server"

    async def open(self) -> PublishingSession:
        """Return a new session, or fail as the test says."""
        await asyncio.sleep(self.open_time)
        if self.open_errors:
            raise self.open_errors.pop(0)
        self.sessions.append(FakeSession(self))
        return self.sessions[-1]


async def turns(count: int = 10) -> None:
    """Let the loop go round, without any time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(calls: Iterable[asyncio.Future[None]]) -> list[BaseException | None]:
    """Return what became of each call."""
    return await asyncio.gather(*calls, return_exceptions=True)
