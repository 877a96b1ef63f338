"""What is made of a server that says that it does not listen, though LISTEN has succeeded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncnotify._asyncpg.listen_check import ListenCheck
from asyncnotify._channels.checksum import Checksum
from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


class FakeSession:
    """A session on a server that may listen or not, and that may answer for itself or not."""

    def __init__(self, *, listens: bool = True, answers: bool = True) -> None:
        self.listens, self.answers = listens, answers
        self.behind_pooler = False
        self.listening: set[str] = set()
        self.commands: list[str] = []
        self.expected: dict[str, asyncio.Future[None]] = {}

    def expect(self, channel: str) -> asyncio.Future[None]:
        """Note what is expected."""
        return self.expected.setdefault(channel, asyncio.get_running_loop().create_future())

    async def command_channels(self, verb: str, channels: Sequence[str]) -> None:
        """Do as LISTEN, UNLISTEN and NOTIFY do."""
        self.commands.append(verb)
        for channel in channels:
            if verb == "LISTEN" and self.listens:
                self.listening.add(channel)
            elif verb == "UNLISTEN":
                self.listening.discard(channel)
            elif verb == "NOTIFY" and channel in self.listening:
                self.expected[channel].set_result(None)

    async def listened_channels(self) -> frozenset[str]:
        """Answer, or let another server answer."""
        return frozenset(self.listening if self.answers else ())

    async def is_listening(self, channels: Checksum, *, timeout: float) -> bool:
        """Compare with what the answer would be."""
        return channels == Checksum.of(await self.listened_channels())


async def checked(session: FakeSession) -> ListenCheck:
    """Listen on a channel, and prove that."""
    check = ListenCheck()
    await session.command_channels("LISTEN", ["a"])
    await check.run(session, ["a"], timeout=5)
    return check


async def test_a_server_that_listens_is_asked_once() -> None:
    """One question, no further command; from then on the check is not due any more."""
    session = FakeSession()
    check = await checked(session)
    assert (check.is_due, check.answers_are_believed) == (False, True)
    assert session.commands == ["LISTEN"]


async def test_r54_a_server_that_ignores_listen_is_found_out() -> None:
    """What it sends to itself does not arrive."""
    session = FakeSession(listens=False)
    with pytest.raises(ConfigurationError, match="accepts LISTEN, but does not"):
        await checked(session)
    assert session.commands == ["LISTEN", "LISTEN", "NOTIFY", "UNLISTEN"]


async def test_r39_behind_a_pooler_nothing_is_concluded_from_silence() -> None:
    """Each statement may have met another session: the check of poolers tells what it is."""
    session, check = FakeSession(listens=False), ListenCheck()
    session.behind_pooler = True
    assert await check.confirm_missing(session, ["a"], frozenset()) == {"a"}
    assert check.answers_are_believed


async def test_r59_answers_of_another_server_are_not_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Notifications arrive: so the answer is another server's. One warning, and no Gap for it."""
    session = FakeSession(answers=False)
    check = await checked(session)
    assert not check.answers_are_believed
    assert await check.confirm_missing(session, ["a"], frozenset()) == frozenset()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a load balancer in the path" in caplog.text


async def test_r59_what_the_listening_session_says_is_missing_is_believed() -> None:
    """It names a channel on which it has just begun to listen: then UNLISTEN has happened."""
    session = FakeSession()
    check = await checked(session)
    session.listening.clear()
    missing = await check.confirm_missing(session, ["a"], await session.listened_channels())
    assert missing == {"a"}
    assert check.answers_are_believed
    assert session.listening == set()


async def test_foreign_channels_do_not_matter() -> None:
    """Somebody else listens on our connection: what we asked for is there."""
    session = FakeSession()
    session.listening.add("foreign")
    check = await checked(session)
    assert (check.is_due, session.commands) == (False, ["LISTEN"])
