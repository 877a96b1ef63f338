"""What callers are told whose notifications were not sent, or may not have been."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify._errors import (
    AsyncNotifyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    cannot_connect,
    describe_error,
)

if TYPE_CHECKING:
    from asyncnotify._publishing.ports import Failures


def not_sent_closed() -> ClosedError:
    """Return what a caller is told whose call came too late."""
    return ClosedError("not sent: the notifier is closed; start() starts it again")


def not_sent_again() -> ConnectError:
    """Return what a caller is told whose notification was in a batch that the server refused."""
    return ConnectError(
        "not sent: it was refused together with another one, and then the connection was lost"
    )


def closed_in_flight() -> ConnectionLostError:
    """Return what a caller is told whose notification was being sent when all was closed."""
    return ConnectionLostError("closed while it was being sent")


def error_of_connecting(cause: Exception, target: str, failures: Failures) -> Exception:
    """Return what callers are told when there is no connection."""
    if isinstance(cause, AsyncNotifyError):
        return cause
    return cannot_connect(target, cause, is_permanent=failures.is_permanent(cause))


def error_of_sending(cause: BaseException, failures: Failures) -> Exception:
    """Return what a caller is told when sending has failed: a refusal as it is."""
    if isinstance(cause, Exception) and failures.is_refusal(cause):
        return cause
    return _unsent(cause) if failures.is_unsent(cause) else _loss(cause)


def _unsent(cause: BaseException) -> ConnectError:
    error = ConnectError(f"not sent: the connection was lost before that: {describe_error(cause)}")
    error.__cause__ = cause
    return error


def _loss(cause: BaseException) -> ConnectionLostError:
    error = ConnectionLostError(
        f"the connection died in flight, so that it may or may not have been sent:"
        f" {describe_error(cause)}"
    )
    error.__cause__ = cause
    return error
