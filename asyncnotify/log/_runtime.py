"""What a log has in one event loop: connections, tasks, and those who read."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import Closed
from asyncnotify._channels.arguments import channels_of
from asyncnotify._delivery.turns import Turns
from asyncnotify._errors import ClosedError
from asyncnotify._owner import Owner
from asyncnotify._tasks import cancel, start
from asyncnotify.log._appending import Appender
from asyncnotify.log._closing import Closing, begin_and_cancel, cancel_twice
from asyncnotify.log._consuming.calling import running_handling
from asyncnotify.log._consuming.consumer import Consumer
from asyncnotify.log._consuming.feed import Feed
from asyncnotify.log._consuming.handler import BucketsWorker, HandlerWorker
from asyncnotify.log._consuming.merging import MergedFeed
from asyncnotify.log._consuming.retrying import handle_dead_letter
from asyncnotify.log._consuming.serving import Server
from asyncnotify.log._consuming.sharing import Sharing
from asyncnotify.log._errors import BucketCountError
from asyncnotify.log._expiring import cancel_from_anywhere, expire_now_and_then
from asyncnotify.log._held import UntilSent
from asyncnotify.log._operating import Operations
from asyncnotify.log._ports import Statement
from asyncnotify.log._reading.decoding import Decoder
from asyncnotify.log._reading.pace import Pace
from asyncnotify.log._reading.sharing import SharedSessions
from asyncnotify.log._reading.stream import LogStream, next_number, take_place
from asyncnotify.log._reading.wake_ups import WakeUps
from asyncnotify.log._reporting import Reporter
from asyncnotify.log._sessions import session_of
from asyncnotify.log._values import Position
from asyncnotify.log._waking import Waker
from asyncnotify.log._walk.buckets import WHOLE, Bucket
from asyncnotify.log._walk.cursor import Cursor
from asyncnotify.log._walk.statements import Statements, tick
from asyncnotify.log._walk.walk import DEFAULT_SIZE, Walk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.log._consuming.calling import Handling
    from asyncnotify.log._consuming.sharing import Served
    from asyncnotify.log._options import Options
    from asyncnotify.log._reading.stream import After
    from asyncnotify.log._status import DeadLetter


_LARGEST_RING: Final = 64


class Runtime:
    """All of it begins when it is used first, and ends with ``aclose()``."""

    def __init__(self, options: Options) -> None:
        self.owner = Owner()
        self._turns = Turns(self.owner.loop)
        self.starting = asyncio.Lock()
        self.is_started = False
        self.serves_handlers = False
        self._options = options
        self.reporter = Reporter(options.names.log, options.sessions.target, options.on_incident)
        self._appender: Appender | None = None
        self._waker: Waker | None = None
        self._shared = SharedSessions(options.sessions)
        self._queries = UntilSent(self._shared)
        self._wake_ups: WakeUps | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._handlers: dict[asyncio.Task[bool], HandlerWorker | BucketsWorker] = {}
        self._served: list[tuple[Handling, asyncio.Task[bool]]] = []
        self._closers: set[asyncio.Task[bool]] = set()  # of handlers that close the log
        self._closing = Closing(self._finish, self._abandon, self._tell_closed)
        self._has_told_end = False
        self._consumers: weakref.WeakSet[Consumer[Any]] = weakref.WeakSet()
        self._streams: weakref.WeakSet[LogStream[Any]] = weakref.WeakSet()

    def appender(self) -> Appender:
        """Return what appends on a connection of the log's own."""
        if self._appender is None:
            options = self._options
            self._appender = Appender(options.sessions, wake=options.wake == "commit")
        return self._appender

    def wake_readers(self) -> None:
        """Have a notification sent."""
        if self._waker is None:
            self._waker = Waker(self._options.sessions, self._options.names)
        self._waker.wake()

    def wake_ups(self) -> WakeUps:
        """Return what wakes those who read."""
        if self._wake_ups is None:
            options = self._options
            listener, owned = options.listener, False
            if listener is None and options.new_listener is not None:
                listener, owned = options.new_listener(), True
            check = functools.partial(self._queries.fetch, tick(options.names))
            self._wake_ups = WakeUps(options.names, listener, owned=owned, check=check)
        return self._wake_ups

    def stream(self, channels: tuple[object, ...], after: After, *, gaps: bool) -> LogStream[Any]:
        """Return the events of some channels, or of all, from a place on."""
        self.check_open()
        options = self._options
        decoder = Decoder(options.names.log, channels)
        walk = Walk(self._shared, Statements(options.names, decoder.names))
        stream: LogStream[Any] = LogStream(
            Cursor(walk, options.names.log),
            decoder,
            self.wake_ups(),
            after,
            gaps=gaps,
            poll=options.poll,
            backoff=options.backoff,
            losses=lambda: self._shared.losses,
            reports=self.reporter.readers,
            owner=self.owner,
            pace=Pace(self._turns),
            on_close=self._closed,
        )
        self._streams.add(stream)
        return stream

    def consumer(
        self,
        name: str,
        channels: tuple[object, ...],
        begin: After,
        *,
        gaps: bool,
        buckets: int,
    ) -> Consumer[Any]:
        """Return a durable consumer, which the user iterates."""
        self.check_open()
        feeds = self._feeds(name, channels, begin, buckets)
        sharing = self._sharing_of(name, buckets)
        feed = feeds(0) if buckets == WHOLE else MergedFeed(feeds, sharing, self._closing.leave)
        consumer: Consumer[Any] = Consumer(
            name,
            feed,
            gaps=gaps,
            owner=self.owner,
            pace=Pace(self._turns),
            on_close=self._consumers.discard,
        )
        self._consumers.add(consumer)
        return consumer

    def serve(self, handling: Handling) -> None:
        """Have a task serve a consumer by calling a function."""
        self.check_open()
        name, buckets = handling.consumer, handling.buckets
        feeds = self._feeds(name, handling.channels, handling.begin, buckets)
        worker = (
            HandlerWorker(handling, feeds(0))
            if buckets == WHOLE
            else BucketsWorker(
                handling,
                feeds,
                self._sharing_of(name, buckets),
                self.reporter.of_consumer(name),
            )
        )
        task = start(worker.run(), name=f"asyncnotify log handler {handling.consumer}")
        self._handlers[task] = worker
        self._served.append((handling, task))

    def _feeds(
        self, name: str, channels: tuple[object, ...], begin: After, buckets: int
    ) -> Callable[[int], Feed]:
        """Return a function that makes what gives the events of one bucket of a consumer."""
        self._keep_expiring()
        channels_of(channels)
        options, reports = self._options, self.reporter.of_consumer(name)
        register = _once(functools.partial(self.register, name, begin, buckets))

        def feed(number: int) -> Feed:
            bucket = Bucket(number, buckets)
            decoder = Decoder(options.names.log, channels)
            statements = Statements(options.names, decoder.names, bucket)
            return Feed(
                register,
                Server(
                    options.sessions,
                    options.names,
                    name,
                    bucket,
                    statements=statements,
                    size=DEFAULT_SIZE,
                ),
                decoder,
                self.wake_ups(),
                backoff=options.backoff,
                poll=options.poll,
                reports=reports,
                leave=self._closing.leave,
            )

        return feed

    def _sharing_of(self, name: str, buckets: int) -> Callable[[Callable[[int], Served]], Sharing]:
        """Return a function that makes what keeps this process's share of the buckets."""
        options = self._options
        reports = self.reporter.of_consumer(name)
        return lambda begin: Sharing(
            options.sessions,
            options.names,
            name,
            count=buckets,
            begin=begin,
            backoff=options.backoff,
            reports=reports,
        )

    async def register(self, name: str, begin: After, buckets: int) -> None:
        """
        Make a consumer in the database, if it is not there.

        Raises:
            BucketCountError: It is there with another number of buckets.
        """
        while (present := await self.operations.buckets_of(name)) is None:
            await self.operations.add(name, buckets, await self.place(begin))
        if present != buckets:
            raise BucketCountError(name, buckets, present)

    @property
    def operations(self) -> Operations:
        """What operators ask and tell."""
        options = self._options
        return Operations(self._queries, options.names, lock_wait=options.lock_wait)

    async def place(self, after: After) -> Position:
        """
        Return the position where a reader would begin.

        Where events have been removed it is before them: whoever goes on there is told.
        """
        name = self._options.names.log
        cursor = Cursor(Walk(self._queries, Statements(self._options.names)), name)
        if await take_place(cursor, after) is None:
            return cursor.position
        return after if isinstance(after, Position) else Position(name, 1, 0, 0)

    async def try_again(self, handling: Handling, letter: DeadLetter) -> None:
        """Call a handler with a dead letter, and remove that if it returns."""
        options = self._options
        async with session_of(options.sessions) as session:
            await handle_dead_letter(session, options.names, handling, letter)

    async def expire(self) -> int:
        """Take ticks, and empty the partitions that are old enough; return how many."""
        names = self._options.names
        await Walk(self._queries, Statements(names)).newest()
        expire = Statement("expire", f"SELECT {names.prefix}_expire()")
        count = 0
        while count < _LARGEST_RING:
            [row] = await self._queries.fetch(expire)
            if row[0] is None:
                break
            count += row[0] >= 0
        return count

    def _keep_expiring(self) -> None:
        if self._expiring is None:
            expire = weakref.WeakMethod(self.expire)
            expiring = expire_now_and_then(expire, self._options.names.log)
            self._expiring = start(expiring, name="asyncnotify log retention")
            # A consumer may be dropped, with its log, that nobody has closed
            weakref.finalize(self, cancel_from_anywhere, self._expiring).atexit = False

    def _closed(self, stream: LogStream[Any]) -> None:
        self._streams.discard(stream)
        self.wake_ups().wake()

    # -- the end ------------------------------------------------------------------------------

    def end_streams(self) -> None:
        """End the streams that there are now, soon; from whatever thread, or a signal handler."""
        if not self.owner.is_other_process:
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                self.owner.loop.call_soon_threadsafe(self._end_streams, next_number())

    def _end_streams(self, before: int) -> None:
        for stream in list(self._streams):
            if stream.number < before:
                stream.end_after_portion()
        if self._wake_ups is not None:
            self._wake_ups.wake()

    def check_open(self) -> None:
        """
        Return unless the log is being closed.

        Raises:
            ClosedError: It is.
        """
        if self._closing.has_begun:
            msg = "the log is being closed"
            raise ClosedError(msg)

    async def aclose(self, timeout: float) -> None:
        """
        End streams, append what has been accepted, and close; within about these seconds.

        In a handler, return once all else has ended; another call waits for that handler, too.
        """
        handling = running_handling()
        self._closers.update(task for other, task in self._served if other is handling)
        for closer in self._closers:
            closer.add_done_callback(lambda _: self._tell_closed())
        self._closing.look_again()
        await self._closing.end(timeout)
        if handling is None and self._closers:
            _, late = await asyncio.wait(self._closers, timeout=self._closing.remaining)
            await cancel_twice(late)

    def _tell_closed(self) -> None:
        """Tell of the end, after what handlers that asked for it have to tell of their event."""
        is_over = self.has_ended and all(closer.done() for closer in self._closers)
        if is_over and not self._has_told_end:
            self._has_told_end = True
            self.reporter.tell(Closed())

    @property
    def runs(self) -> bool:
        """Whether something of it would go on without a Log to close it."""
        loop = self.owner.loop
        is_here = not (self.has_ended or self.owner.is_other_process or loop.is_closed())
        return is_here and bool(self._appender or self._waker or self._handlers)

    @property
    def has_ended(self) -> bool:
        """Whether all has ended, but for handlers that asked for it."""
        return self._closing.has_ended

    def _to_end(self) -> set[asyncio.Task[bool]]:
        return self._handlers.keys() - self._closers

    async def _finish(self) -> None:
        self._end_reading()
        if self._expiring is not None:
            await cancel({self._expiring})
        for worker in self._handlers.values():
            worker.stop()
        await self._closing.wait_until_done(self._to_end)
        await asyncio.gather(*(consumer.aclose() for consumer in list(self._consumers)))
        await self._close_connections(self._closing.remaining)

    async def _close_connections(self, timeout: float) -> None:
        """Close what others work with."""
        parts = [part for part in (self._appender, self._waker, self._wake_ups) if part]
        await asyncio.gather(*(part.aclose(timeout) for part in parts))
        await self._shared.aclose()

    def _end_reading(self) -> None:
        for stream in list(self._streams):
            stream.end()

    async def _abandon(self) -> None:
        self._end_reading()  # no time may have been left to begin in good order
        await begin_and_cancel([consumer.aclose() for consumer in list(self._consumers)])
        expiring = {self._expiring} if self._expiring else set()
        await cancel_twice({*self._to_end(), *expiring})
        self._shared.terminate()
        await self._close_connections(0.0)


def _once(register: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return what registers a consumer once: a bucket that is taken up later would undo a drop."""
    is_registered = False

    async def registered() -> None:
        nonlocal is_registered
        if not is_registered:
            await register()
            is_registered = True

    return registered
