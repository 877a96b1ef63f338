"""
Watching over one session: the server agrees with what is desired, and is proved to be there.

One task runs ``Watch.keep``, and it alone gives commands to the session. Whoever changes what
is desired, or wants to ask the server something, leaves word here.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from asyncnotify._asyncpg.failures import (
    is_about_the_name,
    is_refusal,
    is_truncated_status,
    was_cancelled_by_server,
)
from asyncnotify._errors import ConnectionLostError
from asyncnotify._events import describe_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncnotify._asyncpg.session import ListeningSession
    from asyncnotify._delivery import Delivery
    from asyncnotify._limits import Limits
    from asyncnotify._registry import Registry

T = TypeVar("T")

logger = logging.getLogger("asyncnotify.connection")

_AUDIT_INTERVAL: Final = 5
"""Heartbeat intervals after which the server is asked although notifications keep arriving, and
heartbeats after which what costs more is asked as well."""

_LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at whether the driver calls the connection closed: asyncpg tells of it
by a callback, but not where its protocol has aborted."""

_CANCELLED_AT_MOST: Final = 3
"""Times that a statement may be cancelled by somebody (57014) until the session is given up."""


@dataclass(slots=True)
class Pulse:
    """The last heartbeat that was answered."""

    at: datetime | None = None
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    ask: Callable[[ListeningSession], Awaitable[Any]]
    answer: asyncio.Future[Any]


class Trial(Protocol):
    """Something that is being tried out beside all else."""

    @property
    def done(self) -> bool:
        """Whether it is over."""
        ...

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call this when it is over."""

    def cancel(self) -> None:
        """Give it up."""

    async def conclude(self, session: ListeningSession) -> None:
        """Clean up after it; raise if the session was found to be of no use."""


class Proof(Protocol):
    """Whether the session, which is alive, delivers."""

    async def begin(self, session: ListeningSession) -> Trial:
        """Begin to try that out."""
        ...


class Watch:
    """Keeps one session after another in agreement with the registry."""

    def __init__(self, registry: Registry, delivery: Delivery, limits: Limits) -> None:
        self.session: ListeningSession | None = None
        self.pulse = Pulse()
        self.answered = False  # whether this session has answered a heartbeat
        self._registry = registry
        self._delivery = delivery
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._settling: list[asyncio.Future[None]] = []
        self._questions: list[_Question] = []
        self._last_probe = 0.0
        self._beats = 0
        self._proof: Proof | None = None
        self._trial: Trial | None = None

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
        await asyncio.wait({answer}, timeout=timeout)
        if not answer.done():
            answer.cancel()
            msg = f"no answer within {timeout:g} s"
            raise TimeoutError(msg)
        return answer.result()

    # -- for the supervisor -------------------------------------------------------------------

    def begin(self, session: ListeningSession) -> None:
        """Watch over this session from here on."""
        self.session = session
        self.answered = False
        self._delivery.connect(session.flow)
        self._delivery.touch()
        self._last_probe = self._loop.time()
        self._beats = 0
        self._proof = None

    def audit_also(self, proof: Proof) -> None:
        """Every few heartbeats try this as well, beside all else."""
        self._proof = proof

    def end(self) -> None:
        """The session is gone: nobody needs to wait for it any more."""
        self.session = None
        self._delivery.connect(None)
        settling, self._settling = self._settling, []
        _release(settling)
        if self._trial is not None:
            self._trial.cancel()
            self._trial = None
        questions, self._questions = self._questions, []
        for question in questions:
            _fail(question.answer, ConnectionLostError("the connection was lost"))

    async def agree(self, session: ListeningSession) -> None:
        """Return once the server has confirmed what is desired now; that opens the mailboxes."""
        self._delivery.verify(datetime.now(UTC))  # nothing is in force yet: no loss is earlier
        await self._reconcile(session)
        check_alive(session)

    async def keep(self, session: ListeningSession) -> None:
        """Keep the server in agreement and the connection proved, until it is known to be lost."""
        while not session.lost:
            if self._settling or self._registry.due():
                await self._reconcile(session)
            remaining = self._until_heartbeat()
            if remaining is not None and remaining <= 0:
                await self._beat(session)
            elif self._trial is not None and self._trial.done:
                trial, self._trial = self._trial, None
                await trial.conclude(session)
            elif self._questions:
                await self._answer(session, self._questions.pop(0))
            elif not self._registry.due():
                await self._wait_for_change(remaining)

    async def _wait_for_change(self, seconds: float | None) -> None:
        seconds = _LOOK_INTERVAL if seconds is None else min(seconds, _LOOK_INTERVAL)
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    # -- agreement ----------------------------------------------------------------------------

    async def _reconcile(self, session: ListeningSession) -> None:
        """Tell the server once what is due now; whoever waits for that goes on."""
        due = self._registry.due()
        settling, self._settling = self._settling, []
        try:
            for batch in session.batches(due.unlisten):
                if still_due := self._registry.unwanted(batch):
                    await self._unlisten(session, still_due)
            for batch in session.batches(due.listen):
                if still_due := self._registry.wanted(batch):
                    await self._listen(session, still_due)
        finally:
            _release(settling)

    async def _listen(self, session: ListeningSession, batch: Sequence[str]) -> None:
        try:
            await self._listen_despite_server_bug(session, batch)
        except Exception as error:
            if not is_about_the_name(error):
                raise
            await self._listen_one_by_one(session, batch, error)
        else:
            self._confirm(session, batch)

    async def _listen_one_by_one(
        self, session: ListeningSession, batch: Sequence[str], error: Exception
    ) -> None:
        """The server refused one name, and with it all: find out which, and end only that."""
        if len(batch) > 1:
            for channel in batch:
                await self._listen(session, [channel])
            return
        logger.error(
            "the server refuses the channel %r: %s; its subscriptions have ended",
            batch[0],
            describe_error(error),
        )
        self._registry.refuse(batch[0], error)

    async def _listen_despite_server_bug(
        self, session: ListeningSession, batch: Sequence[str]
    ) -> None:
        try:
            await _insist(lambda: session.listen(batch))
        except Exception as error:
            if not is_truncated_status(error):
                raise
            await session.empty_queue(error)
            await session.listen(batch)

    def _confirm(self, session: ListeningSession, channels: Sequence[str]) -> None:
        check_alive(session)
        self._delivery.touch()
        self._registry.confirm(channels)

    async def _unlisten(self, session: ListeningSession, batch: Sequence[str]) -> None:
        self._registry.unconfirm(batch)
        await _insist(lambda: session.unlisten(batch))
        check_alive(session)
        self._delivery.touch()
        self._registry.discard_held(batch)

    # -- proof --------------------------------------------------------------------------------

    def _until_heartbeat(self) -> float | None:
        """Return the seconds until the next heartbeat is due; None if there is none."""
        interval = self._limits.heartbeat
        if interval is None:
            return None
        idle = self._delivery.last_contact + interval
        audit = self._last_probe + interval * _AUDIT_INTERVAL
        return min(idle, audit) - self._loop.time()

    async def _beat(self, session: ListeningSession) -> None:
        """Prove that the server is there and still listens for us; repair it if it does not."""
        asked_at, asked = datetime.now(UTC), perf_counter()  # finer than uvloop's clock
        checksum, timeout = self._registry.confirmed_checksum, self._limits.heartbeat_timeout
        agrees = await _insist(lambda: session.is_listening(checksum, timeout=timeout))
        round_trip = perf_counter() - asked
        self._delivery.touch()
        self._last_probe = self._loop.time()
        self.answered = True
        self.pulse = Pulse(datetime.now(UTC), round_trip)
        if agrees:
            self._delivery.verify(asked_at)
        else:
            await self._repair(session)
        self._beats += 1
        if self._proof and not self._trial and self._beats % _AUDIT_INTERVAL == 0:
            self._trial = await self._proof.begin(session)
            self._trial.add_done_callback(self.notice_change)

    async def _repair(self, session: ListeningSession) -> None:
        """Listen again on what the server was found not to listen on; each gets a Gap."""
        missing = await session.missing(self._registry.confirmed)
        if not missing:
            return
        logger.warning(
            "the server no longer listens on %d channel(s) for us, though nobody unlistened"
            " (DISCARD ALL or UNLISTEN * on our connection?); listening again",
            len(missing),
        )
        self._registry.strip(missing, self._delivery.verified_at)
        for batch in session.batches(sorted(missing)):
            await session.relisten(batch)
            self._confirm(session, batch)

    # -- questions ----------------------------------------------------------------------------

    async def _answer(self, session: ListeningSession, question: _Question) -> None:
        """Ask on somebody's behalf. Only an error that is no answer ends the session."""
        if question.answer.done():
            return
        try:
            answer = await question.ask(session)
        except Exception as error:
            _fail(question.answer, error)
            if not is_refusal(error):
                raise
        except BaseException:
            _fail(question.answer, ConnectionLostError("the listener was closed"))
            raise
        else:
            if not question.answer.done():
                question.answer.set_result(answer)
        self._delivery.touch()


def check_alive(session: ListeningSession) -> None:
    """Raise ConnectionLostError if the session is known to be gone."""
    if session.lost:
        raise loss_of(session)


def loss_of(session: ListeningSession) -> ConnectionLostError:
    """Return the loss of a session as an error, with the server's last words if it had any."""
    return ConnectionLostError(session.notice or "the connection ended")


def _release(waiting: Iterable[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever asked may have gone


async def _insist(command: Callable[[], Awaitable[T]]) -> T:
    """Give a command, and again if it was cancelled at the server: nothing else is wrong."""
    for _ in range(_CANCELLED_AT_MOST - 1):
        try:
            return await command()
        except Exception as error:
            if not was_cancelled_by_server(error):
                raise
    return await command()
