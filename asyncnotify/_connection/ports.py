"""What ``_connection`` needs from a driver: sessions that listen, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from asyncnotify._channels.checksum import Checksum
from asyncnotify._delivery.router import FlowControl


class Failures(Protocol):
    """What the errors of a driver mean."""

    def is_permanent(self, error: BaseException, /) -> bool:
        """Return whether retrying will not help until something is fixed."""
        ...

    def needs_repair(self, error: BaseException, /) -> bool:
        """Return whether the next attempt should wait for the longest delay."""
        ...

    def is_defect(self, error: BaseException, /) -> bool:
        """Return whether this is a fault of a program, and nothing that connecting may meet."""
        ...

    def is_refusal(self, error: BaseException, /) -> bool:
        """Return whether the server refused a command, on a connection that is still good."""
        ...


class ListeningSession(Protocol):
    """
    The connection to the server on which a listener listens. One task gives the commands.

    Each command has a deadline. A command that exceeds it, or is cancelled, ends the session.
    """

    pid: int
    """The backend pid; 0 behind a pooler, until ``find_pid()``."""
    told_pid: int
    """The backend pid that was told on connecting; a pooler may have invented it."""
    notice: str | None
    """What the server said before it ended the session; None if it said nothing."""
    behind_pooler: bool
    """Whether the server process that answers is not the one that was connected to."""

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        ...

    @property
    def flow(self) -> FlowControl | None:
        """Pauses and resumes reading; None if the driver cannot."""
        ...

    @property
    def batch_size(self) -> int:
        """How many channels one ``listen()`` or ``unlisten()`` takes."""
        ...

    async def listen(self, channels: Sequence[str], /) -> Mapping[str, Exception]:
        """
        Return once the server listens; the result has an error for each channel it refused.

        The error is a ChannelNameError, or a ConfigurationError if the server does not listen.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def unlisten(self, channels: Sequence[str], /) -> None:
        """
        Return once the server no longer listens on these channels.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def is_listening(self, channels: Checksum, /, *, timeout: float) -> bool:
        """
        Ask whether the server listens for this session on the channels of this checksum.

        Raises:
            ConnectionLostError: The server is not of the wanted kind any more.
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def set_own_defaults(self) -> None:
        """
        Make sure that the defaults of the role do not keep the session from delivering.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def reset_defaults(self) -> None:
        """
        Undo that: the session may serve others.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def missing(self, channels: Collection[str], /) -> frozenset[str]:
        """
        Return those of these channels on which the server does not listen for this session.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def find_pid(self) -> None:
        """
        Find out the backend pid, if it is not known.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    def deliver_to(self, on_notification: Callable[[int, str, str], None], /) -> None:
        """
        Call this for each notification from here on. Not while one is expected.

        Raises nothing.
        """
        ...

    async def notify_plainly(self, channel: str, /) -> None:
        """
        Send an empty notification from this session.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def find_server(self) -> str | None:
        """
        Return what tells the running server and its database from others; None: unknown.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    def expect(self, channel: str, /) -> asyncio.Future[None]:
        """
        Return a future that is done when a notification arrives on this channel.

        Raises nothing.
        """
        ...

    async def queue_usage(self, *, timeout: float) -> float:
        """
        Return how full the server's notification queue is, from 0 to 1.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def queue_holders(self, *, timeout: float) -> list[dict[str, Any]]:
        """
        Return the sessions that may keep the queue from being emptied, the oldest first.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def close(self, timeout: float, /) -> None:
        """Close in good order, within this many seconds; else terminate. Raises nothing."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once. Nothing of it is delivered from here on."""
        ...


class OtherConnection(Protocol):
    """A second connection that has sent a notification and is still open."""

    told_pid: int

    async def close(self, timeout: float, /) -> None:
        """Close in good order, within this many seconds; else terminate. Raises nothing."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once."""
        ...


class ListeningConnections(Protocol):
    """Opens sessions."""

    @property
    def target(self) -> str:
        """The server that the sessions connect to, as logs and errors name it."""
        ...

    @property
    def failures(self) -> Failures:
        """What the errors of these connections mean."""
        ...

    async def open(
        self,
        *,
        on_notification: Callable[[int, str, str], None],
        on_lost: Callable[[], None],
        last_contact: Callable[[], float],
    ) -> ListeningSession:
        """
        Return a new session. May be cancelled: no connection is left behind.

        Args:
            on_notification: Called with pid, channel and payload of each notification.
            on_lost: Called when the connection is found to be gone.
            last_contact: Returns when the server last answered, by the loop's clock.

        Raises:
            Exception: What the driver, or the caller's ``connect=``, raised.
        """
        ...

    async def notify_by_another(self, channel: str, /, *, timeout: float) -> OtherConnection:
        """
        Send an empty notification by a second connection, and return that connection.

        Raises:
            Exception: As of ``open()``, or the command failed.
        """
        ...
