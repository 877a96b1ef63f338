"""What goes wrong when notifications are sent to the fake server, if a test wants that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncnotify.testing._fake.failures import full_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import PostgresError


class Cut(NamedTuple):
    """Which notification costs its sender the connection, and when."""

    channel: str | None  # None: any
    payload: str
    committed: bool

    def concerns(self, pair: tuple[str, str]) -> bool:
        """Return whether this is the notification."""
        return pair[1] == self.payload and self.channel in (None, pair[0])


class SendingFaults:
    """
    What the server refuses, and where it loses a connection. Called under the server's lock.

    Attributes:
        error_for: Returns the error with which a notification is refused; None: all are accepted.
        queue_usage: How full the notification queue is, from 0 to 1.
        cuts: Each is used once.
    """

    def __init__(self) -> None:
        self.error_for: Callable[[str, str], PostgresError | None] | None = None
        self.queue_usage: float = 0.0
        self.cuts: list[Cut] = []

    def check(self, channel: str, payload: str) -> None:
        """Raise the error with which this notification is refused, if there is one."""
        error = None if self.error_for is None else self.error_for(channel, payload)
        if error is not None:
            raise error

    def check_room(self) -> None:
        """Refuse to commit notifications while the queue is full."""
        if self.queue_usage >= 1.0:
            raise full_queue()

    def cut_for(self, pairs: Sequence[tuple[str, str]]) -> Cut | None:
        """Return, and use up, what cuts the connection that sends these notifications."""
        for cut in self.cuts:
            if any(map(cut.concerns, pairs)):
                self.cuts.remove(cut)
                return cut
        return None
