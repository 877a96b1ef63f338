"""
Moving a listener to a new connection while the old one still serves, so that nothing is missed.

PostgreSQL delivers notifications to all sessions of a database in the same order, that of the
commits. So when both sessions listen on the same channels, the new one notifies a channel of its
own making, to which both listen too. What comes before this marker is taken from the old session,
and what comes behind it from the new one: nothing twice, and nothing not at all. That holds only if
the old one has listened until then: it is asked, as by a heartbeat, for nobody asks later.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._backoff import shortened
from asyncnotify._channels.checksum import Checksum
from asyncnotify._delivery.moment import Moment
from asyncnotify._delivery.registry import portions
from asyncnotify._errors import ConnectionLostError, describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import CLOSE_GRACE, retrieve, start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncnotify._connection.pooler import PoolerCheck
    from asyncnotify._connection.ports import ListeningConnections, ListeningSession
    from asyncnotify._delivery.registry import Registry
    from asyncnotify._delivery.router import Router

    Deliver = Callable[[int, str, str], None]

log = Log("connection")

_SWITCH_TIME: Final = 2.0
"""Seconds for the commands to the new session and the arrival of the marker; a few milliseconds
as a rule. No other command is given meanwhile."""

_MOST_HELD: Final = 65_536
"""Notifications that may be held between the marker of one session and that of the other."""

_ELSEWHERE: Final = "new connections lead to another server than this one"

_RETRY_AFTER: Final = 60.0
"""Seconds after which a replacement that has failed is tried again, if the age is not less."""


class NotListeningError(Exception):
    """The old session does not listen on what it should: what it was not sent is missed."""


class Switch:
    """
    The place in the stream of notifications where one session takes over from another.

    Args:
        deliver: What takes the notifications.
    """

    def __init__(self, deliver: Deliver) -> None:
        self.marker = f"asyncnotify_handover_{secrets.token_hex(8)}"
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._deliver = deliver
        self._old_has_passed = self._new_has_passed = self._old_has_listened = False
        self._of_old: list[tuple[int, str, str]] = []  # behind the marker
        self._of_new: list[tuple[int, str, str]] = []
        self._is_over = False

    def from_old(self, pid: int, channel: str, payload: str) -> None:
        """Take a notification of the old session: it counts until the marker."""
        if channel == self.marker:
            self._old_has_passed = True
            self._look()
        elif not self._old_has_passed:
            self._deliver(pid, channel, payload)
        elif not self._is_over:
            self._hold(self._of_old, (pid, channel, payload))

    def from_new(self, pid: int, channel: str, payload: str) -> None:
        """Take a notification of the new session: it counts from the marker on."""
        if channel == self.marker:
            self._new_has_passed = True
            self._look()
        elif self._new_has_passed and not self._is_over:
            self._hold(self._of_new, (pid, channel, payload))

    def old_has_listened(self) -> None:
        """Note that the old session has listened on everything until behind the marker."""
        self._old_has_listened = True
        self._look()

    def _look(self) -> None:
        have_passed = self._old_has_passed and self._new_has_passed
        if have_passed and self._old_has_listened and not self.reached.done():
            self.reached.set_result(None)

    def _hold(self, held: list[tuple[int, str, str]], item: tuple[int, str, str]) -> None:
        held.append(item)
        if len(held) > _MOST_HELD and not self.reached.done():
            msg = f"more than {_MOST_HELD} notifications came between the two markers"
            self.reached.set_exception(ConnectionLostError(msg))

    def finish(self) -> None:
        """Go on with the new session: deliver what it has brought since the marker."""
        self._end(self._of_new)

    def undo(self) -> None:
        """Go on with the old session: deliver what it has brought since the marker."""
        self._end(self._of_old)

    def _end(self, held: list[tuple[int, str, str]]) -> None:
        self._is_over = True
        for item in held:
            self._deliver(*item)
        self._of_old, self._of_new = [], []


class Handover:
    """
    Prepares a new session beside the old one, and lets it take over.

    Args:
        connections: Open the new session.
        check: Checks that it delivers, if there is a pooler.
        registry: What the old session listens on.
        router: What takes the notifications.
        on_lost: Called when the new session is lost, once it has taken over.
    """

    def __init__(
        self,
        connections: ListeningConnections,
        check: PoolerCheck,
        registry: Registry,
        router: Router,
        on_lost: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._check = check
        self._registry = registry
        self._router = router
        self._on_lost = on_lost
        self._switch = Switch(router.on_notification)
        self._listened: frozenset[str] = frozenset()
        self._server: str | None = None
        self._is_complete = False
        self._task = start(self._prepare(), name="asyncnotify handover")
        self._task.add_done_callback(retrieve)

    @property
    def marker(self) -> str:
        """The channel that both sessions listen on when one takes over."""
        return self._switch.marker

    # -- beside the old session ---------------------------------------------------------------

    async def _prepare(self) -> ListeningSession:
        """Open a session and let it listen on all that the old one listens on."""
        new = await self._connections.open(
            on_notification=self._switch.from_new,
            on_lost=lambda: self._on_lost() if self._is_complete else None,
            last_contact=lambda: self._router.last_contact if self._is_complete else 0.0,
        )
        try:
            if new.behind_pooler:
                probe = await self._check.begin(new)
                await probe.finished()
                await probe.conclude(new)
                await new.find_pid()
            self._server = await new.find_server()
            await self._catch_up(new)
        except BaseException:
            new.terminate()
            raise
        return new

    async def _catch_up(self, new: ListeningSession) -> None:
        """Let the new session listen on what the old one does, and on nothing else."""
        confirmed = self._registry.confirmed
        for channels in portions(sorted(confirmed - self._listened), new.batch_size):
            _raise_refusal(await new.listen(channels))
        for channels in portions(sorted(self._listened - confirmed), new.batch_size):
            await new.unlisten(channels)
        self._listened = confirmed

    @property
    def is_prepared(self) -> bool:
        """Whether the new session is ready, or has failed."""
        return self._task.done()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the new session is ready, or has failed."""
        self._task.add_done_callback(lambda _: callback())

    def cancel(self) -> asyncio.Task[ListeningSession]:
        """Give the new session up, unless it has taken over; return the task that does so."""
        self._task.cancel()
        if not self._is_complete:
            self._task.add_done_callback(_terminate)
        return self._task

    # -- in place of the old session ----------------------------------------------------------

    async def leads_elsewhere(self, old: ListeningSession) -> bool:
        """Return whether the new session is of another server, as far as both tell."""
        self._task.result()
        server = await old.find_server()
        return None not in (server, self._server) and server != self._server

    async def complete(self, old: ListeningSession) -> ListeningSession:
        """
        Let the new session take over, and return it. No other command may be given meanwhile.

        If this raises, the old session goes on, and nothing is lost.

        Raises:
            NotListeningError: The old session has missed something.
            Exception: What the commands raised.
            TimeoutError: The marker did not arrive in time on both.
        """
        new, switch = self._task.result(), self._switch
        old.deliver_to(switch.from_old)
        try:
            _raise_refusal(await old.listen([switch.marker]))
            async with asyncio.timeout(_SWITCH_TIME):
                await self._catch_up(new)
                _raise_refusal(await new.listen([switch.marker]))
                sent = Moment.now()
                await new.notify_plainly(switch.marker)
                await self._prove(old)
                await switch.reached
            _raise_if_lost(new)
        except BaseException:
            new.terminate()
            switch.undo()
            old.deliver_to(self._router.on_notification)
            raise
        self._is_complete = True
        self._router.verify(sent)  # all that was committed before the marker has arrived before it
        switch.finish()
        new.deliver_to(self._router.on_notification)
        return new

    async def _prove(self, old: ListeningSession) -> None:
        """See that the old session listens, now that the marker has been committed."""
        marker = Checksum.of([self._switch.marker])
        everything = self._registry.confirmed_checksum + marker
        if not await old.is_listening(everything, timeout=_SWITCH_TIME):
            raise NotListeningError
        self._switch.old_has_listened()


class Replacement:
    """
    When a connection is to be replaced, and by what.

    Args:
        prepare: Begins a handover.
        max_age: Seconds after which a connection is replaced; None: never.
        on_given_up: Called with a task that has been cancelled, and still ends a session.
    """

    def __init__(
        self,
        prepare: Callable[[], Handover],
        max_age: float | None,
        on_given_up: Callable[[asyncio.Task[Any]], None],
    ) -> None:
        self._prepare = prepare
        self._max_age = max_age
        self._retry_after = _RETRY_AFTER if max_age is None else min(max_age, _RETRY_AFTER)
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._warnings = WarningLimit()
        self._on_given_up = on_given_up
        self.handover: Handover | None = None
        self._marker = ""

    def session_began(self) -> None:
        """Count the age of a new session from here on."""
        self.end()
        if self._max_age is not None:
            self._due = self._loop.time() + shortened(self._max_age)

    def end(self) -> None:
        """Give up what is being prepared."""
        self._due = None
        if self.handover is not None:
            self._on_given_up(self.handover.cancel())
            self.handover = None

    async def complete(self, handover: Handover, old: ListeningSession) -> ListeningSession | None:
        """
        Return the new session, which has taken over; None if the old one goes on.

        Raises:
            NotListeningError: The old one goes on, but does not listen on all that it should.
            ConnectionLostError: The new one is of another server, so notifications are missed.
            Exception: The old session is lost, and why.
        """
        self._marker = handover.marker
        try:
            elsewhere = await handover.leads_elsewhere(old)
            new = None if elsewhere else await handover.complete(old)
        except Exception as error:
            if old.lost:
                raise
            self._failed(error)
            await old.unlisten([self._marker])
            if isinstance(error, NotListeningError):
                raise
            return None
        if new is None:
            raise ConnectionLostError(_ELSEWHERE)
        return new

    async def clean_up(self, old: ListeningSession, new: ListeningSession) -> None:
        """Close the session that was replaced, and unlisten on the marker of the new one."""
        await old.close(CLOSE_GRACE)
        await new.unlisten([self._marker])

    def _failed(self, error: Exception) -> None:
        """Try again later: the old session goes on."""
        self.end()
        if not isinstance(error, NotListeningError):  # of which the repair warns
            log.warning(
                self._warnings,
                type(error).__name__,
                "the connection has reached max_connection_age and could not be replaced: %s; it"
                " stays in use, nothing was missed, and the replacement is tried again",
                describe_error(error),
            )
        self._due = self._loop.time() + self._retry_after

    def seconds_left(self) -> float | None:
        """Return the seconds until a handover is to begin; None if that is not known."""
        return None if self._due is None else max(0.0, self._due - self._loop.time())

    def begin_if_due(self, when_prepared: Callable[[], None]) -> None:
        """Begin a handover if it is time for that."""
        if self._due is not None and self._due <= self._loop.time():
            self._due = None
            self.handover = self._prepare()
            self.handover.add_done_callback(when_prepared)

    @property
    def prepared(self) -> Handover | None:
        """The handover that is to be completed; None: there is none."""
        handover = self.handover
        return handover if handover is not None and handover.is_prepared else None


def _raise_refusal(refused: Mapping[str, Exception]) -> None:
    for error in refused.values():
        raise error


def _raise_if_lost(session: ListeningSession) -> None:
    if session.lost:
        msg = "the new connection was lost"
        raise ConnectionLostError(msg)


def _terminate(task: asyncio.Task[ListeningSession]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()
