"""Which failures pass by themselves, so that one who reads or consumes tries again."""

from __future__ import annotations

from typing import Final

import asyncpg

from asyncnotify import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ListenTimeoutError,
    PoolerError,
)
from asyncnotify._asyncpg.failures import is_permanent
from asyncnotify.log._errors import StandbyError
from asyncnotify.log._ports import PermanentRefusalError

PASSING: Final = (
    ConnectError,
    ConnectionLostError,
    ListenTimeoutError,
    StandbyError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)
"""What may pass by itself, except for the two below: also a statement that was cancelled, and a
lock that could not be had in time."""

PERMANENT: Final = (ConfigurationError, PoolerError)


def is_final(cause: BaseException) -> bool:
    """Return whether what has caused an error is there until something is fixed."""
    return isinstance(cause, PermanentRefusalError) or is_permanent(cause)


def raise_if_final(error: Exception, *, is_new: bool) -> None:
    """
    Raise an error, one of PASSING, that will not pass.

    Args:
        error: What has been raised.
        is_new: There has never been a connection: what the server refuses now, it will refuse.
    """
    if isinstance(error, PERMANENT) or (is_new and needs_repair(error)):
        raise error


def needs_repair(error: BaseException) -> bool:
    """Return whether what has been raised comes again until something is fixed."""
    return is_final(error) or (error.__cause__ is not None and is_final(error.__cause__))
