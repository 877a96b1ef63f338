"""
Whether a connection pooler in the path lets notifications through.

Besides poolers there are multiplexers, which give all connections one backend. PostgreSQL never
gives two connections the same backend pid, as long as both are open.

Asking the server proves nothing: in transaction mode LISTEN is accepted, a NOTIFY on the same
connection arrives, and ``pg_listening_channels()`` may say yes. What proves it is a NOTIFY from
a second connection that arrives while the first one idles.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from contextvars import Context
from typing import TYPE_CHECKING, Final

from asyncnotify._errors import PoolerError, describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import cancel, is_done_within, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._connection.ports import ListeningConnections, ListeningSession
    from asyncnotify._delivery.router import Router

log = Log("connection")

_PROBE_TIMEOUT: Final = 2.0
"""Seconds for sending a notification, and again for its arrival; both take milliseconds."""

_LONGEST_EXTENSION: Final = 6
"""Times so many seconds for the arrival, while other notifications arrive, which came before it."""

_AUDIT_INTERVAL: Final = 5
"""Heartbeats after which a session behind a pooler is checked again."""

_NEXT_ATTEMPT: Final = 60.0
"""Seconds after which a check that was due, and could not be made, is attempted again."""

_RETURN_TIME: Final = 2.0
"""Seconds in which the first notification of our own, on a channel of ours, has to arrive."""


class OwnNotifications:
    """
    Whether the first notification of our own, on a channel of ours, arrives.

    Costs nothing where it does: a timer, once for each session.

    Args:
        router: Counts what arrives.
        suspect: Called if nothing has arrived in time.
    """

    def __init__(self, router: Router, suspect: Callable[[], None]) -> None:
        self._router = router
        self._suspect = suspect
        self._before: int | None = None  # what had arrived; None: there is nothing to look for
        self._timer: asyncio.TimerHandle | None = None

    def session_began(self) -> None:
        """Look anew, in a new session."""
        self.end()
        self._before = self._router.received

    def note_sent(self) -> None:
        """Note that one is committed."""
        before, self._before = self._before, None
        if before is not None and self._router.received == before:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_RETURN_TIME, self._look, before, context=Context())

    def _look(self, before: int) -> None:
        if self._router.received == before:
            self._suspect()

    def end(self) -> None:
        """Look for nothing any more."""
        self._before = None
        if self._timer is not None:
            self._timer.cancel()


class PoolerCheck:
    """Checks whether notifications arrive through a pooler, while the session is in use."""

    def __init__(
        self, connections: ListeningConnections, received: Callable[[], int] = lambda: 0
    ) -> None:
        """
        Check sessions of these connections.

        Args:
            connections: From which a second connection comes.
            received: Returns how many notifications have arrived.
        """
        self.received = received
        self._connections = connections
        self._warnings = WarningLimit(math.inf)

    async def begin(self, session: ListeningSession) -> PoolerProbe:
        """
        Listen on a channel with a random name, and notify it by a second connection.

        Raises:
            Exception: What LISTEN, or setting the defaults of the session, raised.
        """
        await session.set_own_defaults()
        channel = f"asyncnotify_probe_{secrets.token_hex(8)}"
        arrived = session.expect(channel)
        for error in (await session.listen([channel])).values():
            raise error
        return PoolerProbe(
            self,
            self._connections,
            channel,
            arrived,
            session.told_pid,
            behind_pooler=session.behind_pooler,
        )

    def warn(self, why: str, *, behind_pooler: bool) -> None:
        """
        Log that the check could not be made, once at WARNING for each reason to check.

        Args:
            why: What has failed.
            behind_pooler: The session is known to be behind a pooler; False: something has not
                arrived, or another connection had the same backend.
        """
        target = self._connections.target
        text = _POOLER_NOT_CHECKED if behind_pooler else _SUSPICION_NOT_CHECKED
        log.warning(
            self._warnings, f"not checked {behind_pooler}", text, target, why, target=target
        )


class PoolerProbe:
    """One notification, sent by a second connection through the pooler to the first."""

    def __init__(
        self,
        check: PoolerCheck,
        connections: ListeningConnections,
        channel: str,
        arrived: asyncio.Future[None],
        pid: int,
        *,
        behind_pooler: bool,
    ) -> None:
        self._pid = pid
        self._behind_pooler = behind_pooler
        self._shared = False  # whether the second connection has the same backend
        self._check = check
        self._connections = connections
        self._channel = channel
        self._arrived = arrived
        self._task = start(self._run(), name="asyncnotify pooler probe")

    async def _run(self) -> bool | None:
        """Return whether the notification has arrived; None if none could be sent."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                other = await self._connections.notify_by_another(
                    self._channel, timeout=_PROBE_TIMEOUT
                )
        except Exception as error:  # noqa: BLE001 - no error here says anything of delivery
            self._check.warn(describe_error(error), behind_pooler=self._behind_pooler)
            return None
        self._shared = other.told_pid == self._pid
        if self._shared:
            other.terminate()  # a multiplexer may not let it end in good order
            return False
        try:
            arrived = await self._arrives()
        except BaseException:
            other.terminate()
            raise
        await other.close(_PROBE_TIMEOUT)
        return arrived

    async def _arrives(self) -> bool:
        """Return whether the notification arrives; in a burst it waits behind all others."""
        for _ in range(_LONGEST_EXTENSION):
            before = self._check.received()
            if await is_done_within(self._arrived, _PROBE_TIMEOUT):
                return True
            if self._check.received() == before:
                break
        return False

    @property
    def done(self) -> bool:
        """Whether the probe has ended."""
        return self._task.done()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the probe has ended."""
        self._task.add_done_callback(lambda _: callback())

    async def finished(self) -> None:
        """Return when the probe has ended. Cancelling the call cancels the probe, and ends it."""
        try:
            await asyncio.wait({self._task})
        except BaseException:
            await cancel({self.cancel()})
            raise

    def cancel(self) -> asyncio.Task[bool | None]:
        """Cancel the probe; return its task, which still ends the second connection."""
        self._task.cancel()
        self._arrived.cancel()
        return self._task

    async def conclude(self, session: ListeningSession) -> bool:
        """
        Unlisten on the channel of the probe.

        Returns:
            True if the notification has arrived; False if none could be sent, which proves nothing.

        Raises:
            PoolerError: The notification has not arrived.
        """
        delivers = None if self._task.cancelled() else self._task.result()
        self._arrived.cancel()
        await session.unlisten([self._channel])
        if delivers is False:
            await session.reset_defaults()
            target = self._connections.target
            if self._shared:
                raise PoolerError(_shared(target, self._pid))
            raise PoolerError(_refusal(target) if self._behind_pooler else _not_delivered(target))
        return bool(delivers)


class DeliveryChecks:
    """
    When one session after another is checked, and the check that goes on.

    Args:
        notice_due: Called when a check is due, or is to be concluded.
    """

    def __init__(self, notice_due: Callable[[], None]) -> None:
        self.suspects = False
        """Signs of a pooler that passes for a server were seen, and no check was passed since."""
        self._notice_due = notice_due
        self._loop = asyncio.get_running_loop()
        self._check: PoolerCheck
        self._probe: PoolerProbe | None = None
        self._due_at = math.inf
        self._is_audited, self._beats = False, 0

    def check_by(self, check: PoolerCheck) -> None:
        """Make each check by this one. To be called before the first is due."""
        self._check = check

    def suspect(self) -> None:
        """Check as soon as possible, and each new session, until a check is passed."""
        self.suspects, self._due_at = True, self._loop.time()
        self._notice_due()

    def session_began(self, session: ListeningSession) -> None:
        """Check this session from here on: at once if there are signs, else by audits."""
        self._is_audited, self._beats = session.behind_pooler, 0
        self._due_at = self._loop.time() if self.suspects else math.inf

    def count_heartbeat(self) -> None:
        """Count a heartbeat that was answered. After every few, a pooler is checked again."""
        self._beats += 1
        if self._is_audited and self._probe is None and self._beats % _AUDIT_INTERVAL == 0:
            self._due_at = self._loop.time()

    @property
    def is_due(self) -> bool:
        """Whether ``go_on()`` has something to do."""
        return self._loop.time() >= self._due_at if self._probe is None else self._probe.done

    @property
    def goes_on(self) -> bool:
        """Whether a check has begun, and is not concluded."""
        return self._probe is not None

    async def check_now(self, session: ListeningSession) -> None:
        """
        Check a session that is not in use yet.

        Raises:
            PoolerError: It does not deliver.
            Exception: A command of the check failed.
        """
        probe = await self._check.begin(session)
        await probe.finished()
        await self._conclude(probe, session)

    async def go_on(self, session: ListeningSession) -> None:
        """
        Begin the check that is due, or conclude the one that has ended.

        Raises:
            PoolerError: The session does not deliver.
            Exception: A command of the check failed.
        """
        probe, self._probe = self._probe, None
        if probe is not None:
            await self._conclude(probe, session)
            return
        self._due_at = math.inf
        self._probe = await self._check.begin(session)
        self._probe.add_done_callback(self._notice_due)

    async def _conclude(self, probe: PoolerProbe, session: ListeningSession) -> None:
        if await probe.conclude(session):
            self.suspects, self._due_at = False, math.inf
        elif self.suspects:
            self._due_at = self._loop.time() + _NEXT_ATTEMPT

    def end(self) -> asyncio.Task[bool | None] | None:
        """Cancel the check that goes on; return its task, which still ends a connection."""
        probe, self._probe = self._probe, None
        return None if probe is None else probe.cancel()


_POOLER_NOT_CHECKED: Final = (
    "%s is a connection pooler; the listener could not check whether notifications are delivered,"
    " because a second connection could not send one: %s"
)
_SUSPICION_NOT_CHECKED: Final = (
    "the connection to %s seems to deliver no notifications: one that the listener has sent itself"
    " has not arrived, or another connection has the same backend; the listener could not check"
    " whether notifications are delivered, because a second connection could not send one: %s"
)


def _shared(target: str, pid: int) -> str:
    return (
        f"{target} is a multiplexer that gives all connections the same backend ({pid}), as PGlite"
        " behind its socket server does: notifications do not reach the connection that listens."
        " Connect to a PostgreSQL server"
    )


_REMEDY: Final = "Connect to PostgreSQL itself, or through a pool with pool_mode = session"


def _refusal(target: str) -> str:
    return (
        f"{target} is a connection pooler in transaction or statement mode (such as PgBouncer with"
        " pool_mode = transaction), which accepts LISTEN and never delivers a notification."
        f" {_REMEDY}"
    )


def _not_delivered(target: str) -> str:
    return (
        f"{target} accepts LISTEN and delivers no notification: one that a second connection has"
        " sent did not arrive. A connection pooler in transaction or statement mode does that (such"
        f" as PgBouncer with pool_mode = transaction). {_REMEDY}"
    )
