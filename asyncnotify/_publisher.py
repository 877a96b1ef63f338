"""
Publishing on one connection: calls that meet are sent together.

One task runs ``Publisher.run`` and alone gives commands to the connection. While a statement
is in flight, further calls gather and go out with the next one: nobody waits for a timer, and
a lone call is sent at once.
"""

from __future__ import annotations

import asyncio
import functools
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
    from collections.abc import Callable, Iterable

    from asyncnotify._asyncpg.dial import Dialer
    from asyncnotify._keepalive import Keepalive

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

    def __init__(self, dialer: Dialer, keepalive: Keepalive | None, *, timeout: float) -> None:
        self._dialer = dialer
        self._keepalive = keepalive
        self._timeout = timeout
        self._session: PublishingSession | None = None
        self._waiting: deque[_Request] = deque()
        self._news = asyncio.Event()
        self._closing = False
        self._farewell = 0.0

    @property
    def has_work(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._waiting)

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

    def abandon(self) -> None:
        """Accept no more, and send nothing of what waits."""
        self._closing = True
        self._fail_all_waiting(lambda: ListenerClosedError("closed before it was sent"))

    async def run(self) -> None:
        """Send what comes, until closed. Cancelling it drops what waits, each with an error."""
        try:
            while self._waiting or not self._closing:
                if not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                elif session := await self._connected():
                    await self._send(session, self._next_batch())
            if self._session is not None:
                await self._session.close(self._farewell)
        finally:
            if self._session is not None:
                self._drop(self._session)
            self.abandon()

    # -- the connection -----------------------------------------------------------------------

    async def _connected(self) -> PublishingSession | None:
        """Return a connection; where none can be had, all that waits fails: nothing was sent."""
        if self._session is not None and self._session.lost:
            self._drop(self._session)
        if self._session is None:
            try:
                self._session = await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
                make_error = functools.partial(_connect_error, error, self._dialer.target)
                self._fail_all_waiting(make_error)
        return self._session

    async def _connect(self) -> PublishingSession:
        session = PublishingSession(await self._dialer.dial(), timeout=self._timeout)
        try:
            await session.introduce(self._keepalive)
        except BaseException:
            session.terminate()
            raise
        return session

    def _drop(self, session: PublishingSession) -> None:
        session.terminate()
        self._session = None

    # -- batches ------------------------------------------------------------------------------

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

    async def _send(self, session: PublishingSession, batch: list[_Request]) -> None:
        """Send a batch in one transaction; each of its callers learns what became of it."""
        if not batch:
            return
        try:
            await _execute(session, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
            await self._not_sent(session, batch, error)
        except BaseException:
            _fail(batch, lambda: ConnectionLostError("closed while it was being sent"))
            raise
        else:
            for request in batch:
                if not request.sent.done():
                    request.sent.set_result(None)

    async def _not_sent(
        self, session: PublishingSession, batch: list[_Request], error: Exception
    ) -> None:
        if not is_refusal(error):
            self._drop(session)
            _fail(batch, lambda: _loss(error))
        elif len(batch) == 1:
            _fail(batch, lambda: error)
        else:
            await self._send_each(session, batch, error)

    async def _send_each(
        self, session: PublishingSession, batch: list[_Request], error: Exception
    ) -> None:
        """One of a batch was refused, and with it all: let each stand for itself."""
        try:
            for request in batch:
                if session.lost:
                    _fail([request], lambda: _loss(error))
                else:
                    await self._send(session, [request])
        except BaseException:
            _fail(batch, lambda: ConnectionLostError("closed before it was sent again"))
            raise

    def _fail_all_waiting(self, make_error: Callable[[], Exception]) -> None:
        waiting, self._waiting = self._waiting, deque()
        _fail(waiting, make_error)


async def _execute(session: PublishingSession, batch: list[_Request]) -> None:
    if len(batch) == 1:
        await session.notify(batch[0].channel, batch[0].payload)
    else:
        await session.notify_all([r.channel for r in batch], [r.payload for r in batch])


def _fail(requests: Iterable[_Request], make_error: Callable[[], Exception]) -> None:
    """Tell every caller, each by an error of its own."""
    for request in requests:
        if not request.sent.done():
            request.sent.set_exception(make_error())


def _loss(cause: Exception) -> ConnectionLostError:
    error = ConnectionLostError(
        f"the connection died in flight, so that it may or may not have been sent:"
        f" {describe_error(cause)}"
    )
    error.__cause__ = cause
    return error


def _connect_error(cause: Exception, target: str) -> Exception:
    if isinstance(cause, AsyncNotifyError):
        return cause
    mistake = is_permanent(cause) and isinstance(cause, ValueError | TypeError)
    kind = ConfigurationError if mistake else ConnectError
    error = kind(f"cannot connect to {target}: {describe_error(cause)}")
    error.__cause__ = cause
    return error
