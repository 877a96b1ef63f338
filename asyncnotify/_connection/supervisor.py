"""
Keeping a listener connected: one session after another.

The connection task runs ``Supervisor.hold_sessions``: connect, LISTEN on every channel, serve the
session until it is lost, wait, begin again.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from asyncnotify._backoff import Delays, ExponentialBackoff, longest_delay
from asyncnotify._connection.handover import Handover, Replacement
from asyncnotify._connection.pooler import PoolerCheck
from asyncnotify._connection.session_loop import loss_of
from asyncnotify._errors import ConfigurationError, ConnectError, cannot_connect, without_frames
from asyncnotify._events import (
    Connected,
    ConnectionEvent,
    ConnectionLost,
    Reconnected,
    Replaced,
    RetryScheduled,
)
from asyncnotify._model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncnotify._connection.ports import ListeningConnections, ListeningSession
    from asyncnotify._connection.session_loop import SessionLoop
    from asyncnotify._delivery.registry import Registry
    from asyncnotify._delivery.router import Router

_SETTLED_AFTER: Final = 30.0
"""Seconds after which a session counts as stable if it has not answered a heartbeat before."""

_CALLBACK_DUE: Final = 0.01
"""Seconds for the event loop to run a callback that is due."""

_DELIVERING_AFTER: Final = 1.0
"""Seconds after which a session counts as stable if it has delivered notifications."""

_SHORT_LIVED_CAP: Final = 0.8
"""Longest delay in seconds after a session that listened, but not for long. The server is there,
since LISTEN has just succeeded; it must only not be asked for sessions without a pause."""


@dataclass(slots=True)
class ConnectionStatus:
    """What is known of the connection. Written by the supervisor alone; it decides nothing."""

    state: State = State.CONNECTING
    generation: int = 0
    connected_since: datetime | None = None
    last_error: Exception | None = None


class Supervisor:
    """Holds the connection of one run of a listener."""

    def __init__(
        self,
        connections: ListeningConnections,
        registry: Registry,
        router: Router,
        session_loop: SessionLoop,
        *,
        backoff: Callable[[], Iterator[float]],
        announce: Callable[[ConnectionEvent], None],
        max_age: float | None = None,
    ) -> None:
        self.status = ConnectionStatus()
        self.connected = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = self._loop.create_future()
        # Retrieve the exception: start() may have been cancelled, and not look at it
        self.started.add_done_callback(lambda started: started.cancelled() or started.exception())
        self._connections = connections
        self._failures = connections.failures
        self._registry = registry
        self._router = router
        self._session_loop = session_loop
        self._backoff = backoff
        self._announce = announce
        self._pooler_check = PoolerCheck(connections, lambda: router.received)
        session_loop.delivery.check_by(self._pooler_check)
        replacement = Replacement(self._new_handover, max_age, session_loop.given_up.add)
        session_loop.replace_by(replacement, self._report_replaced)
        self._lost_at: float | None = None
        self._close_within: float | None = None

    @property
    def state(self) -> State:
        """What the connection is doing, as far as it is known."""
        session = self._session_loop.session
        if self.status.state is State.CONNECTED and (session is None or session.lost):
            return State.RECONNECTING  # the driver knows of the loss, the task not yet
        return self.status.state

    async def until_connected(self) -> None:
        """Return once a session listens, as far as it is known."""
        await self.connected.wait()
        while self.state is not State.CONNECTED:  # the driver knows of a loss, its callback is due
            await asyncio.sleep(_CALLBACK_DUE)
            await self.connected.wait()

    def close_when_cancelled(self, seconds: float) -> None:
        """When cancelled, take up to this many seconds to close the session in good order."""
        self._close_within = seconds

    async def hold_sessions(self) -> None:
        """Hold one session after another. Ends by cancellation, or if the start is refused."""
        # _connect() begins each outage without a delay. A server that drops every new session
        # would then be asked for sessions without a pause, so their losses have delays of their own
        after_short_lived = Delays(self._backoff)
        try:
            while (session := await self._connect()) is not None:
                if await self._serve(session):
                    after_short_lived = Delays(self._backoff)
                await asyncio.sleep(_drawn_below_cap(after_short_lived.next()))
        finally:
            self.status.connected_since = None
            self.connected.clear()
            self._session_loop.end()
            await self._session_loop.given_up.ended()

    async def _connect(self) -> ListeningSession | None:
        """Try until a session listens; None if the first start is refused for good."""
        delays, attempts = Delays(self._backoff), 0
        delay = delays.next()
        while True:
            await asyncio.sleep(delay)
            attempts += 1
            try:
                session = await self._open_session()
            except Exception as error:  # noqa: BLE001 - no error may end the attempts
                if not self._failures.is_defect(error):
                    without_frames(error)
                self.status.last_error = error
                if self._failures.is_permanent(error) and not self.started.done():
                    self._refuse_start(error)
                    return None
                delay = self._delay_after(error, delays)
                self._report_failure(error, attempts, delay)
            else:
                self._report_success(session, attempts)
                return session

    async def _open_session(self) -> ListeningSession:
        """Connect and LISTEN on every channel; the server's confirmation emits the Gaps."""
        session = await self._connections.open(
            on_notification=self._router.on_notification,
            on_lost=self._session_lost,
            last_contact=lambda: self._router.last_contact,
        )
        try:
            self._session_loop.begin(session)
            if session.behind_pooler or self._session_loop.delivery.suspects:
                await self._session_loop.delivery.check_now(session)
                await session.find_pid()
            refused = await self._session_loop.agree(session)
            if not self.started.done():
                _raise_what_concerns_all(refused)
        except BaseException:
            self._drop(session)
            raise
        return session

    def _session_lost(self) -> None:
        self.connected.clear()
        self._session_loop.notice_change()

    def _new_handover(self) -> Handover:
        return Handover(
            self._connections, self._pooler_check, self._registry, self._router, self._session_lost
        )

    async def _serve(self, session: ListeningSession) -> bool:
        """Serve one session until it is lost; return whether it was stable."""
        began, received = self._loop.time(), self._router.received
        cause: Exception | None = None
        try:
            await self._session_loop.keep(session)
        except asyncio.CancelledError:
            session = self._session_loop.session or session
            try:
                if self._close_within is not None:
                    await session.close(self._close_within)
            finally:
                self._drop(session)
            raise
        except Exception as error:  # noqa: BLE001 - any error ends the session
            if not self._failures.is_defect(error):
                without_frames(error)  # which hold the session
            cause = error
        self._report_loss(self._session_loop.session or session, cause)
        lived = self._loop.time() - began
        delivered = self._router.received > received and lived > _DELIVERING_AFTER
        return self._session_loop.answered or delivered or lived > _SETTLED_AFTER

    def _drop(self, session: ListeningSession) -> None:
        """Give a session up. Nothing of it is delivered from here on."""
        session.terminate()  # before the mailboxes are held: a late callback must find it detached
        self._session_loop.end()
        self._registry.disconnect(self._router.verified_at)

    # -- reporting ----------------------------------------------------------------------------

    def _refuse_start(self, error: Exception) -> None:
        refusal = error
        if not isinstance(error, ConnectError):
            refusal = cannot_connect(self._connections.target, error, is_permanent=True)
        self.started.set_exception(refusal)

    def _delay_after(self, error: Exception, delays: Delays) -> float:
        if self._failures.needs_repair(error) and isinstance(self._backoff, ExponentialBackoff):
            return longest_delay(self._backoff)
        return delays.next()

    def _report_failure(self, error: Exception, attempts: int, delay: float) -> None:
        needs_repair = self._failures.needs_repair(error)
        if self.started.done():
            self.status.state = State.DEGRADED if needs_repair else State.RECONNECTING
        self._announce(RetryScheduled(attempts, delay, error, needs_repair))

    def _report_success(self, session: ListeningSession, attempts: int) -> None:
        self.status.state = State.CONNECTED
        self.status.generation += 1
        self.status.connected_since = datetime.now(UTC)
        self.status.last_error = None
        self.connected.set()
        channels = self._registry.confirmed_count
        if self._lost_at is None:
            self._announce(Connected(channels, session.pid))
        else:
            downtime = self._loop.time() - self._lost_at
            self._announce(Reconnected(downtime, attempts, channels, session.pid))
        if not self.started.done():
            self.started.set_result(None)

    def _report_replaced(self, old: ListeningSession, new: ListeningSession) -> None:
        self.status.connected_since = datetime.now(UTC)
        self.connected.set()  # the old session may have ended at the same moment
        self._announce(Replaced(self._registry.confirmed_count, new.pid, old.pid))

    def _report_loss(self, session: ListeningSession, cause: Exception | None) -> None:
        self._lost_at = self._loop.time()
        self.status.state = State.RECONNECTING
        self.status.connected_since = None
        self.connected.clear()
        cause = cause or (loss_of(session) if session.notice else None)
        self.status.last_error = cause
        self._drop(session)
        self._announce(ConnectionLost(cause, session.pid))


def _raise_what_concerns_all(refused: Mapping[str, Exception]) -> None:
    """Raise ConfigurationError if the server refused LISTEN itself, not the name of a channel."""
    for error in refused.values():
        if isinstance(error, ConfigurationError):
            raise error


def _drawn_below_cap(delay: float) -> float:
    """Return the delay, or one drawn below the cap: listeners that lost one server spread out."""
    if delay <= _SHORT_LIVED_CAP:
        return delay
    return random.uniform(0, _SHORT_LIVED_CAP)  # noqa: S311 - jitter, not a secret
