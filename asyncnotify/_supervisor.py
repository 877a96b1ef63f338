"""
Keeping a listener connected: one session after another, for ever.

One task runs ``Supervisor.hold_sessions``: connect, replay LISTEN, serve until the session is
lost, wait, again. It alone gives commands to the connection. Callers change what is desired in
the registry and call ``notice_change``; this task makes the server agree.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from asyncnotify._asyncpg.failures import is_permanent, needs_repair, was_cancelled_by_server
from asyncnotify._asyncpg.session import ListeningSession
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._delivery import Delivery
from asyncnotify._errors import ConfigurationError, ConnectError, ConnectionLostError
from asyncnotify._events import (
    Connected,
    ConnectionEvent,
    ConnectionLost,
    Reconnected,
    RetryScheduled,
    describe_error,
)
from asyncnotify._model import State
from asyncnotify._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from asyncnotify._asyncpg.dial import Dialer

T = TypeVar("T")

logger = logging.getLogger("asyncnotify.connection")

_AUDIT_INTERVAL: Final = 5
"""Heartbeat intervals after which the server is asked although notifications keep arriving."""

_SETTLED_AFTER: Final = 30.0
"""Seconds after which a session has proved its worth, if no heartbeat has been answered."""

_SHORT_LIVED_CAP: Final = 0.8
"""Longest delay in seconds after a session that did listen, but not for long. LISTEN has just
succeeded, so the server is there; it should only not be hammered."""


_CANCELLED_AT_MOST: Final = 3
"""Times that a statement may be cancelled by somebody (57014) until the session is given up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The times of a listener, in seconds."""

    connect_timeout: float
    heartbeat: float | None
    heartbeat_timeout: float
    operation_timeout: float
    start_timeout: float
    close_timeout: float

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None and name == "heartbeat":
                continue
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                msg = f"{name} must be a positive number of seconds, not {value!r}"
                raise ValueError(msg)

    @property
    def command_timeout(self) -> float:
        """How long LISTEN may take: a dead connection must not live longer than by heartbeat."""
        if self.heartbeat is None:
            return self.operation_timeout
        return min(self.operation_timeout, self.heartbeat + self.heartbeat_timeout)


@dataclass(slots=True)
class Health:
    """What is known of the connection; written by the supervisor, for onlookers."""

    state: State = State.CONNECTING
    reconnects: int = 0
    connected_since: datetime | None = None
    last_heartbeat: datetime | None = None
    round_trip: float | None = None
    last_error: Exception | None = None


class Supervisor:
    """Holds the connection of one run of a listener."""

    def __init__(
        self,
        dialer: Dialer,
        limits: Limits,
        backoff: Callable[[], Iterator[float]],
        announce: Callable[[ConnectionEvent], None],
    ) -> None:
        self.health = Health()
        self.delivery = Delivery()
        self.registry = Registry(self.delivery)
        self.connected = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.started.add_done_callback(lambda started: started.cancelled() or started.exception())
        self._dialer = dialer
        self._limits = limits
        self._backoff = backoff
        self._announce = announce
        self._session: ListeningSession | None = None
        self._changed = asyncio.Event()
        self._settling: list[asyncio.Future[None]] = []
        self._last_probe = 0.0
        self._proved = False
        self._lost_at: float | None = None
        self._farewell: float | None = None
        self.delivery.start(self._loop)

    @property
    def state(self) -> State:
        """What the listener is doing, as far as anybody knows."""
        connected = self.health.state is State.CONNECTED
        if connected and (self._session is None or self._session.lost):
            return State.RECONNECTING  # about to be noticed
        return self.health.state

    def notice_change(self) -> None:
        """Compare what is desired with what the server has confirmed, soon."""
        self._changed.set()

    async def settled(self) -> None:
        """Return once the server agrees with what is desired now, or the session is gone."""
        if self._session is not None:
            settled = self._loop.create_future()
            self._settling.append(settled)
            self.notice_change()
            await settled

    def say_goodbye(self, seconds: float) -> None:
        """When cancelled, take up to this many seconds to close the session in good order."""
        self._farewell = seconds

    # -- one session after another ------------------------------------------------------------

    async def hold_sessions(self) -> None:
        """Hold one session after another. Ends by cancellation, or if the start is refused."""
        after_short_lived = self._backoff()
        while True:
            session = await self._connect()
            if session is None:
                return
            await self._serve(session)
            if self._proved:
                after_short_lived = self._backoff()
            await asyncio.sleep(min(next(after_short_lived), _SHORT_LIVED_CAP))

    async def _connect(self) -> ListeningSession | None:
        """Try until a session listens; None if the first start is refused for good."""
        delays, attempts = self._backoff(), 0
        delay = next(delays)
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
        session = ListeningSession(
            await self._dialer.dial(),
            on_notification=self.delivery.on_notification,
            on_lost=self.notice_change,
            last_contact=lambda: self.delivery.last_contact,
            timeout=self._limits.command_timeout,
        )
        self._session = session
        self.delivery.connect(session.flow)
        self.delivery.touch()
        try:
            while self.registry.due():
                await self._reconcile(session)
            _check_alive(session)
        except BaseException:
            self._drop(session)
            raise
        return session

    async def _serve(self, session: ListeningSession) -> None:
        """Serve one session until it is lost."""
        began, self._proved = self._loop.time(), False
        cause: Exception | None = None
        try:
            await self._watch(session)
        except asyncio.CancelledError:
            if self._farewell is not None:
                await session.close(self._farewell)
            self._drop(session)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the session is done for
            cause = error
        if self._loop.time() - began > _SETTLED_AFTER:
            self._proved = True
        self._report_loss(session, cause)

    def _drop(self, session: ListeningSession) -> None:
        """Leave a session behind. Nothing of it is delivered from here on."""
        session.terminate()
        self._session = None
        self.delivery.connect(None)
        self.registry.disconnect(self.delivery.verified_at())
        settling, self._settling = self._settling, []
        _release(settling)

    # -- one session --------------------------------------------------------------------------

    async def _watch(self, session: ListeningSession) -> None:
        """Keep the server in agreement with what is desired, and the connection proved."""
        self._last_probe = self._loop.time()
        while not session.lost:
            if self._settling or self.registry.due():
                await self._reconcile(session)
            remaining = self._until_heartbeat()
            if remaining is not None and remaining <= 0:
                await self._beat(session)
            elif not self.registry.due():
                await self._wait_for_change(remaining)

    async def _reconcile(self, session: ListeningSession) -> None:
        """Tell the server once what is due now; whoever waits for that goes on."""
        due = self.registry.due()
        settling, self._settling = self._settling, []
        try:
            for batch in session.batches(due.unlisten):
                await self._unlisten(session, batch)
            for batch in session.batches(due.listen):
                await self._listen(session, batch)
        finally:
            _release(settling)

    async def _listen(self, session: ListeningSession, batch: Sequence[str]) -> None:
        asked_at = datetime.now(UTC)
        await _insist(lambda: session.listen(batch))
        self.delivery.touch()
        _check_alive(session)
        self.delivery.verify(asked_at)
        self.registry.confirm(batch)

    async def _unlisten(self, session: ListeningSession, batch: Sequence[str]) -> None:
        self.registry.unconfirm(batch)
        await _insist(lambda: session.unlisten(batch))
        self.delivery.touch()
        _check_alive(session)
        self.registry.discard_held(batch)

    async def _wait_for_change(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def _until_heartbeat(self) -> float | None:
        """Return the seconds until the next heartbeat is due; None if there is none."""
        interval = self._limits.heartbeat
        if interval is None:
            return None
        idle = self.delivery.last_contact + interval
        audit = self._last_probe + interval * _AUDIT_INTERVAL
        return min(idle, audit) - self._loop.time()

    async def _beat(self, session: ListeningSession) -> None:
        """Prove that the server is there and still listens for us; repair it if it does not."""
        asked_at, asked = datetime.now(UTC), self._loop.time()
        count, timeout = self.registry.confirmed_count, self._limits.heartbeat_timeout
        agrees = await _insist(lambda: session.is_listening(count, timeout=timeout))
        answered = self._loop.time()
        self.delivery.touch()
        self._last_probe = answered
        self._proved = True
        self.health.round_trip = answered - asked
        self.health.last_heartbeat = datetime.now(UTC)
        if agrees:
            self.delivery.verify(asked_at)
        else:
            await self._repair(session)

    async def _repair(self, session: ListeningSession) -> None:
        """Listen again on what the server was found not to listen on; each gets a Gap."""
        missing = await session.missing(self.registry.confirmed)
        if not missing:
            return
        logger.warning(
            "the server no longer listens on %d channels for us, though nobody unlistened"
            " (DISCARD ALL or UNLISTEN * on our connection?); listening again",
            len(missing),
        )
        self.registry.strip(missing, self.delivery.verified_at())
        for batch in session.batches(sorted(missing)):
            asked_at = datetime.now(UTC)
            await session.relisten(batch)
            _check_alive(session)
            self.delivery.verify(asked_at)
            self.registry.confirm(batch)

    # -- saying what happened -----------------------------------------------------------------

    def _refuse_start(self, error: Exception) -> None:
        msg = f"cannot connect to {self._dialer.target}: {describe_error(error)}"
        kind = ConfigurationError if isinstance(error, (ValueError, TypeError)) else ConnectError
        refusal = error if isinstance(error, ConnectError) else kind(msg)
        if refusal is not error:
            refusal.__cause__ = error
        self.started.set_exception(refusal)

    def _delay_after(self, error: Exception, delays: Iterator[float]) -> float:
        if needs_repair(error) and isinstance(self._backoff, ExponentialBackoff):
            cap = self._backoff.cap
            return random.uniform(cap / 2, cap)  # noqa: S311 - jitter, not a secret
        return next(delays)

    def _report_failure(self, error: Exception, attempts: int, delay: float) -> None:
        if self.started.done():
            self.health.state = State.DEGRADED if needs_repair(error) else State.RECONNECTING
        self._announce(RetryScheduled(attempts, delay, error))

    def _report_success(self, session: ListeningSession, attempts: int) -> None:
        self.health.state = State.CONNECTED
        self.health.connected_since = datetime.now(UTC)
        self.health.last_error = None
        self.connected.set()
        channels = self.registry.confirmed_count
        if self._lost_at is None:
            self._announce(Connected(channels, session.pid))
        else:
            self.health.reconnects += 1
            downtime = self._loop.time() - self._lost_at
            self._announce(Reconnected(downtime, attempts, channels, session.pid))
        if not self.started.done():
            self.started.set_result(None)

    def _report_loss(self, session: ListeningSession, cause: Exception | None) -> None:
        self._lost_at = self._loop.time()
        self.health.state = State.RECONNECTING
        self.health.connected_since = None
        self.connected.clear()
        cause = cause or (_loss(session) if session.notice else None)
        self.health.last_error = cause
        self._drop(session)
        self._announce(ConnectionLost(cause, session.pid))


def _loss(session: ListeningSession) -> ConnectionLostError:
    return ConnectionLostError(session.notice or "the server closed the connection")


def _check_alive(session: ListeningSession) -> None:
    if session.lost:
        raise _loss(session)


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


async def _insist(command: Callable[[], Awaitable[T]]) -> T:
    """Give a command, and again if it was cancelled at the server: nothing else is wrong."""
    for _ in range(_CANCELLED_AT_MOST - 1):
        try:
            return await command()
        except Exception as error:
            if not was_cancelled_by_server(error):
                raise
    return await command()
