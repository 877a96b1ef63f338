"""What the errors of the driver mean: whether retrying helps, and what has failed."""

from __future__ import annotations

from typing import Final

import asyncpg

from asyncnotify._errors import ConfigurationError, PoolerError

_PERMANENT: Final = (
    asyncpg.InvalidPasswordError,  # 28P01
    asyncpg.InvalidAuthorizationSpecificationError,  # 28000
    asyncpg.InvalidCatalogNameError,  # 3D000
    asyncpg.InsufficientPrivilegeError,  # 42501: no CONNECT privilege
    asyncpg.UndefinedObjectError,  # 42704: unknown option
    asyncpg.InvalidParameterValueError,  # 22023
    asyncpg.CantChangeRuntimeParamError,  # 55P02
    asyncpg.ClientConfigurationError,
    ConfigurationError,
    PoolerError,
    ValueError,  # arguments that the driver cannot use; a certificate that does not verify
    TypeError,
    OverflowError,  # a port beyond 65,535
)

# 55000: the database does not accept connections. May pass by itself, so not permanent
_NEEDS_REPAIR: Final = (asyncpg.ObjectNotInPrerequisiteStateError,)


_REFUSALS_OF_PGBOUNCER: Final = (
    "unsupported startup parameter",
    "authentication failed",
    "no such database",
    "no such user",
    "does not exist",
)
"""Parts of PgBouncer's messages. All of its refusals have the same SQLSTATE, 08P01."""


def is_permanent(error: BaseException) -> bool:
    """Return whether retrying will not help until something is fixed."""
    if isinstance(error, asyncpg.ProtocolViolationError):
        return any(part in str(error) for part in _REFUSALS_OF_PGBOUNCER)
    return isinstance(error, _PERMANENT)


def needs_repair(error: BaseException) -> bool:
    """Return whether the next attempt should wait for the longest delay."""
    return is_permanent(error) or isinstance(error, _NEEDS_REPAIR)


def was_cancelled_by_server(error: BaseException) -> bool:
    """Return whether the statement was cancelled (57014); the connection is still good."""
    return isinstance(error, asyncpg.QueryCanceledError)


def is_truncated_status(error: BaseException) -> bool:
    """
    Return whether LISTEN failed by a server bug that goes away once the queue is emptied.

    Before the releases of November 2025 the queue could hold transactions so old that their
    status had been removed: 58P01, "could not access status of transaction".
    """
    return isinstance(error, asyncpg.PostgresError) and (
        error.sqlstate == "58P01" or "could not access status of transaction" in str(error)
    )


def is_about_the_name(error: BaseException) -> bool:
    """Return whether the server cannot hold a channel's name in its encoding (class 22)."""
    return isinstance(error, asyncpg.DataError)


def is_unsupported(error: BaseException) -> bool:
    """Return whether the server, which is then not PostgreSQL, does not know the statement."""
    return isinstance(error, asyncpg.FeatureNotSupportedError | asyncpg.PostgresSyntaxError)


def is_refusal(error: BaseException) -> bool:
    """Return whether the server refused a command, on a connection that is still good."""
    if was_cancelled_by_server(error):
        return True
    ends = asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, ends)
