"""
Publishing on one connection: calls that meet are sent together.

A call that comes while nothing is going on sends its notification by itself, in its own task:
nothing is faster. While a statement is in flight, further calls gather; the task that runs
``Publisher.run`` sends them with the next one. Nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
import functools
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from asyncnotify._backoff import shortened
from asyncnotify._errors import without_frames
from asyncnotify._publishing.errors import (
    closed_in_flight,
    error_of_connecting,
    error_of_sending,
    not_sent_again,
    not_sent_closed,
)
from asyncnotify._publishing.limits import DEFAULT_QUEUE
from asyncnotify._publishing.waiting import HALVING, WaitingCalls, fail, tell
from asyncnotify._publishing.watchdog import Watchdog
from asyncnotify._tasks import CLOSE_GRACE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from asyncnotify._publishing.ports import PublishingConnections, PublishingSession
    from asyncnotify._publishing.waiting import Bulk, Call, Sent


_MOST_UNSENT: Final = 3
"""Connections that may end before anything is sent on them, until callers are told."""


class _User(Enum):
    """Who may use the connection."""

    NOBODY = auto()
    """run() waits for news: the next call may send by itself."""
    CALL = auto()
    """A call sends by itself; run() waits for its end."""
    RUN = auto()
    """run() connects, sends, releases the connection, or is about to."""


_NOBODY, _CALL, _RUN = _User  # a member costs more to look up than the rest of a comparison


class Publisher:
    """
    Sends notifications, on a connection that it opens when the first one comes.

    Args:
        connections: Opens them.
        timeout: Seconds in which the server has to answer.
        queue: How many calls may wait.
        max_age: Seconds after which a connection is not used any more; None: forever.
    """

    def __init__(
        self,
        connections: PublishingConnections,
        *,
        timeout: float,
        queue: int = DEFAULT_QUEUE,
        max_age: float | None = None,
    ) -> None:
        self._max_age = max_age
        self._expired = False  # whether the connection has its age
        self._expiry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._failures = connections.failures
        self._session: PublishingSession | None = None
        self._user = _RUN
        self._news = asyncio.Event()
        self._waiting = WaitingCalls(queue, timeout, lambda: self._session is not None)
        self._close_within = 0.0
        self._unsent = 0  # connections, one after another, that ended before they sent anything
        self._overdue_session: PublishingSession | None = None
        self._watchdog = Watchdog(timeout, self._overdue)

    @property
    def is_closing(self) -> bool:
        """Whether somebody has closed it."""
        return self._waiting.is_closed

    @property
    def is_used(self) -> bool:
        """Whether something is being sent, or a caller waits for that."""
        return self._watchdog.is_busy or any(not call[2].done() for call in self._waiting)

    @property
    def _has_news(self) -> bool:
        return bool(self._waiting) or self._waiting.is_closed

    def publish(self, channel: str, payload: str) -> Awaitable[None]:
        """
        Return what is to be awaited at once, until the server has committed the notification.

        Cancelling it leaves unknown whether it was sent.

        Raises:
            ConnectError: There is no connection, and none could be made: it was not sent.
            ConnectionLostError: The connection died in flight: it may have been sent.
            NotifyTimeoutError: The call waited too long behind others: it was not sent.
            ClosedError: The publisher is closed.
            asyncpg.PostgresError: The server refused it.
        """
        if self._user is _NOBODY:
            session = self._session
            if session is not None and not session.lost:
                return self._publish_alone(session, channel, payload)
            sent = self._waiting.add(channel, payload)
            self._wake()
            return sent
        return self._waiting.add(channel, payload)

    async def _publish_alone(self, session: PublishingSession, channel: str, payload: str) -> None:
        self._user = _CALL
        self._watchdog.begin()
        again: Call | None = None
        try:
            await session.notify(channel, payload)
            self._unsent = 0
        except BaseException as error:
            again = self._again_if_unsent(session, channel, payload, error)
            if again is None:
                raise
        finally:
            self._watchdog.end()
            if self._has_news or self._expired:
                self._user = _RUN
                self._news.set()
            else:
                self._user = _NOBODY
        if again is not None:
            await again[2]

    def _again_if_unsent(
        self, session: PublishingSession, channel: str, payload: str, error: BaseException
    ) -> Call | None:
        """Return a new call if there is to be one; None if the caller is to be told the error."""
        if self._failures.is_refusal(error):
            return None
        self._drop(session)
        if not _is_loss(error):
            return None
        if not self._may_send_again(session, error):
            raise error_of_sending(error, self._failures) from error
        again = self._waiting.call_of(channel, payload)
        self._waiting.put_back([again])
        return again

    def _may_send_again(self, session: PublishingSession, error: BaseException) -> bool:
        """Return whether to send what the server has certainly not had, on a new connection."""
        if not self._failures.is_unsent(error) or session is self._overdue_session:
            return False
        self._unsent += 1
        return self._unsent < _MOST_UNSENT

    def _overdue(self) -> None:
        """End the connection of a call that has exceeded its timeout: so the call fails."""
        if self._session is not None:
            self._overdue_session = self._session
            self._session.terminate()

    def _wake(self) -> None:
        """Let run() see what has changed; it waits on while a call sends by itself."""
        if self._user is _NOBODY:
            self._user = _RUN
        self._news.set()

    def publish_all(self, channels: Sequence[str], payloads: Sequence[str]) -> Sent:
        """
        Return what is done once the server has committed these, in one transaction.

        Of none at all: once there is a connection. Fails as publish() does.
        """
        sent = self._waiting.add_bulk(channels, payloads)
        if self._user is _NOBODY:
            self._wake()
        return sent

    def close(self, seconds: float) -> None:
        """Accept no more; run() sends what was accepted, and closes within these seconds."""
        self._close_within = seconds
        self._waiting.close()
        self._wake()

    def abandon(self) -> None:
        """Accept no more, and send nothing of what waits."""
        self._waiting.stop()
        self._waiting.fail_all(not_sent_closed)
        if self._user is _NOBODY:
            self._user = _RUN

    async def run(self) -> None:
        """Send what comes, until closed. Cancelling it drops what waits, each with an error."""
        try:
            while await self._work_comes():
                if session := await self._connected():
                    await self._send_all_that_waits(session)
            if self._session is not None:
                await self._session.close(self._close_within)
        finally:
            if self._session is not None:
                self._drop(self._session)
            self._watchdog.stop()
            self._forget_age()
            self.abandon()

    async def _work_comes(self) -> bool:
        """Return when something waits to be sent; False when nothing ever will."""
        while True:
            self._news.clear()
            if self._user is not _CALL:
                self._user = _RUN
                if not self._has_news:
                    await self._rest()
                if self._has_news:
                    return bool(self._waiting)
                self._user = _NOBODY
            await self._news.wait()

    # -- the connection -----------------------------------------------------------------------

    async def _rest(self) -> None:
        await self._retire()
        if self._session is not None:
            session, self._session = self._session, None
            if await session.rest():
                self._session = session

    async def _connected(self) -> PublishingSession | None:
        """Return a connection; where none can be had, all that waits fails: nothing was sent."""
        if self._session is not None and self._session.lost:
            self._drop(self._session)
        await self._retire()
        if self._session is None:
            try:
                self._session = await self._connections.open()
                self._overdue_session = None
                self._count_age()
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
                if not self._failures.is_defect(error):
                    without_frames(error)
                told = (error, self._connections.target, self._failures)
                self._waiting.fail_all(functools.partial(error_of_connecting, *told))
        return self._session

    def _count_age(self) -> None:
        self._forget_age()
        if self._max_age is not None:
            self._expiry = self._loop.call_later(shortened(self._max_age), self._expire)

    def _forget_age(self) -> None:
        self._expired = False
        if self._expiry is not None:
            self._expiry.cancel()

    def _expire(self) -> None:
        """Let run() close the connection once it is not in use; the next call opens another."""
        self._expired = True
        if self._user is _NOBODY:
            self._wake()

    async def _retire(self) -> None:
        """Close the connection if it has its age."""
        if self._expired and self._session is not None:
            session, self._session = self._session, None
            self._forget_age()
            await session.close(CLOSE_GRACE)

    def _drop(self, session: PublishingSession) -> None:
        session.terminate()
        if self._session is session:
            self._session = None

    # -- batches ------------------------------------------------------------------------------

    async def _send_all_that_waits(self, session: PublishingSession) -> None:
        waiting = self._waiting
        sent: list[Call] = []  # whose callers have not been told yet
        while not (session.lost or self._expired):
            if waiting.admit() < HALVING:
                tell(sent)
                sent = []
                await asyncio.sleep(0)  # they may have more to send
            if not waiting:
                break
            batch = waiting.next_batch(in_flight=len(sent))
            self._tell_soon(sent)  # once the next ones are on their way
            sent = batch if await self._send(session, batch) else []
            if waiting.has_bulk and not session.lost:
                self._tell_soon(sent)
                sent = []
                await self._send_bulk(session, waiting.next_bulk())
        tell(sent)

    def _tell_soon(self, sent: list[Call]) -> None:
        if sent:
            # Not as an argument, which asyncio's debug mode would log: it holds the payloads
            self._loop.call_soon(lambda: tell(sent))

    async def _send(self, session: PublishingSession, batch: list[Call]) -> bool:
        """Send a batch in one transaction; return whether that is still to be told its callers."""
        if not batch:
            return False
        channels, payloads, *_ = zip(*batch, strict=True)
        self._watchdog.begin()
        try:
            await session.notify_all(channels, payloads)
            self._unsent = 0
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
            await self._not_sent(session, batch, error)
            return False
        except BaseException:
            fail(batch, closed_in_flight)
            raise
        finally:
            self._watchdog.end()
        return True

    async def _not_sent(
        self, session: PublishingSession, batch: list[Call], error: Exception
    ) -> None:
        refused = self._failures.is_refusal(error)
        if refused and len(batch) > 1:
            await self._send_each(session, batch)
            return
        if not refused:
            self._drop(session)
            if self._may_send_again(session, error):
                self._waiting.put_back(batch)
                return
        fail(batch, functools.partial(error_of_sending, error, self._failures))

    async def _send_each(self, session: PublishingSession, batch: list[Call]) -> None:
        """One of a batch was refused, and with it all: let each stand for itself."""
        try:
            for call in batch:
                if session.lost:
                    fail([call], not_sent_again)
                elif await self._send(session, [call]):
                    tell([call])
        except BaseException:
            fail(batch, not_sent_closed)  # the one that was in flight has been told otherwise
            raise

    async def _send_bulk(self, session: PublishingSession, bulk: Bulk) -> None:
        channels, payloads, sent, _ = bulk
        if sent.done():
            return
        self._watchdog.begin()
        try:
            if channels:
                await session.notify_all(channels, payloads)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            if not self._failures.is_refusal(error):
                self._drop(session)
                if self._may_send_again(session, error):
                    self._waiting.put_bulk_back(bulk)
                    return
            fail([bulk], functools.partial(error_of_sending, error, self._failures))
        except BaseException:
            fail([bulk], closed_in_flight)
            raise
        else:
            tell([bulk])
        finally:
            self._watchdog.end()


def _is_loss(error: BaseException) -> bool:
    """Return whether the connection failed, and not the task was cancelled."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)
