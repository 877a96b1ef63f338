"""What a consumer is to handle next, through every loss of its session."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from asyncnotify._backoff import Delays
from asyncnotify._errors import describe_error
from asyncnotify._logs import Log
from asyncnotify._owner import Owner, leave_to_parent
from asyncnotify._tasks import cancel, retrieve, start
from asyncnotify.log._consuming.serving import PROGRESS, TakenOverError
from asyncnotify.log._reading.failures import PASSING, needs_repair, raise_if_final
from asyncnotify.log._walk.cursor import Expired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from asyncnotify import Gap
    from asyncnotify._backoff import Backoff
    from asyncnotify.log._consuming.serving import Server, Serving
    from asyncnotify.log._reading.decoding import Decoded, Decoder
    from asyncnotify.log._reading.wake_ups import WakeUps
    from asyncnotify.log._reporting import Reports
    from asyncnotify.log._values import Position
    from asyncnotify.log._walk.columns import Columns

    Leave: TypeAlias = Callable[[Coroutine[object, None, None]], None]

_Found: TypeAlias = "Sequence[Decoded] | Gap"
_What: TypeAlias = "tuple[str, Position | None]"

_INTERVAL: Final = 0.1
"""Seconds between commits behind what is handled event by event: each waits for the server's disk,
and writes a version of the consumer's row that VACUUM has to remove."""

log = Log("log")


class Feed:
    """
    Gives the events behind the consumer's cursor, portion by portion, and moves the cursor.

    Tasks of its own talk to the server, one after another: cancelling a caller costs neither the
    session nor what it has brought.

    Args:
        register: Makes the consumer in the database, if it is not there.
        server: Makes sessions that serve the consumer.
        decoder: Makes events of rows.
        wake_ups: Say when to look for news.
        backoff: Of attempts to connect.
        poll: Seconds after which to look in any case.
        reports: Of what happens to the consumer.
        leave: Runs the end of what nobody waits for.

    Attributes:
        reports: The same.
    """

    def __init__(
        self,
        register: Callable[[], Awaitable[None]],
        server: Server,
        decoder: Decoder,
        wake_ups: WakeUps,
        *,
        backoff: Backoff,
        poll: float,
        reports: Reports,
        leave: Leave,
    ) -> None:
        self.reports = reports
        self._leave = leave
        self._register = register
        self._server = server
        self._decoder = decoder
        self._wake_ups = wake_ups
        self._backoff = backoff
        self._poll = poll
        self._delays = Delays(backoff)
        self._serving: Serving | None = None
        self._fetching: asyncio.Task[_Found] | None = None
        self._moving: asyncio.Task[bool] | None = None
        self._what: _What | None = None
        self._is_registered = False
        self._is_interrupted = False
        self._progress: Position | None = None
        self._progress_at = 0.0
        self._handled: Position | None = None
        self._columns: Columns | None = None
        self._committed_at = 0.0
        self._owner = Owner()

    def forget(self) -> None:
        """End the session, from whatever thread, without waiting: the consumer is collected."""
        if self._owner.is_other_process:
            leave_to_parent(self._serving)
        elif self._serving is not None or self._fetching is not None:
            with suppress(RuntimeError):  # the loop is closed, and its connections with it
                self._owner.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        """End the session, and what has been left to run by callers that were cancelled."""
        self._is_interrupted = True
        self._drop()
        if self._serving is not None:
            self._leave(self._server.close(self._serving))

    @property
    def serving(self) -> Serving:
        """The session that serves the consumer; it must have brought something."""
        if self._serving is None:
            raise TakenOverError
        return self._serving

    @property
    def is_serving(self) -> bool:
        """Whether this process serves the consumer now, as far as it knows."""
        return self._serving is not None and not self._serving.session.lost

    async def ready(self) -> None:
        """
        Return once the consumer is in the database.

        Raises:
            Exception: What retrying will not help against.
        """
        while not self._is_registered:
            try:
                await self._be_registered()
            except PASSING as error:
                await self._wait_to_retry(error)
            else:
                self._reached()

    async def _be_registered(self) -> None:
        if not self._is_registered:
            await self._register()
            self._is_registered = True
            self.reports.has_succeeded = True

    async def next(self) -> Sequence[Decoded] | Gap:
        """
        Return the next events; or a Gap where events have been removed; none once it is closed.

        Waits while there are none, and while another session serves the consumer. What was given
        before has to be done with: after a loss of the session the events come again that are
        behind the last commit.

        Raises:
            BusyError: Another session serves this bucket, of several, or the consumer is paused.
            UnknownConsumerError: The consumer is not there, or has been dropped.
            Exception: What retrying will not help against.
        """
        left = self._fetching
        if left is None or not left.done():
            await self._settled()
        elif not await self.holds():  # a seek may have come since a cancelled caller has left it
            self._fetching = None
        if self._is_interrupted:
            return ()
        if self._fetching is None:
            self._fetching = start(self._fetch(), name="asyncnotify log consumer")
            self._fetching.add_done_callback(retrieve)
        fetching = self._fetching
        if not fetching.done():
            await asyncio.wait({fetching})
        if self._fetching is fetching:
            self._fetching = None
        return () if fetching.cancelled() else fetching.result()

    async def commit(self, position: Position) -> bool:
        """
        Move the cursor; return False if that failed, and events are to come again.

        Raises:
            Exception: What retrying will not help against.
        """
        self._handled = None
        self._committed_at = self._now
        return await self._move(("commit", position), lambda serving: serving.commit(position))

    async def handled(self, position: Position) -> bool:
        """
        Let the cursor be moved behind an event: every 0.1 s, and before there is a wait.

        Returns as ``commit()``; True too if the cursor is to be moved later.

        Raises:
            Exception: As of ``commit()``.
        """
        self._handled = position
        is_due = self._now - self._committed_at > _INTERVAL
        return not is_due or await self.commit(position)

    async def holds(self) -> bool:
        """Return whether what was given last is still to be handled here; as ``commit()``."""
        return await self._move(("check", None), lambda serving: serving.check())

    async def bury(self, position: Position, attempts: int, error: str) -> bool:
        """
        Keep an event as a dead letter; as ``commit()``, which does not follow from it.

        It is one of those given last, and kept as it was read: retention may have removed it.
        """
        text = error.replace("\0", "").encode(errors="replace").decode()
        columns = self._columns
        if columns is None:
            return False
        is_kept = await self._move(
            ("bury", position),
            lambda serving: serving.bury(position, attempts, text, columns),
        )
        if is_kept:
            self.reports.buried(position, attempts, text)
        return is_kept

    async def _move(self, what: _What, how: Callable[[Serving], Awaitable[None]]) -> bool:
        """Have it done; if a cancelled caller has begun the same, return what becomes of that."""
        # Else one who is always cancelled sooner than the server answers would begin for ever
        if self._moving is None or self._what != what:
            await self._settled()
            self._moving = start(self._moved(how), name="asyncnotify log cursor")
            self._moving.add_done_callback(retrieve)
            self._what = what
        moving = self._moving
        if not moving.done():
            await asyncio.wait({moving})
        if self._moving is moving:
            self._moving = None
        return moving.result()

    async def _settled(self) -> None:
        """Return once the moves that cancelled callers have left are done."""
        while self._moving is not None:
            if self._moving.done():
                self._moving = None
            else:  # another one who has waited for this may begin the next
                await asyncio.wait({self._moving})

    async def _moved(self, how: Callable[[Serving], Awaitable[None]]) -> bool:
        if self._serving is None:
            return False
        try:
            await how(self._serving)
        except (TakenOverError, *PASSING) as error:
            await self.lose(error)
            return False
        return True

    async def lose(self, error: Exception, delay: float = 0.0) -> None:
        """
        Give up the session: the next events are those behind the cursor, in a new one.

        Args:
            error: Why.
            delay: Seconds until that is tried, for the report.
        """
        await self._give_up()
        if isinstance(error, TakenOverError):
            return
        if self._is_interrupted:  # it ends, and does not try again
            log.info("%s lost its session: %s", self.reports.subject, describe_error(error))
        else:
            self.reports.interrupted(self, error, delay, needs_repair=needs_repair(error))

    def interrupt(self) -> None:
        """Let a call that waits return nothing, and later calls too."""
        self._is_interrupted = True
        if self._handled is not None:
            self._wake_ups.wake()  # a query that is cancelled would end the session before a commit
        elif self._fetching is not None:
            self._fetching.cancel()

    async def aclose(self) -> None:
        """Give the consumer back to whoever waits for it, for good; if cancelled, at once."""
        self.reports.gone(self)
        self._is_interrupted = True  # a call that has still to commit must not serve it again
        try:
            await self._settled()
            fetching, self._fetching = self._fetching, None
            if fetching is not None:
                await cancel({fetching})
            if self._handled is not None:
                await self._commit_handled()
        except BaseException:
            self._drop()
            raise
        serving, self._serving = self._serving, None
        if serving is not None:
            try:
                await self._server.close(serving)
            except Exception as error:  # noqa: BLE001 - the session ends in any case
                log.debug("%s lost its session: %s", self.reports.subject, describe_error(error))

    def _drop(self) -> None:
        """End the session, and with it what runs on it."""
        if self._serving is not None:
            self._serving.session.terminate()
        for task in (self._moving, self._fetching):
            if task is not None:
                task.cancel()

    # -- inside -------------------------------------------------------------------------------

    async def _fetch(self) -> _Found:
        has_waited = False
        while not self._is_interrupted:
            seen = self._wake_ups.count
            try:
                found = await self._found(has_waited=has_waited)
            except TakenOverError as error:
                await self.lose(error)
                continue
            except PASSING as error:
                await self._wait_to_retry(error)
                continue
            if found is not None:
                return found
            await self._wait(seen)
            has_waited = True
        return ()

    async def _wait(self, seen: int) -> None:
        """Commit what has been handled, unless there is news already, and wait for news."""
        if self._wake_ups.count != seen or not await self._commit_handled():
            return
        await self._wake_ups.wait(seen, self._poll)
        await self._commit_progress()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _commit_handled(self) -> bool:
        """Do as ``commit()``, in a task that has the session already."""
        if (position := self._handled) is None:
            return True
        self._committed_at = self._now
        is_done = await self._moved(lambda serving: serving.commit(position))
        self._handled = None  # not before: an interruption would cancel the commit
        return is_done

    async def _commit_progress(self) -> None:
        """Now and then move the cursor past events that the consumer does not want."""
        serving, now = self._serving, self._now
        if serving is None or now - self._progress_at < PROGRESS:
            return
        self._progress_at = now
        if serving.cursor.position != self._progress:
            self._progress = serving.cursor.position
            await self._moved(lambda current: current.commit(serving.cursor.position))

    async def _found(self, *, has_waited: bool) -> Sequence[Decoded] | Gap | None:
        if self._serving is None or self._serving.session.lost:
            await self._serve()
        serving = self.serving
        self._columns = None
        expired, serving.expired = serving.expired, None
        if expired is not None:
            return self.reports.expired(expired)
        portion = await serving.cursor.portion()
        self._reached()  # not before: who can take the consumer may still be unable to read
        if isinstance(portion, Expired):
            return self.reports.expired(portion)
        if portion is None or has_waited:
            await serving.check()  # a seek, a pause or a drop may have come since the last commit
        if portion is None:
            return None
        self._columns = portion.columns
        return self._decoder.decoded(portion)

    async def _give_up(self) -> None:
        self._handled = None
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.session.terminate()
            with suppress(Exception):
                await self._server.close(serving)

    async def _serve(self) -> None:
        await self._give_up()  # where so far only the server has ended the session
        await self._be_registered()
        await self._wake_ups.start()
        self._serving = await self._server.open(on_wait=self._reached)

    def _reached(self) -> None:
        """Note that events can be read, or that another session does that."""
        self._delays = Delays(self._backoff)
        self.reports.succeeded(self)

    async def _wait_to_retry(self, error: Exception) -> None:
        raise_if_final(error, is_new=not self.reports.has_succeeded)
        delay = self._delays.next()
        await self.lose(error, delay)
        await asyncio.sleep(delay)
