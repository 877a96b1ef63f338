"""What this room needs of a driver: sessions that listen, and what their errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Mapping, Sequence

    from asyncnotify._channels.checksum import Checksum
    from asyncnotify._delivery.router import FlowControl


class Failures(Protocol):
    """What the errors of a driver mean."""

    def is_permanent(self, error: BaseException, /) -> bool:
        """Return whether retrying will not help until something is fixed."""
        ...

    def needs_repair(self, error: BaseException, /) -> bool:
        """Return whether the next attempt may as well wait for the longest delay."""
        ...

    def is_refusal(self, error: BaseException, /) -> bool:
        """Return whether the server has answered no, on a connection that is still good."""
        ...


class ListeningSession(Protocol):
    """
    One connection to the server, on which a listener listens. One task gives the commands.

    Each command has a deadline. One that does not meet it, or is cancelled, ends the session.
    """

    pid: int
    notice: str | None
    """What the server said before it ended the session; None where it said nothing."""
    behind_pooler: bool
    """Whether the server process that answers is not the one that was connected to."""

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        ...

    @property
    def flow(self) -> FlowControl | None:
        """The reading side of the connection."""
        ...

    @property
    def batch_size(self) -> int:
        """How many channels one ``listen()`` or ``unlisten()`` takes."""
        ...

    async def listen(self, channels: Sequence[str], /) -> Mapping[str, Exception]:
        """Return once the server listens on these channels, without those that it refuses."""
        ...

    async def unlisten(self, channels: Sequence[str], /) -> None:
        """Return once the server listens on these channels no more."""
        ...

    async def is_listening(self, channels: Checksum, /, *, timeout: float) -> bool:
        """Ask whether the server listens for us on the channels of this checksum."""
        ...

    async def missing(self, channels: Collection[str], /) -> frozenset[str]:
        """Return those of these channels that the server does not listen on for us."""
        ...

    def expect(self, channel: str, /) -> asyncio.Future[None]:
        """Return a future that is done when a notification arrives on this channel."""
        ...

    async def queue_usage(self, *, timeout: float) -> float:
        """Return how full the server's notification queue is, from 0 to 1."""
        ...

    async def queue_holders(self, *, timeout: float) -> list[dict[str, Any]]:
        """Return the sessions that may keep the queue from being emptied, the oldest first."""
        ...

    async def close(self, timeout: float, /) -> None:
        """Say goodbye to the server, for at most this many seconds; then terminate."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once. Nothing of it is delivered from here on."""
        ...


class OtherConnection(Protocol):
    """A second connection, which has sent a notification and is kept open."""

    async def close(self, timeout: float, /) -> None:
        """Say goodbye to the server, for at most this many seconds; then terminate."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once."""
        ...


class ListeningConnections(Protocol):
    """Where sessions come from."""

    @property
    def target(self) -> str:
        """What they lead to, for logs and errors."""
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
            last_contact: Returns when the server was last heard, by the loop's clock.

        Raises:
            Exception: What the driver, or the caller's ``connect=``, raised.
        """
        ...

    async def notify_by_another(self, channel: str, /, *, timeout: float) -> OtherConnection:
        """Send an empty notification by a second connection, and return that."""
        ...
