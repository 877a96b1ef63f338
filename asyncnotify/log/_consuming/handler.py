"""A consumer whose events are handed to a function of the user's."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify import Gap
from asyncnotify._channels.arguments import channels_of
from asyncnotify._errors import (
    ConnectionLostError,
    describe_error,
    without_frames,
    without_our_frames,
)
from asyncnotify._logs import Log
from asyncnotify._tasks import start
from asyncnotify.log._consuming.calling import HandlerError, call_handler, result_of
from asyncnotify.log._consuming.serving import (
    MARK,
    MARKED,
    BusyError,
    TakenOverError,
    TransactionEndedError,
)
from asyncnotify.log._errors import LogError
from asyncnotify.log._ports import Statement
from asyncnotify.log._reading.failures import PASSING, PERMANENT
from asyncnotify.log._values import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asyncnotify.log._consuming.calling import Handling
    from asyncnotify.log._consuming.feed import Feed
    from asyncnotify.log._consuming.sharing import Served, Sharing
    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSession
    from asyncnotify.log._reading.decoding import Decoded
    from asyncnotify.log._reporting import Reports
    from asyncnotify.log._status import DeadLetter
    from asyncnotify.log._values import Position

log = Log("log")

_PAUSE: Final = 1.0
"""Seconds before a handler goes on after an error that is neither its own nor a known one."""

_MOST_LOSSES: Final = 5
"""Sessions, one after another, that are lost while one event is handled: then it is the cause."""


class _LostError(Exception):
    """The session was lost: the event comes again."""


@contextmanager
def _errors_of_what_was_written() -> Generator[None]:
    """
    Raise as the function's error what the server refuses because of what the function has done.

    Such an error would come again at each attempt, so it counts as one.
    """
    try:
        yield
    except PASSING:
        raise
    except (asyncpg.PostgresError, TransactionEndedError) as error:
        without_frames(error)
        raise HandlerError(error) from error


class HandlerWorker:
    """
    Calls the function with one event after another, and moves the cursor.

    Args:
        handling: What the user gave.
        feed: Gives the events.
        bucket: Of which bucket they are; None: the consumer is not split.

    Attributes:
        is_handling: Whether it does so now, and does not wait for events.
    """

    def __init__(self, handling: Handling, feed: Feed, bucket: int | None = None) -> None:
        self._handling = handling
        self._bucket = bucket
        self._subject = (
            handling.subject if bucket is None else f"{handling.subject}, bucket {bucket},"
        )
        self._feed = feed
        self.is_handling: bool = False
        self._is_stopping = False
        self._lost_at: Position | None = None  # the event in which a session was lost last
        self._losses = 0

    def stop(self) -> None:
        """End after the event that is being handled, if any."""
        self._is_stopping = True
        self._feed.interrupt()

    async def run(self) -> bool:
        """
        Run until stopped or cancelled, or until the function has to be stopped.

        Returns whether it may run again: it has been stopped, or others serve the bucket.
        """
        try:
            while not self._is_stopping:
                await self._step()
        except BusyError:
            return True
        except HandlerError as error:
            log.error(  # noqa: TRY400 - each error has been logged with its traceback
                "%s is stopped, as Retry(then='stop') says: %s",
                self._subject,
                describe_error(error.error),
            )
            without_our_frames(error.error)  # whoever keeps the incident would keep the session
            self._feed.reports.handler_ended(self._bucket, error.error)
        except (LogError, *PERMANENT) as error:
            log.exception("%s has ended: retrying will not help", self._subject)
            without_frames(error)
            self._feed.reports.handler_ended(self._bucket, error)
        else:
            return True
        finally:
            await self._feed.aclose()
        return False

    async def _step(self) -> None:
        try:
            found = await self._feed.next()
            if not isinstance(found, Gap):
                self.is_handling = True
                await self._handle_all(found)
        except (BusyError, HandlerError, LogError, *PERMANENT):
            raise
        except Exception as error:  # noqa: BLE001 - logged with its traceback
            # A handler that ends by what nobody has thought of would be missed by nobody
            self._feed.reports.unexpected(self._subject, error)
            await self._feed.lose(error, _PAUSE)
            await asyncio.sleep(_PAUSE)
        finally:
            self.is_handling = False

    async def _handle_all(self, found: Any) -> None:  # noqa: ANN401 - a sequence of Decoded
        """Handle events up to a loss; the cursor follows, every 0.1 s."""
        for decoded in found:
            if self._is_stopping:
                return
            try:
                await self._handle(decoded)
            except _LostError:
                return
            if not self._handling.transactional and not await self._feed.handled(decoded.position):
                return

    async def _handle(self, decoded: Decoded) -> None:
        if not isinstance(decoded, Event):
            await self._bury(decoded, 1, decoded.error)
            return
        retry = self._handling.retry
        if decoded.position == self._lost_at and self._losses >= _MOST_LOSSES:
            await self._give_up(decoded, self._losses, _lost_each_time(self._losses))
            return
        delays = retry.delays()
        for attempt in range(1, retry.attempts + 1):
            try:
                await self._attempt(decoded)
            except HandlerError as error:
                if attempt < retry.attempts:
                    delay = next(delays)
                    then = f"the next one follows in {delay:.3g} s"
                    self._log(decoded, attempt, error.error, then)
                    await asyncio.sleep(delay)
                else:
                    await self._give_up(decoded, attempt, error)
            else:
                return

    async def _give_up(self, decoded: Decoded, attempts: int, error: HandlerError) -> None:
        """End this handler, or keep the event as a dead letter, as Retry says."""
        if self._handling.retry.then == "stop":
            self._log(decoded, attempts, error.error, "this was the last attempt")
            raise error
        self._log(decoded, attempts, error.error, "the event becomes a dead letter")
        await self._bury(decoded, attempts, error.error)

    async def _attempt(self, event: Event[Any]) -> None:
        if not self._handling.transactional:
            await self._call(event.position, event)
            return
        try:
            await self._in_transaction(event)
        except (TakenOverError, *PASSING) as error:
            await self._feed.lose(error)
            raise _LostError from error

    async def _in_transaction(self, event: Event[Any]) -> None:
        """Call the function, and commit the cursor with what it has done, or nothing of both."""
        serving = self._feed.serving
        transaction = await serving.session.begin()
        try:
            await serving.hold()
            await self._call(event.position, event, serving.session.connection)
            with _errors_of_what_was_written():
                await serving.commit_in_marked(event.position)
        except HandlerError as error:
            if not serving.session.lost:
                await transaction.rollback()
                raise
            # What its statements have met is no fault of the function, if not each time
            self._losses = self._losses + 1 if event.position == self._lost_at else 1
            self._lost_at = event.position
            msg = "the connection was lost in the handler"
            raise ConnectionLostError(msg) from error
        except BaseException:
            if not serving.session.lost:
                await transaction.rollback()
            raise
        with _errors_of_what_was_written():  # of deferred constraints, too
            await transaction.commit()

    async def _call(self, position: Position, *arguments: object) -> None:
        await call_handler(self._handling, position, arguments)

    async def _bury(self, decoded: Decoded, attempts: int, error: BaseException) -> None:
        """Keep the event as a dead letter, and move the cursor behind it, or neither of both."""
        text, feed = describe_error(error), self._feed
        try:
            session = feed.serving.session
            transaction = await session.begin()
            try:
                is_done = await feed.bury(decoded.position, attempts, text)
                is_done = is_done and await feed.commit(decoded.position)
            except BaseException:
                if not session.lost:
                    await transaction.rollback()
                raise
            if is_done:
                await transaction.commit()
                return
            if not session.lost:
                await transaction.rollback()
        except (TakenOverError, *PASSING) as passing:
            await feed.lose(passing)
            raise _LostError from passing
        raise _LostError

    def _log(self, decoded: Decoded, attempt: int, error: BaseException, then: str) -> None:
        log.error(
            "%s raised for the event at %s in attempt %d of %d; %s",
            self._subject,
            decoded.position,
            attempt,
            max(attempt, self._handling.retry.attempts),
            then,
            exc_info=error,
        )


class _ServedBucket:
    """A bucket whose events are handed to the function, by a worker in a task of its own."""

    def __init__(self, worker: HandlerWorker, name: str) -> None:
        self._worker = worker
        self.is_released: bool = False
        self.task = start(worker.run(), name=name)

    @property
    def is_busy(self) -> bool:
        return self._worker.is_handling

    def release(self) -> None:
        self.is_released = True
        self._worker.stop()


class BucketsWorker:
    """
    Calls the function with the events of a share of the consumer's buckets, at the same time.

    Args:
        handling: What the user gave.
        feeds: Makes what gives the events of the bucket of a number.
        sharing: Makes what keeps the share, with a function that begins to serve a bucket.
        reports: Of what happens to the consumer.
    """

    def __init__(
        self,
        handling: Handling,
        feeds: Callable[[int], Feed],
        sharing: Callable[[Callable[[int], Served]], Sharing],
        reports: Reports,
    ) -> None:
        self._handling = handling
        self._reports = reports
        self._feeds = feeds
        self._first = feeds(0)
        self._sharing = sharing(self._begin)
        self._is_stopping = False

    def stop(self) -> None:
        """End after the events that are being handled."""
        self._is_stopping = True
        self._sharing.stop()

    async def run(self) -> bool:
        """Run until stopped or cancelled, or until retrying will not help."""
        while not self._is_stopping:
            try:
                await self._first.ready()  # start() makes only those registered before it
                await self._sharing.run()
            except (LogError, *PERMANENT) as error:
                log.exception("%s has ended: retrying will not help", self._handling.subject)
                without_frames(error)
                self._reports.handler_ended(None, error)
                return False
            except Exception as error:  # noqa: BLE001 - logged with its traceback
                self._reports.unexpected(self._handling.subject, error)
                self._reports.interrupted(self._sharing, error, _PAUSE, needs_repair=False)
                await asyncio.sleep(_PAUSE)
        return True

    def _begin(self, number: int) -> Served:
        worker = HandlerWorker(self._handling, self._feeds(number), number)
        return _ServedBucket(worker, f"asyncnotify log handler {self._handling.consumer} {number}")


def _lost_each_time(count: int) -> HandlerError:
    return HandlerError(
        ConnectionLostError(f"the connection was lost {count} times in the handler")
    )


async def handle_dead_letter(
    session: LogSession, names: Names, handling: Handling, letter: DeadLetter
) -> None:
    """
    Call a handler with a dead letter; remove that if the handler returns.

    It is removed first, in the transaction that commits at the end: who retries the same one
    meanwhile waits for that, and finds it gone.

    Raises:
        LogError: The dead letter is gone: the handler is not called.
        Exception: What the handler raised: the dead letter stays.
    """
    channel = channels_of(handling.channels).get(letter.event.channel)
    event: Event[Any] = letter.event
    if channel is not None:
        payload = channel.decode(letter.event.payload)
        event = _decoded(event, payload)
    transaction = await session.begin()
    try:
        await _discard(session, names, letter)
        connection = (session.connection,) if handling.transactional else ()
        await result_of(handling.function, (event, *connection))
        await _check_marked(session)
    except BaseException:
        if not session.lost:
            await transaction.rollback()
        raise
    await transaction.commit()


async def _check_marked(session: LogSession) -> None:
    """Raise TransactionEndedError unless the transaction is the one that was marked."""
    [row] = await session.fetch(Statement("is_marked", f"SELECT {MARKED}"))
    if not row[0]:
        raise TransactionEndedError


async def _discard(session: LogSession, names: Names, letter: DeadLetter) -> None:
    """Remove a dead letter in the transaction, which is marked."""
    statement = Statement("discard_and_mark", f"SELECT {names.prefix}_discard($1, $2), {MARK}")
    [row] = await session.fetch(statement, letter.consumer, letter.event.id)
    if not row[0]:
        msg = (
            f"the dead letter of consumer {letter.consumer!r} for the event at"
            f" {letter.event.position} is gone: it has been retried or discarded"
        )
        raise LogError(msg)


def _decoded(event: Event[str], payload: object) -> Event[Any]:
    position, event_id, channel, _, key, headers, appended_at = event
    return Event(position, event_id, channel, payload, key, headers, appended_at)
