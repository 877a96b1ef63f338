"""What this room needs of a driver: connections that send, and what their errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class Failures(Protocol):
    """What the errors of a driver mean."""

    def is_permanent(self, error: BaseException, /) -> bool:
        """Return whether retrying will not help until something is fixed."""
        ...

    def is_refusal(self, error: BaseException, /) -> bool:
        """Return whether the server has answered no, on a connection that is still good."""
        ...


class PublishingSession(Protocol):
    """
    A connection on which notifications are sent.

    Sending has no deadline of its own: whoever calls it sees to that, and terminates the
    connection when it is overdue or was cancelled.
    """

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        ...

    async def notify(self, channel: str, payload: str, /) -> None:
        """Send one notification, in a transaction of its own."""
        ...

    async def notify_all(self, channels: Sequence[str], payloads: Sequence[str], /) -> None:
        """Send these notifications, at least one, in this order, in one transaction."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""
        ...


SessionT = TypeVar("SessionT", bound=PublishingSession)


class PublishingConnections(Protocol[SessionT]):
    """Where a publisher has its connection from; it uses one at a time."""

    @property
    def target(self) -> str:
        """What they lead to, for logs and errors."""
        ...

    @property
    def failures(self) -> Failures:
        """What the errors of these connections mean."""
        ...

    async def open(self) -> SessionT:
        """Return one. May be cancelled: none is left behind."""
        ...

    async def rest(self, session: SessionT, /) -> SessionT | None:
        """There is nothing to send for now: return the session if it may be kept."""
        ...

    def drop(self, session: SessionT, /) -> None:
        """Get rid of one that is of no more use, at once."""
        ...

    async def close(self, session: SessionT, seconds: float, /) -> None:
        """Part with one in good order, within this time."""
        ...
