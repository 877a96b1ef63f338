"""
One run of a listener, from start() to the end of aclose(): its tasks, and their end.

The supervisor task runs ``Lifetime.run``. The task group of the connection and of the handlers
lives inside it, so that start and close may be called from different tasks.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._deadline import Deadline
from asyncnotify._errors import ConnectTimeoutError, ListenerClosedError
from asyncnotify._events import Closed, describe_error
from asyncnotify._model import State, Stats
from asyncnotify._place import Place
from asyncnotify._roster import Roster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify._asyncpg.session import ListeningSession
    from asyncnotify._delivery import Delivery
    from asyncnotify._events import Announcer
    from asyncnotify._limits import Limits
    from asyncnotify._publisher import Publisher
    from asyncnotify._subscription import HandlerWorker
    from asyncnotify._supervisor import Supervisor

logger = logging.getLogger("asyncnotify.connection")

_LAST_MOMENT: Final = 0.2
"""Seconds granted to handlers for ending after they have been cancelled."""


@dataclass(frozen=True, slots=True)
class ConnectionSnapshot:
    """A snapshot of the listening connection."""

    generation: int
    backend_pid: int | None
    last_contact_age: float | None
    last_error: Exception | None
    channels_desired: int
    channels_confirmed: int


class Lifetime:
    """Starts and ends the tasks of one run."""

    def __init__(
        self,
        supervisor: Supervisor,
        publisher: Publisher,
        limits: Limits,
        announcer: Announcer,
    ) -> None:
        self.place = Place()
        self.roster = Roster(supervisor, self.place)
        self._supervisor = supervisor
        self._publisher = publisher
        self._limits = limits
        self._announcer = announcer
        self._task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._stop_requested = asyncio.Event()
        self._drain = True
        self._deadline = Deadline()
        self._crash: BaseException | None = None
        self._ended: asyncio.Future[None] = self.place.loop.create_future()

    # -- start ----------------------------------------------------------------------------------

    async def start(self, target: str, workers: list[HandlerWorker]) -> None:
        """Return once listening; on failure and on cancellation nothing is left running."""
        for worker in workers:
            self.roster.serve_soon(worker)
        self._task = asyncio.create_task(self.run(), name="asyncnotify supervisor")
        self._task.add_done_callback(self._run_ended)
        try:
            await self.wait_started(target)
        except BaseException:
            await self.end(drain=False, timeout=self._limits.close_timeout)
            raise

    async def wait_started(self, target: str) -> None:
        """Return once listening; raise what start() raises."""
        self._refuse_if_ending()
        started, timeout = self._supervisor.started, self._limits.start_timeout
        await self._first_of(started, timeout)
        if started.done():
            started.result()
        elif self._ended.done():
            msg = "the listener was closed while it was starting"
            raise ListenerClosedError(msg) from self._crash
        else:
            raise self._connect_timeout(target, timeout)

    async def wait_connected(self, target: str, timeout: float | None) -> None:
        """Return once listening, at the first or at a later connection."""
        connected = asyncio.create_task(self._supervisor.connected.wait())
        try:
            self._refuse_if_ending()
            await self._first_of(connected, timeout)
            if not connected.done():
                self._refuse_if_ending()
                raise self._connect_timeout(target, timeout or 0.0)
        finally:
            connected.cancel()

    async def _first_of(self, outcome: asyncio.Future[Any], timeout: float | None) -> None:
        outcomes: set[asyncio.Future[Any]] = {outcome, self._ended}
        await asyncio.wait(outcomes, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _connect_timeout(self, target: str, seconds: float) -> ConnectTimeoutError:
        cause = self._supervisor.health.last_error
        why = f": {describe_error(cause)}" if cause else ""
        error = ConnectTimeoutError(f"not connected to {target} within {seconds:g} s{why}")
        error.__cause__ = cause
        return error

    async def run(self) -> None:
        """Hold the connection and run the handlers, until asked to end."""
        async with asyncio.TaskGroup() as self._group:
            connection = self._group.create_task(
                self._supervisor.hold_sessions(), name="asyncnotify connection"
            )
            try:
                self.roster.open(self._group)
                if self._publisher.has_work:
                    self._start_publishing(self._group)
                await self._stop_requested.wait()
                await self._wind_up(connection)
            except asyncio.CancelledError:
                self.roster.close(discard=True)
                raise

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        self._crash = None if task.cancelled() else task.exception()
        if isinstance(self._crash, Exception):
            logger.critical("the listener has ended by a defect of its own", exc_info=self._crash)
        self._finish()

    # -- while it runs --------------------------------------------------------------------------

    @property
    def publisher(self) -> Publisher:
        """What sends notifications, on a connection that is not the listening one."""
        if self._publishing is None and self._group is not None and not self._ended.done():
            self._start_publishing(self._group)
        return self._publisher

    def _start_publishing(self, group: asyncio.TaskGroup) -> None:
        self._publishing = group.create_task(self._publisher.run(), name="asyncnotify publisher")

    async def ask(
        self, question: Callable[[ListeningSession], Awaitable[None]], *, timeout: float
    ) -> None:
        """Ask the server something, on the listening connection, between two other commands."""
        await self._supervisor.watch.ask(question, timeout=timeout)

    def _refuse_if_ending(self) -> None:
        if self._stop_requested.is_set() or self._ended.done():
            msg = "the listener is closed"
            raise ListenerClosedError(msg)

    # -- the end --------------------------------------------------------------------------------

    async def end(self, *, drain: bool, timeout: float) -> None:
        """
        Stop listening and return when everything has ended, or the timeout is over.

        May be called from a handler, which is not waited for, and several times: the
        shortest deadline stands. Cancelling it ends the rest without draining.
        """
        self._closers.add(self.roster.task_that_runs(asyncio.current_task()))
        self._drain = self._drain and drain
        self._deadline.shorten(timeout if drain else 0.0)
        self._deadline.look_again()
        self._stop_requested.set()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._deadline.shorten(0.0)
            await asyncio.wait({self._ended}, timeout=_LAST_MOMENT * 2)
            raise
        if self._task is not None and self._closers.isdisjoint(self.roster.tasks):
            await asyncio.wait({self._task}, timeout=_LAST_MOMENT)

    async def _wind_up(self, connection: asyncio.Task[None]) -> None:
        self._supervisor.health.state = State.CLOSING
        self._supervisor.connected.clear()
        self._supervisor.say_goodbye(self._deadline.remaining)
        connection.cancel()
        self.roster.close(discard=not self._drain)
        await self._end_tasks({connection, *self.roster.tasks})
        # The publisher last: a handler that finishes its work may need it
        self._publisher.close(self._deadline.remaining)
        if self._publishing is not None:
            await self._end_tasks({self._publishing})
        self._finish()

    async def _end_tasks(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for tasks until the deadline, then cancel them; none is waited for by itself."""
        await self._deadline.wait_until_done(lambda: tasks - self._closers)
        unfinished = {task for task in tasks - self._closers if not task.done()}
        if self._deadline.remaining == 0:
            self.roster.stop_workers()
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=_LAST_MOMENT)
        for task in unfinished - self._closers:
            if not task.done():
                logger.warning("%s goes on though it was cancelled", task.get_name())

    def _finish(self) -> None:
        if self._ended.done():
            return
        self.roster.close(discard=not self._drain)
        self.roster.stop_workers()
        self._publisher.abandon()
        self._supervisor.watch.end()
        self._supervisor.health.state = State.CLOSED
        self._supervisor.health.connected_since = None
        self._supervisor.connected.clear()
        self._ended.set_result(None)
        self._announcer.announce(Closed())

    # -- looking at it --------------------------------------------------------------------------

    @property
    def delivery(self) -> Delivery:
        """Where mailboxes learn what they need to know."""
        return self._supervisor.delivery

    @property
    def has_ended(self) -> bool:
        """Whether this run is over."""
        return self._ended.done() or self.place.loop.is_closed()

    @property
    def state(self) -> State:
        """What the listener is doing."""
        return State.CLOSED if self.has_ended else self._supervisor.state

    @property
    def answer_timeout(self) -> float:
        """Seconds within which a live server answers."""
        return self._limits.heartbeat_timeout

    @property
    def connection(self) -> ConnectionSnapshot:
        """What is known of the connection now."""
        supervisor, session = self._supervisor, self._supervisor.watch.session
        contact = supervisor.delivery.last_contact
        return ConnectionSnapshot(
            generation=supervisor.health.generation,
            backend_pid=session.pid if session is not None else None,
            last_contact_age=self.place.loop.time() - contact if contact else None,
            last_error=supervisor.health.last_error,
            channels_desired=len(supervisor.registry.desired),
            channels_confirmed=supervisor.registry.confirmed_count,
        )

    def stats(self) -> Stats:
        """Return a snapshot of the counters of this run."""
        health, pulse = self._supervisor.health, self._supervisor.watch.pulse
        subscriptions, totals = self.roster.stats()
        return Stats(
            state=self.state,
            received=self._supervisor.delivery.received,
            delivered=totals.delivered,
            dropped=totals.dropped,
            handler_errors=totals.handler_errors,
            decode_errors=totals.decode_errors,
            gaps=totals.gaps,
            reconnects=max(0, health.generation - 1),
            connected_since=health.connected_since,
            last_heartbeat=pulse.at,
            heartbeat_round_trip=pulse.round_trip,
            subscriptions=subscriptions,
        )
