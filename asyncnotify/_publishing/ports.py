"""What ``_publishing`` needs from a driver: connections that send, and what errors mean."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol


class Failures(Protocol):
    """What the errors of a driver mean."""

    def is_permanent(self, error: BaseException, /) -> bool:
        """Return whether retrying will not help until something is fixed."""
        ...

    def is_defect(self, error: BaseException, /) -> bool:
        """Return whether this is a fault of a program, and nothing that connecting may meet."""
        ...

    def is_refusal(self, error: BaseException, /) -> bool:
        """Return whether the server refused a command, on a connection that is still good."""
        ...

    def is_unsent(self, error: BaseException, /) -> bool:
        """Return whether a command failed before the server had it: it may be sent again."""
        ...


class PublishingSession(Protocol):
    """
    A connection on which notifications are sent.

    Sending has no deadline of its own: the caller sets one, and terminates the connection when
    a call is overdue or was cancelled.
    """

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        ...

    def notify(self, channel: str, payload: str, /) -> Awaitable[object]:
        """
        Send one notification, in a transaction of its own.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    def notify_all(self, channels: Sequence[str], payloads: Sequence[str], /) -> Awaitable[object]:
        """
        Send these notifications, at least one, in this order, in one transaction.

        Raises:
            Exception: The command failed, or the session ended: ``failures`` says what an error
                means.
        """
        ...

    async def rest(self) -> bool:
        """
        Nothing is to be sent for now: return whether the session may be kept for later.

        Raises nothing.
        """
        ...

    async def close(self, timeout: float, /) -> None:
        """End the session in good order, within this many seconds. Raises nothing."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything. Idempotent."""
        ...


class PublishingConnections(Protocol):
    """Opens connections for a publisher, which uses one at a time."""

    @property
    def target(self) -> str:
        """The server that the connections lead to, as logs and errors name it."""
        ...

    @property
    def failures(self) -> Failures:
        """What the errors of these connections mean."""
        ...

    async def open(self) -> PublishingSession:
        """
        Return a connection. May be cancelled: no connection is left behind.

        Raises:
            Exception: What the driver, or the caller's ``connect=``, raised.
        """
        ...
