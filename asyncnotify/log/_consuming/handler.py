"""A consumer whose events are handed to a function of the user's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import asyncpg

from asyncnotify import Gap
from asyncnotify._errors import (
    ConnectionLostError,
    describe_error,
    without_frames,
    without_our_frames,
)
from asyncnotify._logs import Log
from asyncnotify._tasks import start
from asyncnotify.log._consuming.calling import HandlerError, call_handler
from asyncnotify.log._consuming.losses import Losses
from asyncnotify.log._consuming.serving import BusyError, TakenOverError
from asyncnotify.log._errors import LogError
from asyncnotify.log._reading.failures import PASSING, PERMANENT
from asyncnotify.log._values import Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from asyncnotify.log._consuming.calling import Handling
    from asyncnotify.log._consuming.feed import Feed
    from asyncnotify.log._consuming.serving import Serving
    from asyncnotify.log._consuming.sharing import Served, Sharing
    from asyncnotify.log._ports import SessionTransaction
    from asyncnotify.log._reading.decoding import Decoded
    from asyncnotify.log._reporting import Reports
    from asyncnotify.log._values import Position

log = Log("log")

_PAUSE: Final = 1.0
"""Seconds before a handler goes on after an error that is neither its own nor a known one."""


class _LostError(Exception):
    """The session was lost: the event comes again."""


@contextmanager
def _errors_of_what_was_written() -> Generator[None]:
    """
    Raise as the function's error what the server refuses because of what the function has done.

    Such an error would come again at each attempt, so it counts as one, whatever its SQLSTATE: a
    deferred trigger may raise any, and one that is raised in the function counts, too.
    """
    try:
        yield
    except (asyncpg.PostgresError, LogError) as error:
        cause = error.__cause__  # of a LogError, which tells what it would mean for our statements
        refusal = cause if isinstance(cause, asyncpg.PostgresError) else error
        without_frames(refusal)
        raise HandlerError(refusal) from refusal


@asynccontextmanager
async def _rolled_back(serving: Serving, transaction: SessionTransaction) -> AsyncGenerator[None]:
    """Roll back what is done in here if it raises; the end of a session does so, too."""
    try:
        yield
    except BaseException:
        if not serving.session.lost:
            await transaction.rollback()
        raise


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
        self._stop = asyncio.Event()
        self._losses = Losses(handling.retry)

    def stop(self) -> None:
        """End after the event that is being handled, if any."""
        self._stop.set()
        self._feed.interrupt()

    async def run(self) -> bool:
        """
        Run until stopped or cancelled, or until the function has to be stopped.

        Returns whether it may run again: it has been stopped, or others serve the bucket.
        """
        try:
            while not self._stop.is_set():
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
            await self._pause(_PAUSE)
        finally:
            self.is_handling = False

    async def _handle_all(self, found: Any) -> None:  # noqa: ANN401 - a sequence of Decoded
        """Handle events up to a loss; the cursor follows, every 0.1 s."""
        for decoded in found:
            if self._stop.is_set():
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
        if (losses := self._losses.too_many(decoded.position)) is not None:
            await self._give_up(decoded, losses, Losses.error(losses))
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
                    await self._check_held()
                else:
                    await self._give_up(decoded, attempt, error)
            else:
                self._losses.end()
                return

    async def _check_held(self) -> None:
        """
        Return if the event is still to be handled here, after a wait.

        What a transactional function does comes to nothing if not: that asks by itself.
        """
        if not self._handling.transactional and not await self._feed.holds():
            raise _LostError

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
            serving, transaction = await self._begin()
        except (TakenOverError, *PASSING) as error:
            await self._lose(event.position, error, is_called=False)
        try:
            await self._in_transaction(event, serving, transaction)
        except (TakenOverError, *PASSING) as error:
            # What its statements have met is no fault of the function, if not each time
            await self._lose(event.position, error, is_called=True)

    async def _lose(
        self, position: Position, error: Exception | None, *, is_called: bool
    ) -> NoReturn:
        """Give up the session, if there is one; wait, and have the event come again."""
        delay = 0.0
        if not isinstance(error, TakenOverError):
            delay = self._losses.note(position, is_called=is_called)
        if error is not None:
            await self._feed.lose(error, delay)
        await self._pause(delay)
        raise _LostError from error

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until this is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _begin(self) -> tuple[Serving, SessionTransaction]:
        """Begin a transaction in which the consumer cannot be taken by others."""
        serving = self._feed.serving
        transaction = await serving.session.begin()
        async with _rolled_back(serving, transaction):
            await serving.hold()
        return serving, transaction

    async def _in_transaction(
        self, event: Event[Any], serving: Serving, transaction: SessionTransaction
    ) -> None:
        """Call the function, and commit the cursor with what it has done, or nothing of both."""
        try:
            async with _rolled_back(serving, transaction):
                await self._call(event.position, event, serving.session.connection)
                with _errors_of_what_was_written():
                    await serving.commit_in_marked(event.position)
        except HandlerError as error:
            if serving.session.lost:
                msg = "the connection was lost in the handler"
                raise ConnectionLostError(msg) from error
            raise
        with _errors_of_what_was_written():  # of deferred constraints, too
            await transaction.commit()

    async def _call(self, position: Position, *arguments: object) -> None:
        await call_handler(self._handling, position, arguments)

    async def _bury(self, decoded: Decoded, attempts: int, error: BaseException) -> None:
        """Keep the event as a dead letter, and move the cursor behind it, or neither of both."""
        text = describe_error(error)
        try:
            serving = self._feed.serving
            transaction = await serving.session.begin()
            async with _rolled_back(serving, transaction):
                await self._keep(decoded.position, attempts, text)
            await transaction.commit()
        except _LostError:
            await self._lose(decoded.position, None, is_called=False)
        except (TakenOverError, *PASSING) as passing:
            await self._lose(decoded.position, passing, is_called=False)
        self._losses.end()

    async def _keep(self, position: Position, attempts: int, error: str) -> None:
        """Keep an event as a dead letter, in the transaction that is open, with the cursor."""
        feed = self._feed
        is_kept = await feed.bury(position, attempts, error) and await feed.commit(position)
        if not is_kept:  # the feed has given up the session
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
