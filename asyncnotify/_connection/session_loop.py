"""
What is done with a session: tell the server what is desired, and check that it is there.

The connection task runs ``SessionLoop.keep``, and it alone gives commands to the session. Others
change what is desired and call ``notice_change()``, or call ``ask()``, and wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncnotify._connection.handover import NotListeningError
from asyncnotify._connection.pooler import DeliveryChecks, OwnNotifications
from asyncnotify._delivery.moment import Moment
from asyncnotify._delivery.registry import Listen
from asyncnotify._errors import ConnectionLostError, describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import GivenUp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from asyncnotify._connection.handover import Handover, Replacement
    from asyncnotify._connection.limits import Limits
    from asyncnotify._connection.ports import Failures, ListeningSession
    from asyncnotify._delivery.registry import Registry, Unlisten
    from asyncnotify._delivery.router import Router

T = TypeVar("T")

log = Log("connection")

_AUDIT_INTERVAL: Final = 5
"""Heartbeat intervals after which the server is asked although notifications keep arriving."""

_LOOK_INTERVAL: Final = 1.0
"""Seconds between two checks whether the driver considers the connection closed: asyncpg calls back
when a connection is closed, but not when its protocol has aborted."""


@dataclass(slots=True)
class AnsweredHeartbeat:
    """When the last heartbeat was answered, and after how many seconds; None before the first."""

    at: datetime | None = None
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    ask: Callable[[ListeningSession], Awaitable[Any]]
    answer: asyncio.Future[Any]


class SessionLoop:
    """Keeps one session after another in agreement with the registry."""

    def __init__(
        self, registry: Registry, router: Router, limits: Limits, failures: Failures
    ) -> None:
        self.session: ListeningSession | None = None
        self.last_heartbeat = AnsweredHeartbeat()
        self.answered = False  # whether the server has answered a heartbeat in this session
        self._registry = registry
        self._router = router
        self._limits = limits
        self._failures = failures
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._settling: list[asyncio.Future[None]] = []
        self.given_up = GivenUp()  # connections beside the session that are being made
        self._questions: list[_Question] = []
        self._last_probe = 0.0
        self._warnings = WarningLimit()
        self.delivery = DeliveryChecks(self.notice_change)
        self._own_notifications = OwnNotifications(router, self.delivery.suspect)
        self._replacement: Replacement
        self._on_replaced: Callable[[ListeningSession, ListeningSession], None]

    # -- for callers --------------------------------------------------------------------------

    def notice_change(self) -> None:
        """Compare what is desired with what the server has confirmed, soon."""
        self._changed.set()

    async def settled(self) -> None:
        """Return once the server agrees with what is desired now, or the session is gone."""
        if self.session is not None:
            settled = self._loop.create_future()
            self._settling.append(settled)
            self.notice_change()
            await settled

    async def ask(
        self, question: Callable[[ListeningSession], Awaitable[T]], *, timeout: float
    ) -> T:
        """
        Ask the server, between two other commands.

        Raises:
            ConnectionLostError: There is no connection, or it was lost meanwhile.
            TimeoutError: The answer did not come in time.
            Exception: What the question raised.
        """
        if self.session is None:
            msg = "there is no connection"
            raise ConnectionLostError(msg)
        answer: asyncio.Future[T] = self._loop.create_future()
        self._questions.append(_Question(question, answer))
        self.notice_change()
        try:
            await asyncio.wait({answer}, timeout=timeout)
        except BaseException:
            answer.cancel()
            raise
        if not answer.done():
            answer.cancel()
            msg = f"no answer within {timeout:g} s"
            raise TimeoutError(msg)
        return answer.result()

    def note_sent(self, channel: str) -> None:
        """Note that a notification of our own is committed; see whether the first one arrives."""
        if self._registry.is_confirmed(channel):
            self._own_notifications.note_sent()

    def note_other(self, pid: int) -> None:
        """Another connection of ours was opened, to the backend with this pid."""
        if self.session is not None and self.session.told_pid == pid and not self.session.lost:
            self.delivery.suspect()

    # -- for the supervisor -------------------------------------------------------------------

    def begin(self, session: ListeningSession) -> None:
        """Use this session from here on."""
        self.session = session
        self.answered = False
        self._router.connect(session.flow)
        self._router.touch()
        self._last_probe = self._loop.time()
        self.delivery.session_began(session)
        self._own_notifications.session_began()
        self._replacement.session_began()

    def replace_by(
        self,
        replacement: Replacement,
        on_replaced: Callable[[ListeningSession, ListeningSession], None],
    ) -> None:
        """
        Replace sessions by this, and call ``on_replaced`` with the old and the new one.

        To be called before the first session begins.
        """
        self._replacement = replacement
        self._on_replaced = on_replaced

    def end(self) -> None:
        """The session is gone: wake all who wait for it."""
        self.session = None
        self._router.connect(None)
        self._own_notifications.end()
        self._replacement.end()
        settling, self._settling = self._settling, []
        _release(settling)
        if (check := self.delivery.end()) is not None:
            self.given_up.add(check)
        questions, self._questions = self._questions, []
        for question in questions:
            _fail(question.answer, ConnectionLostError("the connection was lost"))

    async def agree(self, session: ListeningSession) -> Mapping[str, Exception]:
        """
        Return once the server has confirmed what is desired now; that emits the Gaps.

        Returns the channels that the server refused, with the errors; their subscriptions have
        ended.

        Raises:
            ConfigurationError: The server refuses LISTEN itself, which was in force before.
            Exception: A command failed, or the session ended.
        """
        self._router.verify(Moment.now())  # no LISTEN yet: what is lost is sent after now
        refused = await self._reconcile(session)
        check_alive(session)
        return refused

    async def keep(self, session: ListeningSession) -> None:
        """
        Keep the server in agreement, and send heartbeats, until the session is lost.

        From time to time another session takes its place: ``self.session`` is the present one.
        """
        while not session.lost:
            if self._settling or not self._registry.is_settled:
                await self._reconcile(session)
            remaining = self._until_heartbeat()
            if remaining is not None and remaining <= 0:
                await self._beat(session)
            elif self.delivery.is_due:
                await self.delivery.go_on(session)
            elif self._questions:
                await self._answer(session, self._questions.pop(0))
            elif (handover := self._prepared) is not None:
                session = await self._replace(session, handover)
            elif self._registry.is_settled:
                await self._wait_for_change(remaining)

    async def _wait_for_change(self, seconds: float | None) -> None:
        self._replacement.begin_if_due(self.notice_change)
        until_due = self._replacement.seconds_left()
        seconds = min(s for s in (seconds, until_due, _LOOK_INTERVAL) if s is not None)
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    # -- agreement ----------------------------------------------------------------------------

    async def _reconcile(self, session: ListeningSession) -> Mapping[str, Exception]:
        """Give the commands that are due now; then wake those who waited for that."""
        settling, self._settling = self._settling, []
        refused: dict[str, Exception] = {}
        try:
            for step in self._registry.steps(session.batch_size):
                refused.update(await self._perform(session, step))
        finally:
            _release(settling)
        return refused

    async def _perform(
        self, session: ListeningSession, step: Listen | Unlisten
    ) -> Mapping[str, Exception]:
        refused: Mapping[str, Exception] = {}
        if isinstance(step, Listen):
            refused = await session.listen(step.channels)
            self._registry.check_refused(refused)
            step = Listen([channel for channel in step.channels if channel not in refused])
        else:
            await session.unlisten(step.channels)
        check_alive(session)
        self._router.touch()
        self._registry.performed(step)
        for channel, error in refused.items():
            self._refuse(channel, error)
        return refused

    def _refuse(self, channel: str, error: Exception) -> None:
        text = "the subscriptions of channel %r have ended, because LISTEN failed: %s"
        log.error(text, channel, describe_error(error), channel=channel)
        self._registry.refuse(channel, error)

    # -- heartbeats --------------------------------------------------------------------------------

    def _until_heartbeat(self) -> float | None:
        """Return the seconds until the next heartbeat is due; None if there is none."""
        interval = self._limits.heartbeat
        if interval is None:
            return None
        idle = self._router.last_contact + interval
        audit = self._last_probe + interval * _AUDIT_INTERVAL
        return min(idle, audit) - self._loop.time()

    async def _beat(self, session: ListeningSession) -> None:
        """Check that the server is there and listens for this session; repair it if not."""
        # Before asking: the answer comes after all notifications committed before the question
        asked_at, asked = Moment.now(), perf_counter()  # finer than uvloop's clock
        checksum, timeout = self._registry.confirmed_checksum, self._limits.heartbeat_timeout
        agrees = await session.is_listening(checksum, timeout=timeout)
        round_trip = perf_counter() - asked
        self._router.touch()
        self._last_probe = self._loop.time()
        self.answered = True
        self.last_heartbeat = AnsweredHeartbeat(datetime.now(UTC), round_trip)
        if agrees:
            self._router.verify(asked_at)
        else:
            await self._repair(session)
        self.delivery.count_heartbeat()

    async def _repair(self, session: ListeningSession) -> None:
        """Listen again on channels that the server does not listen on; emit a Gap for each."""
        missing = await session.missing(self._registry.confirmed)
        if not missing:
            return
        log.warning(
            self._warnings,
            "no longer listened on",
            "the server no longer listens on %d channel(s) of this listener, which did not unlisten"
            " (look for DISCARD ALL or UNLISTEN * on its connection); listening again; each"
            " subscription concerned gets a Gap",
            len(missing),
        )
        self._registry.strip(missing, self._router.verified_at)
        await self._reconcile(session)

    # -- replacement --------------------------------------------------------------------------

    @property
    def _prepared(self) -> Handover | None:
        """What is prepared to take over, if nothing else goes on with the present session."""
        at_rest = self._registry.is_settled and not self.delivery.goes_on
        return self._replacement.prepared if at_rest else None

    async def _replace(self, old: ListeningSession, handover: Handover) -> ListeningSession:
        """Let a prepared session take over; return the one that serves from here on."""
        try:
            new = await self._replacement.complete(handover, old)
        except NotListeningError:
            await self._beat(old)  # which repairs it, and tells what may have been missed
            return old
        if new is None:
            return old
        self.begin(new)
        self._on_replaced(old, new)
        await self._replacement.clean_up(old, new)
        return new

    # -- questions ----------------------------------------------------------------------------

    async def _answer(self, session: ListeningSession, question: _Question) -> None:
        """Ask for a caller. A refusal is an answer; any other error ends the session."""
        if question.answer.done():
            return  # the caller has given up
        try:
            answer = await question.ask(session)
        except Exception as error:
            _fail(question.answer, error)
            if not self._failures.is_refusal(error):
                raise
        except BaseException:
            _fail(question.answer, ConnectionLostError("the listener was closed"))
            raise
        else:
            if not question.answer.done():
                question.answer.set_result(answer)
        self._router.touch()


def check_alive(session: ListeningSession) -> None:
    """Raise ConnectionLostError if the session is known to be gone."""
    if session.lost:
        raise loss_of(session)


def loss_of(session: ListeningSession) -> ConnectionLostError:
    """Return the loss of a session as an error, with what the server said before, if anything."""
    return ConnectionLostError(session.notice or "the connection ended")


def _release(waiting: Iterable[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # retrieve it: the caller may have been cancelled
