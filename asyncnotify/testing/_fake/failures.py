"""What goes wrong with the connections of a fake server, and what that means."""

from __future__ import annotations

from asyncpg import PostgresError, ProgramLimitExceededError

from asyncnotify import AsyncNotifyError, ChannelNameError, PayloadError
from asyncnotify.log.sources import PermanentRefusalError, UnsentError


class RefusedError(ConnectionRefusedError):
    """The fake server takes no new connection."""


class PermanentlyRefusedError(RefusedError, PermanentRefusalError):
    """As a server refuses a wrong password: retrying will not help."""


class NeverSentError(ConnectionError, UnsentError):
    """The connection was gone before the command was given."""


class CutError(ConnectionResetError):
    """The connection was lost while a command waited for its answer."""


class NotOnFakeError(AsyncNotifyError, NotImplementedError):
    """
    The fake server cannot do this: a test of it needs a real server.

    Attributes:
        what: What was asked for.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the fake server has no {self.what}: test this on a real server"


def full_queue() -> PostgresError:
    """Return what PostgreSQL raises when its notification queue is full."""
    return ProgramLimitExceededError("too many notifications in the NOTIFY queue")


class FakeFailures:
    """The meaning of these errors."""

    def is_permanent(self, error: BaseException, /) -> bool:
        """Return whether retrying will not help until something is fixed."""
        return isinstance(error, PermanentlyRefusedError)

    def needs_repair(self, error: BaseException, /) -> bool:
        """Return whether the next attempt should wait for the longest delay."""
        return self.is_permanent(error)

    def is_defect(self, error: BaseException, /) -> bool:
        """Return whether this is a fault of a program."""
        return not isinstance(error, OSError | AsyncNotifyError)

    def is_refusal(self, error: BaseException, /) -> bool:
        """Return whether the server refused a command, on a connection that is still good."""
        return isinstance(error, ChannelNameError | PayloadError | PostgresError)

    def is_unsent(self, error: BaseException, /) -> bool:
        """Return whether a command failed before the server had it."""
        return isinstance(error, NeverSentError)
