"""
Publishing on one connection: calls that meet are sent together.

One task runs ``Publisher.run`` and alone gives commands to the connection. While a statement
is in flight, further calls gather and go out with the next one: nobody waits for a timer, and
a lone call is sent at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify._asyncpg.failures import is_permanent, is_refusal
from asyncnotify._asyncpg.session import PublishingSession
from asyncnotify._errors import (
    AsyncNotifyError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ListenerClosedError,
)
from asyncnotify._events import describe_error

if TYPE_CHECKING:
    from asyncnotify._asyncpg.dial import Dialer

_BATCH_COUNT: Final = 1_000
"""Notifications in one statement."""

_BATCH_CHARACTERS: Final = 1_000_000
"""Characters of payload in one statement."""


class _Request(NamedTuple):
    channel: str
    payload: str
    sent: asyncio.Future[None]


class Publisher:
    """Sends notifications, on a connection that it opens when the first one comes."""

    def __init__(self, dialer: Dialer, *, timeout: float) -> None:
        self._dialer = dialer
        self._timeout = timeout
        self._session: PublishingSession | None = None
        self._waiting: deque[_Request] = deque()
        self._news = asyncio.Event()
        self._closing = False
        self._farewell = 0.0

    async def publish(self, channel: str, payload: str) -> None:
        """
        Return once the server has committed the notification.

        Cancelling it leaves unknown whether it was sent.

        Raises:
            ConnectError: There is no connection, and none could be made: it was not sent.
            ConnectionLostError: The connection died in flight: it may have been sent.
            ListenerClosedError: The publisher is closed.
            asyncpg.PostgresError: The server refused it.
        """
        if self._closing:
            msg = "closed: nothing can be sent any more"
            raise ListenerClosedError(msg)
        request = _Request(channel, payload, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._news.set()
        await request.sent

    def close(self, seconds: float) -> None:
        """Accept no more; run() ends after what was accepted, and a farewell of some seconds."""
        self._closing = True
        self._farewell = seconds
        self._news.set()

    async def run(self) -> None:
        """Send what comes, until closed. Cancelling it drops what waits, each with an error."""
        try:
            while self._waiting or not self._closing:
                if not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                    continue
                if batch := self._next_batch():
                    await self._send(batch)
            if self._session is not None:
                await self._session.close(self._farewell)
        finally:
            self._closing = True
            self._end()

    def _end(self) -> None:
        if self._session is not None:
            self._session.terminate()
            self._session = None
        for request in self._waiting:
            _fail(request, ListenerClosedError("closed before it was sent"))
        self._waiting.clear()

    def _next_batch(self) -> list[_Request]:
        """Take what can go into one transaction, in order; callers who gave up are left out."""
        batch: list[_Request] = []
        pairs: set[tuple[str, str]] = set()
        size = 0
        while self._waiting and len(batch) < _BATCH_COUNT and size < _BATCH_CHARACTERS:
            request = self._waiting[0]
            if not request.sent.done():
                pair = (request.channel, request.payload)
                if pair in pairs:
                    break  # equal ones in one transaction arrive once; each call counts
                pairs.add(pair)
                batch.append(request)
                size += len(request.payload)
            self._waiting.popleft()
        return batch

    async def _send(self, batch: list[_Request]) -> None:
        try:
            session = await self._connected()
            await self._transmit(session, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
            for request in batch:
                _fail(request, error)
        except BaseException:
            for request in batch:
                _fail(request, ConnectionLostError("closed while it was being sent"))
            raise

    async def _transmit(self, session: PublishingSession, batch: list[_Request]) -> None:
        try:
            await _execute(session, batch)
        except Exception as error:
            if not is_refusal(error):
                self._drop(session)
                msg = f"the connection died in flight: {describe_error(error)}"
                raise ConnectionLostError(msg) from error
            if len(batch) == 1:
                raise
            for request in batch:  # one of them was refused: each has to stand for itself
                await self._send([request])
        else:
            for request in batch:
                _succeed(request)

    async def _connected(self) -> PublishingSession:
        if self._session is not None and self._session.lost:
            self._drop(self._session)
        if self._session is None:
            self._session = await self._connect()
        return self._session

    async def _connect(self) -> PublishingSession:
        try:
            connection = await self._dialer.dial()
        except AsyncNotifyError:
            raise
        except Exception as error:
            kind = ConfigurationError if _is_mistake(error) else ConnectError
            msg = f"cannot connect to {self._dialer.target}: {describe_error(error)}"
            raise kind(msg) from error
        return PublishingSession(connection, timeout=self._timeout)

    def _drop(self, session: PublishingSession) -> None:
        session.terminate()
        self._session = None


def _is_mistake(error: Exception) -> bool:
    return is_permanent(error) and isinstance(error, ValueError | TypeError)


async def _execute(session: PublishingSession, batch: list[_Request]) -> None:
    if len(batch) == 1:
        await session.notify(batch[0].channel, batch[0].payload)
    else:
        await session.notify_all([r.channel for r in batch], [r.payload for r in batch])


def _succeed(request: _Request) -> None:
    if not request.sent.done():
        request.sent.set_result(None)


def _fail(request: _Request, error: Exception) -> None:
    if not request.sent.done():
        request.sent.set_exception(error)
