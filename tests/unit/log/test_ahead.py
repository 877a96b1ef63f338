"""Reading ahead on a session: what is sent when, and what waits for what."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from asyncnotify.log._consuming.ahead import AheadSession
from asyncnotify.log._ports import Statement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

PORTION, COMMIT = Statement("short", ""), Statement("commit", "")


class Session:
    """A session that answers when it is told to, and refuses two questions at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = asyncio.Event()
        self.error: Exception | None = None
        self.is_busy = False
        self.cancelled = 0
        self.lost = False
        self.connection = object()

    def terminate(self) -> None:
        """Drop the connection."""
        self.lost = True

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:
        """Answer with the arguments."""
        await self._run(statement.verb)
        return [arguments]

    async def execute(self, statement: Statement, /) -> None:
        """Do nothing."""
        await self._run(statement.verb)

    async def begin(self) -> Any:
        """Begin nothing."""
        await self._run("begin")

    async def _run(self, verb: str) -> None:
        assert not self.is_busy
        self.is_busy = True
        self.asked.append(verb)
        try:
            await self.answer.wait()
            if verb == "short" and self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.is_busy = False

    async def append(self, *_: Any, **__: Any) -> NoReturn:
        """Nobody who serves a consumer appends."""
        raise NotImplementedError

    install = append


class Sessions:
    """Takes sessions back."""

    target = "a server"
    keep = True

    def __init__(self) -> None:
        self.closed: list[object] = []

    async def open(self, *, own: bool = True) -> Session:
        """Make one."""
        raise NotImplementedError

    async def close(self, session: Any) -> None:
        """Note it."""
        assert session.lost or not session.is_busy
        self.closed.append(session)


@pytest.fixture
async def session() -> Session:
    """Return what answers."""
    return Session()


@pytest.fixture
async def ahead(session: Session) -> AheadSession:
    """Return what reads ahead on it."""
    return AheadSession(session)


async def turns(count: int = 5) -> None:
    """Let all tasks run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_expected_is_sent_at_once_and_answered_once(
    session: Session, ahead: AheadSession
) -> None:
    """The answer is that of the same question; asked again it is a new one."""
    await ahead.expect(PORTION, 1, 2)
    assert session.asked == ["short"]
    session.answer.set()
    assert await ahead.fetch(PORTION, 1, 2) == [(1, 2)]
    assert session.asked == ["short"]
    assert await ahead.fetch(PORTION, 1, 2) == [(1, 2)]
    assert session.asked == ["short", "short"]


async def test_another_question_gets_an_answer_of_its_own(
    session: Session, ahead: AheadSession
) -> None:
    """And what was expected keeps: between two portions the cursor is committed."""
    session.answer.set()
    await ahead.expect(PORTION, 1, 2)
    assert await ahead.fetch(COMMIT, 7) == [(7,)]
    await ahead.execute(COMMIT)
    assert await ahead.fetch(PORTION, 3, 4) == [(3, 4)]
    assert await ahead.fetch(PORTION, 1, 2) == [(1, 2)]
    assert session.asked == ["short", "commit", "commit", "short"]


async def test_only_the_last_that_was_expected_is_kept(
    session: Session, ahead: AheadSession
) -> None:
    """What is not asked for takes no memory longer than that."""
    session.answer.set()
    await ahead.expect(PORTION, 1, 2)
    await ahead.expect(PORTION, 3, 4)
    assert await ahead.fetch(PORTION, 1, 2) == [(1, 2)]
    assert await ahead.fetch(PORTION, 3, 4) == [(3, 4)]
    assert session.asked == ["short"] * 3


OTHERS: list[Callable[[AheadSession], Awaitable[object]]] = [
    lambda ahead: ahead.fetch(COMMIT, 7),
    lambda ahead: ahead.execute(COMMIT),
    lambda ahead: ahead.begin(),
    lambda ahead: ahead.expect(COMMIT),
    lambda ahead: ahead.close(Sessions()),
]


@pytest.mark.parametrize("other", OTHERS, ids=["fetch", "execute", "begin", "expect", "close"])
async def test_all_else_waits_for_the_answer(
    session: Session, ahead: AheadSession, other: Callable[[AheadSession], Awaitable[object]]
) -> None:
    """A session does one thing at a time; that what was expected failed is of no concern to it."""
    session.error = RuntimeError("expected")
    await ahead.expect(PORTION)
    waiting = asyncio.ensure_future(other(ahead))
    await turns()
    assert session.asked == ["short"]
    assert not waiting.done()
    session.answer.set()
    await waiting


async def test_an_error_is_raised_to_whoever_asks(session: Session, ahead: AheadSession) -> None:
    """And to nobody else, nor is it reported as never retrieved."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
    session.answer.set()
    session.error = RuntimeError("refused")
    await ahead.expect(PORTION)
    with pytest.raises(RuntimeError, match="refused"):
        await ahead.fetch(PORTION)
    await ahead.expect(PORTION)
    await ahead.fetch(COMMIT)
    gc.collect()
    assert reported == []


async def test_whoever_is_cancelled_cancels_what_he_waits_for(
    session: Session, ahead: AheadSession
) -> None:
    """As with a question that is asked when its answer is wanted."""
    await ahead.expect(PORTION)
    waiting = asyncio.ensure_future(ahead.fetch(PORTION))
    await turns()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert session.cancelled == 1


async def test_terminating_ends_what_is_asked(session: Session, ahead: AheadSession) -> None:
    """And closing waits until that has ended."""
    await ahead.expect(PORTION)
    ahead.terminate()
    assert ahead.lost
    sessions = Sessions()
    await ahead.close(sessions)
    assert session.cancelled == 1
    assert sessions.closed == [session]


async def test_closing_gives_the_session_back_when_it_is_cancelled(
    session: Session, ahead: AheadSession
) -> None:
    """Nobody else would, and what is asked of it must not go on."""
    await ahead.expect(PORTION)
    sessions = Sessions()
    closing = asyncio.ensure_future(ahead.close(sessions))
    await turns()
    closing.cancel()
    await asyncio.wait({closing})
    assert sessions.closed == [session]
    await turns()
    assert session.cancelled == 1
