"""
One run of a listener, from start() to the end of aclose(): its parts, its tasks, and their end.

The supervisor task runs ``Lifetime.run``. The task group of the connection and of the handlers
is inside this task, so that start() and aclose() may be called from different tasks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from asyncnotify._connection.session_loop import SessionLoop
from asyncnotify._connection.supervisor import Supervisor
from asyncnotify._delivery.registry import Registry
from asyncnotify._delivery.router import Router
from asyncnotify._errors import (
    CLOSED,
    ClosedError,
    ConnectError,
    ConnectTimeoutError,
    describe_error,
    own_copy,
)
from asyncnotify._events import Closed
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._model import State, Stats
from asyncnotify._owner import Owner
from asyncnotify._run.deadline import Deadline
from asyncnotify._subscriptions.roster import Roster
from asyncnotify._tasks import CANCEL_GRACE, cancel, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from asyncnotify._connection.limits import Limits
    from asyncnotify._connection.ports import ListeningConnections, ListeningSession
    from asyncnotify._events import Announcer
    from asyncnotify._subscriptions.middleware import Middleware
    from asyncnotify._subscriptions.registration import Registration

log = Log("connection")


class Publishing(Protocol):
    """What sends notifications during the run, and ends with it."""

    async def aclose(self, timeout: float, /) -> None:
        """Send what has been accepted, within this time, and end. Cancelling it gives up."""

    def abandon(self) -> None:
        """End at once, and send nothing more."""


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
    """
    Builds the parts of one run, starts their tasks and ends them.

    Attributes:
        start_has_failed: The run ends, or has ended, because no call of ``start()`` has succeeded.
    """

    def __init__(
        self,
        connections: ListeningConnections,
        publishing: Publishing,
        limits: Limits,
        *,
        backoff: Callable[[], Iterator[float]],
        announcer: Announcer,
    ) -> None:
        self.owner = Owner()
        self.router = Router(self.owner.loop)
        self._registry = Registry(self.router)
        self._session_loop = SessionLoop(self._registry, self.router, limits, connections.failures)
        self._supervisor = Supervisor(
            connections,
            self._registry,
            self.router,
            self._session_loop,
            backoff=backoff,
            announce=announcer.announce,
            max_age=limits.max_connection_age,
        )
        self.roster = Roster(
            self._registry, self._session_loop, self._supervisor.status, self.owner
        )
        self._target = connections.target
        self._publishing = publishing
        self._limits = limits
        self._announcer = announcer
        self._warnings = WarningLimit()
        announcer.check_owner = self.owner.check
        self.start_has_failed: bool = False
        self._starts = 0
        self._has_started = False
        self._task: asyncio.Task[None] | None = None
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._stop_requested = asyncio.Event()
        self._drain = True
        self._deadline = Deadline()
        self._crash: BaseException | None = None
        self._ended: asyncio.Future[None] = self.owner.loop.create_future()

    # -- start ----------------------------------------------------------------------------------

    async def start(
        self, registrations: Iterable[Registration], middleware: Sequence[Middleware] = ()
    ) -> None:
        """Begin the run, once; then as ``wait_started()``."""
        try:
            for registration in registrations:
                self.roster.serve_soon(registration.new_worker(self.router, middleware))
            self._task = start(self.run(), name="asyncnotify supervisor")
            self._task.add_done_callback(self._run_ended)
        except BaseException:
            if self._task is None:
                self._finish()  # no task will
            await self.end(drain=False, timeout=self._limits.close_timeout)
            raise
        await self.wait_started()

    async def wait_started(self) -> None:
        """
        Return once listening.

        A call that fails or is cancelled ends the run, unless another one goes on waiting, or has
        returned: nothing is left running then.
        """
        self._refuse_if_ending()
        self._starts += 1
        try:
            await self._until_started()
            self._has_started = True
        except BaseException:
            refused = self._supervisor.started.done() and self._supervisor.started.exception()
            if not self._has_started and (refused or self._starts == 1):
                self.start_has_failed = self.start_has_failed or not self._stop_requested.is_set()
                await self.end(drain=False, timeout=self._limits.close_timeout)
            raise
        finally:
            self._starts -= 1

    async def _until_started(self) -> None:
        started, timeout = self._supervisor.started, self._limits.start_timeout
        await self._first_of(started, timeout)
        if started.done():
            if refusal := started.exception():
                raise own_copy(refusal)  # several may wait: each has an error of its own
        elif self._ended.done():
            msg = "the listener was closed while it was starting"
            raise ClosedError(msg) from self._crash
        else:
            raise self._connect_timeout(timeout or 0.0)

    async def wait_connected(self, timeout: float | None) -> None:
        """Return once listening, at the first or at a later connection."""
        loop = self.owner.loop
        end = None if timeout is None else loop.time() + timeout
        self._refuse_if_ending()
        while not self._is_connected():  # it may be lost between its coming and the caller's turn
            left = None if end is None else max(0.0, end - loop.time())
            await self._until_connected(left)
            self._refuse_if_ending()
            if not self._is_connected() and end is not None and loop.time() >= end:
                raise self._connect_timeout(timeout or 0.0)

    def _is_connected(self) -> bool:
        """Return whether a session listens, as far as either the driver or the supervisor knows."""
        return self._supervisor.connected.is_set() and self.state is State.CONNECTED

    async def _until_connected(self, timeout: float | None) -> None:
        connected = start(self._supervisor.until_connected(), name="asyncnotify until connected")
        try:
            await self._first_of(connected, timeout)
        finally:
            await cancel({connected})

    async def wait_ended(self, timeout: float | None) -> None:
        """Return when this run is over."""
        await asyncio.wait({self._ended}, timeout=timeout)
        if not self._ended.done():
            msg = f"the listener is {self.state} after {timeout:g} s, and not closed"
            raise TimeoutError(msg)
        if isinstance(self._crash, Exception):
            msg = "the listener has ended because of a bug in asyncnotify"
            raise ClosedError(msg) from self._crash

    async def _first_of(self, outcome: asyncio.Future[Any], timeout: float | None) -> None:
        outcomes: set[asyncio.Future[Any]] = {outcome, self._ended}
        await asyncio.wait(outcomes, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _connect_timeout(self, seconds: float) -> ConnectTimeoutError:
        cause = self._supervisor.status.last_error
        why = f": {describe_error(cause)}" if cause else ""
        error = ConnectTimeoutError(f"not connected to {self._target} within {seconds:g} s{why}")
        # An error of ours has said all by now, and would only be printed once more
        error.__cause__ = cause.__cause__ or cause if type(cause) is ConnectError else cause
        return error

    async def run(self) -> None:
        """Hold the connection and run the handlers, until asked to end."""
        async with asyncio.TaskGroup() as group:
            connection = group.create_task(
                self._supervisor.hold_sessions(), name="asyncnotify connection"
            )
            try:
                self.roster.open(group)
                await self._stop_requested.wait()
                await self._wind_up(connection)
            except asyncio.CancelledError:
                self.roster.close(discard=True)
                raise

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        self._crash = None if task.cancelled() else task.exception()
        try:
            if isinstance(self._crash, Exception):
                log.critical(
                    "the listener has ended because of a bug in asyncnotify: nothing arrives until"
                    " it is started again; please report this traceback",
                    exc_info=self._crash,
                )
        finally:
            self._finish()

    # -- while it runs --------------------------------------------------------------------------

    async def ask(
        self, question: Callable[[ListeningSession], Awaitable[None]], *, timeout: float
    ) -> None:
        """Ask the server something, on the listening connection, between two other commands."""
        await self._session_loop.ask(question, timeout=timeout)

    def note_sent(self, channel: str) -> None:
        """A notification of the listener's own is committed."""
        self._session_loop.note_sent(channel)

    def note_other(self, pid: int) -> None:
        """The listener has a second connection, to the backend with this pid."""
        self._session_loop.note_other(pid)

    def _refuse_if_ending(self) -> None:
        if self._stop_requested.is_set() or self._ended.done():
            raise ClosedError(CLOSED)

    # -- the end --------------------------------------------------------------------------------

    async def end(self, *, drain: bool, timeout: float) -> None:
        """
        Stop listening; return when everything has ended, or after the timeout.

        May be called from a handler, which is then not waited for, and several times: the
        earliest deadline counts. Cancelling the call ends the rest without draining.
        """
        self._closers.add(self.roster.calling_task)
        self._drain = self._drain and drain
        self._deadline.shorten(timeout if drain else 0.0)
        self._deadline.look_again()
        self._stop_requested.set()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._deadline.shorten(0.0)
            await asyncio.wait({self._ended}, timeout=CANCEL_GRACE * 2)
            raise
        if self._task is not None and self._closers.isdisjoint(self.roster.tasks):
            await asyncio.wait({self._task}, timeout=CANCEL_GRACE)

    async def _wind_up(self, connection: asyncio.Task[None]) -> None:
        self._supervisor.close_when_cancelled(self._deadline.remaining)
        connection.cancel()
        self.roster.close(discard=not self._drain)
        await self._end_tasks({connection, *self.roster.tasks})
        # Publishing last: a handler that finishes its work may still call notify()
        closing = start(
            self._publishing.aclose(self._deadline.remaining), name="asyncnotify closing"
        )
        await self._end_tasks({closing})
        self._finish()

    async def _end_tasks(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for tasks until the deadline, then cancel them. A task that closes is left out."""
        await self._deadline.wait_until_done(lambda: tasks - self._closers)
        unfinished = {task for task in tasks - self._closers if not task.done()}
        if self._deadline.remaining == 0:
            self.roster.stop_workers()
        await cancel(unfinished)
        for task in unfinished - self._closers:
            if not task.done():
                log.warning(
                    self._warnings,
                    task.get_name(),
                    "%s did not end within %g s after it was cancelled; it is left running",
                    task.get_name(),
                    CANCEL_GRACE,
                )

    def _finish(self) -> None:
        if self._ended.done():
            return
        try:
            self.roster.close(discard=not self._drain)
            self.roster.stop_workers()
            self._publishing.abandon()
        finally:  # whoever waits for the end, in start() or aclose(), would wait for ever
            self._ended.set_result(None)
            self._announcer.check_owner = None
            self._announcer.announce(Closed())

    # -- reports --------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether this run is over."""
        return self._ended.done() or self.owner.loop.is_closed()

    @property
    def how_ended(self) -> str:
        """The message of the error that a call gets after the end of the run."""
        if self._stop_requested.is_set() or not self.owner.loop.is_closed():
            return CLOSED
        return (
            "the event loop that started the listener has been closed, and the listener with it:"
            " start it in this loop; in tests give the fixture that starts it and the tests the"
            " same loop_scope="
        )

    @property
    def state(self) -> State:
        """What the listener is doing."""
        if self.has_ended:
            return State.CLOSED
        return State.CLOSING if self._stop_requested.is_set() else self._supervisor.state

    @property
    def answer_timeout(self) -> float:
        """Seconds after which a server that does not answer counts as dead."""
        return self._limits.heartbeat_timeout

    @property
    def connection(self) -> ConnectionSnapshot:
        """What is known of the connection now."""
        status, session = self._supervisor.status, self._session_loop.session
        contact = self.router.last_contact
        return ConnectionSnapshot(
            generation=status.generation,
            backend_pid=(session.pid or None) if session is not None else None,
            last_contact_age=self.owner.loop.time() - contact if contact else None,
            last_error=status.last_error,
            channels_desired=len(self._registry.desired),
            channels_confirmed=self._registry.confirmed_count,
        )

    def stats(self) -> Stats:
        """Return a snapshot of the counters of this run."""
        status, heartbeat = self._supervisor.status, self._session_loop.last_heartbeat
        subscriptions, totals = self.roster.stats()
        return Stats(
            state=self.state,
            received=self.router.received,
            delivered=totals.delivered,
            dropped=totals.dropped,
            handler_errors=totals.handler_errors,
            decode_errors=totals.decode_errors,
            rereads=totals.rereads,
            gaps=totals.gaps,
            reconnects=max(0, status.generation - 1),
            connected_since=status.connected_since,
            last_heartbeat=heartbeat.at,
            heartbeat_round_trip=heartbeat.round_trip,
            subscriptions=subscriptions,
        )
