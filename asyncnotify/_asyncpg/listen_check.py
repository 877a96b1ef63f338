"""
Whether a server that accepts LISTEN does listen, and whether its answers are its own.

Some servers that speak PostgreSQL's protocol accept LISTEN and ignore it. And a load balancer may
send a question to another server than the one on which the session listens: then the answer says
nothing. No question can find out either; the session sends itself a notification instead.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

from asyncnotify._channels.checksum import Checksum
from asyncnotify._errors import ConfigurationError
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import is_done_within

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Sequence

log = Log("connection")

_ARRIVAL_TIMEOUT: Final = 2.0
"""Seconds for a notification to come back to the session that sent it; it takes a millisecond."""


class Session(Protocol):
    """What the check needs from a session."""

    behind_pooler: bool

    def expect(self, channel: str) -> asyncio.Future[None]:
        """Return a future that is done when a notification arrives on this channel."""
        ...

    async def command_channels(self, verb: str, channels: Sequence[str]) -> None:
        """Give LISTEN, UNLISTEN or NOTIFY, for each of these channels."""
        ...

    async def listened_channels(self) -> frozenset[str]:
        """Return the channels on which the server says that it listens for this session."""
        ...

    async def is_listening(self, channels: Checksum, *, timeout: float) -> bool:
        """Ask whether the server listens for this session on the channels of this checksum."""
        ...


class ListenCheck:
    """What one run of a listener has found out about the server, in all its sessions."""

    def __init__(self, warnings: WarningLimit | None = None) -> None:
        self.warnings = WarningLimit() if warnings is None else warnings
        self.is_due = True
        self.answers_are_believed = True

    async def run(self, session: Session, channels: Sequence[str], *, timeout: float) -> None:
        """
        Make sure, once, that LISTEN for these channels has had an effect. One round trip.

        Raises:
            ConfigurationError: The server does not listen.
        """
        if not await session.is_listening(Checksum.of(channels), timeout=timeout):
            await self.confirm_missing(session, channels, await session.listened_channels())
        self.is_due = False

    async def confirm_missing(
        self, session: Session, channels: Collection[str], listened: frozenset[str]
    ) -> frozenset[str]:
        """
        Return those of these channels that the server does not listen on.

        The answer counts only if it contains a channel on which the session has just begun to
        listen; else no channel is missing, as far as it is known.

        Behind a pooler nothing is concluded from a notification that does not arrive: that the
        pooler gives each statement to another session is found out by the check of poolers.

        Raises:
            ConfigurationError: The server does not listen at all.
        """
        missing = frozenset(channels) - listened
        if not missing or not self.answers_are_believed:
            return frozenset()
        channel = f"asyncnotify_listen_check_{secrets.token_hex(8)}"
        arrived = session.expect(channel)
        try:
            await session.command_channels("LISTEN", [channel])
            if channel in await session.listened_channels():
                return missing
            await session.command_channels("NOTIFY", [channel])
            arrives = await is_done_within(arrived, _ARRIVAL_TIMEOUT)
            if session.behind_pooler and not arrives:
                return missing
            self._conclude(arrives=arrives)
            return frozenset()
        finally:
            arrived.cancel()
            await session.command_channels("UNLISTEN", [channel])

    def _conclude(self, *, arrives: bool) -> None:
        if not arrives:
            msg = (
                "the server, or a connection pooler in front of it, accepts LISTEN, but does not"
                " listen: no notification arrives"
            )
            raise ConfigurationError(msg)
        self.answers_are_believed = False
        log.warning(
            self.warnings,
            "load balancer",
            "a load balancer in the path sends queries to another server than the one that"
            " listens: notifications arrive, but whether LISTEN is still in effect cannot be"
            " checked; heartbeats only show that the connection is alive",
        )
