"""
Keeping a listener connected: one session after another, for ever.

One task runs ``Supervisor.hold_sessions``: connect, replay LISTEN, watch over the session until
it is lost, wait, again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg.failures import is_permanent, needs_repair
from asyncnotify._asyncpg.session import ListeningSession
from asyncnotify._backoff import Delays, ExponentialBackoff
from asyncnotify._delivery import Delivery
from asyncnotify._errors import ConfigurationError, ConnectError
from asyncnotify._events import (
    Connected,
    ConnectionEvent,
    ConnectionLost,
    Reconnected,
    RetryScheduled,
    describe_error,
)
from asyncnotify._model import State
from asyncnotify._pooler import PoolerProof
from asyncnotify._registry import Registry
from asyncnotify._watch import Watch, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncnotify._asyncpg.dial import Dialer
    from asyncnotify._keepalive import Keepalive
    from asyncnotify._limits import Limits

_SETTLED_AFTER: Final = 30.0
"""Seconds after which a session has proved its worth, if no heartbeat has been answered."""

_SHORT_LIVED_CAP: Final = 0.8
"""Longest delay in seconds after a session that did listen, but not for long. LISTEN has just
succeeded, so the server is there; it should only not be hammered."""


@dataclass(slots=True)
class Health:
    """What is known of the connection; written by the supervisor, for onlookers."""

    state: State = State.CONNECTING
    generation: int = 0
    connected_since: datetime | None = None
    last_error: Exception | None = None


class Supervisor:
    """Holds the connection of one run of a listener."""

    def __init__(
        self,
        dialer: Dialer,
        limits: Limits,
        backoff: Callable[[], Iterator[float]],
        keepalive: Keepalive | None,
        announce: Callable[[ConnectionEvent], None],
    ) -> None:
        self.health = Health()
        self.delivery = Delivery()
        self.registry = Registry(self.delivery)
        self.watch = Watch(self.registry, self.delivery, limits)
        self.connected = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.started.add_done_callback(lambda started: started.cancelled() or started.exception())
        self._dialer = dialer
        self._limits = limits
        self._backoff = backoff
        self._keepalive = keepalive
        self._announce = announce
        self._pooler_proof = PoolerProof(dialer)
        self._lost_at: float | None = None
        self._farewell: float | None = None
        self.delivery.start(self._loop)

    @property
    def state(self) -> State:
        """What the listener is doing, as far as anybody knows."""
        session = self.watch.session
        if self.health.state is State.CONNECTED and (session is None or session.lost):
            return State.RECONNECTING  # about to be noticed
        return self.health.state

    def say_goodbye(self, seconds: float) -> None:
        """When cancelled, take up to this many seconds to close the session in good order."""
        self._farewell = seconds

    async def hold_sessions(self) -> None:
        """Hold one session after another. Ends by cancellation, or if the start is refused."""
        after_short_lived = Delays(self._backoff)
        while True:
            session = await self._connect()
            if session is None:
                return
            if await self._serve(session):
                after_short_lived = Delays(self._backoff)
            await asyncio.sleep(min(after_short_lived.next(), _SHORT_LIVED_CAP))

    async def _connect(self) -> ListeningSession | None:
        """Try until a session listens; None if the first start is refused for good."""
        delays, attempts = Delays(self._backoff), 0
        delay = delays.next()
        while True:
            await asyncio.sleep(delay)
            attempts += 1
            try:
                session = await self._open_session()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end us
                self.health.last_error = error
                if is_permanent(error) and not self.started.done():
                    self._refuse_start(error)
                    return None
                delay = self._delay_after(error, delays)
                self._report_failure(error, attempts, delay)
            else:
                self._report_success(session, attempts)
                return session

    async def _open_session(self) -> ListeningSession:
        """Connect and replay every LISTEN; once the server has confirmed, the Gaps go out."""
        session = await self._new_session()
        try:
            self.watch.begin(session)
            await self._introduce(session)
            await self.watch.agree(session)
        except BaseException:
            self._drop(session)
            raise
        return session

    async def _new_session(self) -> ListeningSession:
        connection = await self._dialer.dial()
        try:
            return ListeningSession(
                connection,
                on_notification=self.delivery.on_notification,
                on_lost=self._session_lost,
                last_contact=lambda: self.delivery.last_contact,
                timeout=self._limits.command_timeout,
            )
        except BaseException:
            connection.terminate()
            raise

    def _session_lost(self) -> None:
        self.connected.clear()
        self.watch.notice_change()

    async def _introduce(self, session: ListeningSession) -> None:
        """Set keepalive; where a pooler is in the path, make sure that it delivers."""
        if not await session.introduce(self._keepalive):
            trial = await self._pooler_proof.begin(session)
            await trial.finished()
            await trial.conclude(session)
            self.watch.audit_also(self._pooler_proof)

    async def _serve(self, session: ListeningSession) -> bool:
        """Serve one session until it is lost; return whether it has proved its worth."""
        began = self._loop.time()
        cause: Exception | None = None
        try:
            await self.watch.keep(session)
        except asyncio.CancelledError:
            try:
                if self._farewell is not None:
                    await session.close(self._farewell)
            finally:
                self._drop(session)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the session is done for
            cause = error
        self._report_loss(session, cause)
        return self.watch.answered or self._loop.time() - began > _SETTLED_AFTER

    def _drop(self, session: ListeningSession) -> None:
        """Leave a session behind. Nothing of it is delivered from here on."""
        session.terminate()
        self.watch.end()
        self.registry.disconnect(self.delivery.verified_at)

    # -- saying what happened -----------------------------------------------------------------

    def _refuse_start(self, error: Exception) -> None:
        msg = f"cannot connect to {self._dialer.target}: {describe_error(error)}"
        mistakes = (ValueError, TypeError, OverflowError)
        kind = ConfigurationError if isinstance(error, mistakes) else ConnectError
        refusal = error if isinstance(error, ConnectError) else kind(msg)
        if refusal is not error:
            refusal.__cause__ = error
        self.started.set_exception(refusal)

    def _delay_after(self, error: Exception, delays: Delays) -> float:
        if needs_repair(error) and isinstance(self._backoff, ExponentialBackoff):
            return self._backoff.longest()
        return delays.next()

    def _report_failure(self, error: Exception, attempts: int, delay: float) -> None:
        if self.started.done():
            self.health.state = State.DEGRADED if needs_repair(error) else State.RECONNECTING
        self._announce(RetryScheduled(attempts, delay, error, needs_repair(error)))

    def _report_success(self, session: ListeningSession, attempts: int) -> None:
        self.health.state = State.CONNECTED
        self.health.generation += 1
        self.health.connected_since = datetime.now(UTC)
        self.health.last_error = None
        self.connected.set()
        channels = self.registry.confirmed_count
        if self._lost_at is None:
            self._announce(Connected(channels, session.pid))
        else:
            downtime = self._loop.time() - self._lost_at
            self._announce(Reconnected(downtime, attempts, channels, session.pid))
        if not self.started.done():
            self.started.set_result(None)

    def _report_loss(self, session: ListeningSession, cause: Exception | None) -> None:
        self._lost_at = self._loop.time()
        self.health.state = State.RECONNECTING
        self.health.connected_since = None
        self.connected.clear()
        cause = cause or (loss_of(session) if session.notice else None)
        self.health.last_error = cause
        self._drop(session)
        self._announce(ConnectionLost(cause, session.pid))
