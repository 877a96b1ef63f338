"""
Publishing on one connection: calls that meet are sent together.

A call that comes while nothing is going on sends its notification by itself, in its own task:
nothing is faster. While a statement is in flight, further calls gather; the task that runs
``Publisher.run`` sends them with the next one. Nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncnotify._errors import (
    AsyncNotifyError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    describe_error,
)
from asyncnotify._publishing.batching import BATCH_CHARACTERS, BATCH_COUNT
from asyncnotify._publishing.limits import DEFAULT_QUEUE
from asyncnotify._publishing.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncnotify._publishing.ports import PublishingConnections, PublishingSession

    Sent: TypeAlias = asyncio.Future[None]
    Request: TypeAlias = tuple[str, str, Sent]  # channel, payload: sent together with others
    Bulk: TypeAlias = tuple[Sequence[str], Sequence[str], Sent]  # a transaction by itself

_HALVING: Final = 32
"""Calls that wait, from which on only half of those in play is sent at once: so the callers of one
half go on while the server is at work on the other. Twice as fast, for 100 callers and more."""


class Publisher:
    """Sends notifications, on a connection that it opens when the first one comes."""

    def __init__(
        self, connections: PublishingConnections[Any], *, timeout: float, queue: int = DEFAULT_QUEUE
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._failures = connections.failures
        self._limit = queue
        self._session: PublishingSession | None = None
        self._resting: PublishingSession | None = None  # the session, while nobody uses it
        self._alone = False  # whether a call uses it by itself
        self._asleep = False  # whether run() waits for news, and nobody uses the session
        self._waiting: deque[Request] = deque()
        self._bulks: deque[Bulk] = deque()
        self._overflow: deque[Request] = deque()  # for which there is no room yet
        self._news = asyncio.Event()
        self._closing = False
        self._farewell = 0.0
        self._watchdog = Watchdog(timeout, self._overdue)

    @property
    def has_work(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._waiting or self._bulks or self._overflow)

    @property
    def is_closing(self) -> bool:
        """Whether somebody has closed it."""
        return self._closing

    @property
    def is_used(self) -> bool:
        """Whether something is being sent, or a caller waits for that."""
        waiting = (*self._waiting, *self._overflow, *self._bulks)
        return self._watchdog.is_busy or any(not sent.done() for *_, sent in waiting)

    @property
    def _has_news(self) -> bool:
        return self.has_work or self._closing

    def publish(self, channel: str, payload: str) -> Awaitable[None]:
        """
        Return what is to be awaited at once, until the server has committed the notification.

        Cancelling it leaves unknown whether it was sent.

        Raises:
            ConnectError: There is no connection, and none could be made: it was not sent.
            ConnectionLostError: The connection died in flight: it may have been sent.
            ClosedError: The publisher is closed.
            asyncpg.PostgresError: The server refused it.
        """
        session = self._resting
        if session is None or session.lost:
            return self._publish_with_others(channel, payload)
        return self._publish_alone(session, channel, payload)

    async def _publish_alone(self, session: PublishingSession, channel: str, payload: str) -> None:
        self._resting, self._alone, self._asleep = None, True, False
        self._watchdog.begin()
        try:
            await session.notify(channel, payload)
        except BaseException as error:
            if not self._failures.is_refusal(error):
                self._drop(session)
                if _is_loss(error):
                    raise _loss(error) from error
            raise
        finally:
            self._alone = False
            self._watchdog.end()
            if self._has_news:
                self._news.set()
            else:
                self._asleep, self._resting = True, self._session

    def _overdue(self) -> None:
        """A call that sends by itself has met its deadline: let it learn of a lost connection."""
        if self._session is not None:
            self._session.terminate()

    def _publish_with_others(self, channel: str, payload: str) -> Sent:
        if self._closing:
            raise _closed()
        sent: Sent = self._loop.create_future()
        if self._overflow or len(self._waiting) >= self._limit:
            self._overflow.append((channel, payload, sent))
        else:
            self._waiting.append((channel, payload, sent))
        if self._asleep:
            self._wake()
        return sent

    def _wake(self) -> None:
        self._asleep, self._resting = False, None
        self._news.set()

    def _admit(self) -> None:
        """Accept as many calls as there is room for, in order."""
        while self._overflow and len(self._waiting) < self._limit:
            self._waiting.append(self._overflow.popleft())

    def publish_all(self, channels: Sequence[str], payloads: Sequence[str]) -> Sent:
        """
        Return what is done once the server has committed these, in one transaction.

        Of none at all: once there is a connection. Fails as publish() does.
        """
        if self._closing:
            raise _closed()
        sent: Sent = self._loop.create_future()
        self._bulks.append((channels, payloads, sent))
        if self._asleep:
            self._wake()
        return sent

    def close(self, seconds: float) -> None:
        """Accept no more; run() ends after what was accepted, and a farewell of some seconds."""
        self._closing = True
        self._farewell = seconds
        overflow, self._overflow = self._overflow, deque()
        _fail(overflow, _closed)
        self._wake()

    def abandon(self) -> None:
        """Accept no more, and send nothing of what waits."""
        self._closing = True
        self._resting = None
        self._fail_all_waiting(_closed)

    async def run(self) -> None:
        """Send what comes, until closed. Cancelling it drops what waits, each with an error."""
        try:
            while await self._work_comes():
                if session := await self._connected():
                    await self._send_all_that_waits(session)
            if self._session is not None:
                await self._connections.close(self._session, self._farewell)
        finally:
            if self._session is not None:
                self._drop(self._session)
            self._watchdog.stop()
            self.abandon()

    async def _work_comes(self) -> bool:
        """Return when something waits to be sent; False when nothing ever will."""
        while True:
            self._news.clear()
            if not self._alone:
                if not self._has_news:
                    await self._rest()
                if self._has_news:
                    return self.has_work
                self._asleep, self._resting = True, self._session
            await self._news.wait()

    # -- the connection -----------------------------------------------------------------------

    async def _rest(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            self._session = await self._connections.rest(session)

    async def _connected(self) -> PublishingSession | None:
        """Return a connection; where none can be had, all that waits fails: nothing was sent."""
        if self._session is not None and self._session.lost:
            self._drop(self._session)
        if self._session is None:
            try:
                self._session = await self._connections.open()
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
                self._fail_all_waiting(functools.partial(self._connect_error, error))
        return self._session

    def _drop(self, session: PublishingSession) -> None:
        self._connections.drop(session)
        if self._session is session:
            self._session = None

    # -- batches ------------------------------------------------------------------------------

    async def _send_all_that_waits(self, session: PublishingSession) -> None:
        sent: list[Request] = []  # whose callers have not been told yet
        while not session.lost:
            self._admit()
            if len(self._waiting) < _HALVING:
                _tell(sent)
                sent = []
                await asyncio.sleep(0)  # they may have more to send
            if not self.has_work:
                break
            batch = self._next_batch(in_play=len(self._waiting) + len(sent))
            self._loop.call_soon(_tell, sent)  # once the next ones are on their way
            sent = batch if await self._send(session, batch) else []
            if self._bulks and not session.lost:
                self._loop.call_soon(_tell, sent)
                sent = []
                await self._send_bulk(session, self._bulks.popleft())
        _tell(sent)

    def _next_batch(self, in_play: int) -> list[Request]:
        """Take what can go into one transaction, in order; callers who gave up are left out."""
        waiting = self._waiting
        looked_at = min(len(waiting), BATCH_COUNT, max(_HALVING, (in_play + 1) // 2))
        batch = [request for request in islice(waiting, looked_at) if not request[2].done()]
        payloads = [payload for _, payload, _ in batch]
        if len(set(payloads)) < len(batch) or sum(map(len, payloads)) > BATCH_CHARACTERS:
            return self._next_short_batch()
        for _ in range(looked_at):
            waiting.popleft()
        return batch

    def _next_short_batch(self) -> list[Request]:
        """Take, with a closer look, up to the first that needs another transaction."""
        batch: list[Request] = []
        pairs: set[tuple[str, str]] = set()
        size = 0
        while self._waiting and len(batch) < BATCH_COUNT and size <= BATCH_CHARACTERS:
            channel, payload, sent = self._waiting[0]
            if not sent.done():
                if (channel, payload) in pairs:
                    break  # equal ones in one transaction arrive once; each call counts
                pairs.add((channel, payload))
                batch.append((channel, payload, sent))
                size += len(payload)
            self._waiting.popleft()
        return batch

    async def _send(self, session: PublishingSession, batch: list[Request]) -> bool:
        """Send a batch in one transaction; return whether that is still to be told its callers."""
        if not batch:
            return False
        channels, payloads, _ = zip(*batch, strict=True)
        self._watchdog.begin()
        try:
            await session.notify_all(channels, payloads)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
            await self._not_sent(session, batch, error)
            return False
        except BaseException:
            _fail(batch, lambda: ConnectionLostError("closed while it was being sent"))
            raise
        finally:
            self._watchdog.end()
        return True

    async def _not_sent(
        self, session: PublishingSession, batch: list[Request], error: Exception
    ) -> None:
        refused = self._failures.is_refusal(error)
        if refused and len(batch) > 1:
            await self._send_each(session, batch)
            return
        if not refused:
            self._drop(session)
        _fail(batch, functools.partial(self._told, error))

    async def _send_each(self, session: PublishingSession, batch: list[Request]) -> None:
        """One of a batch was refused, and with it all: let each stand for itself."""
        try:
            for request in batch:
                if session.lost:
                    _fail([request], _not_sent_again)
                elif await self._send(session, [request]):
                    _tell([request])
        except BaseException:
            _fail(batch, _closed)  # the one that was in flight has been told otherwise
            raise

    async def _send_bulk(self, session: PublishingSession, bulk: Bulk) -> None:
        channels, payloads, sent = bulk
        if sent.done():
            return
        self._watchdog.begin()
        try:
            if channels:
                await session.notify_all(channels, payloads)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            if not self._failures.is_refusal(error):
                self._drop(session)
            _fail([bulk], functools.partial(self._told, error))
        except BaseException:
            _fail([bulk], lambda: ConnectionLostError("closed while it was being sent"))
            raise
        else:
            _tell([bulk])
        finally:
            self._watchdog.end()

    # -- failures -----------------------------------------------------------------------------

    def _fail_all_waiting(self, make_error: Callable[[], Exception]) -> None:
        waiting: list[Request | Bulk] = [*self._waiting, *self._overflow, *self._bulks]
        self._waiting.clear()
        self._overflow.clear()
        self._bulks.clear()
        _fail(waiting, make_error)

    def _told(self, error: Exception) -> Exception:
        """Return what a caller is told of an error: a refusal as it is."""
        return error if self._failures.is_refusal(error) else _loss(error)

    def _connect_error(self, cause: Exception) -> Exception:
        if isinstance(cause, AsyncNotifyError):
            return cause
        mistake = self._failures.is_permanent(cause) and isinstance(cause, ValueError | TypeError)
        kind = ConfigurationError if mistake else ConnectError
        error = kind(f"cannot connect to {self._connections.target}: {describe_error(cause)}")
        error.__cause__ = cause
        return error


def _closed() -> ClosedError:
    return ClosedError("closed: it was not sent")


def _tell(requests: Iterable[Request | Bulk]) -> None:
    """Let the callers go on: what they asked for is committed."""
    for _, _, sent in requests:
        if not sent.done():
            sent.set_result(None)


def _fail(requests: Iterable[Request | Bulk], make_error: Callable[[], Exception]) -> None:
    """Tell every caller, each by an error of its own."""
    for _, _, sent in requests:
        if not sent.done():
            sent.set_exception(make_error())


def _is_loss(error: BaseException) -> bool:
    """Return whether the connection failed, and not the task was cancelled."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def _not_sent_again() -> ConnectError:
    return ConnectError(
        "not sent: it was refused together with another one, and then the connection was lost"
    )


def _loss(cause: BaseException) -> ConnectionLostError:
    error = ConnectionLostError(
        f"the connection died in flight, so that it may or may not have been sent:"
        f" {describe_error(cause)}"
    )
    error.__cause__ = cause
    return error
