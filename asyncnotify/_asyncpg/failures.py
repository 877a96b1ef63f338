"""
What the errors of connecting mean: by the step that failed, and by what the server said.

The type of an error is not enough: a ValueError is a wrong argument in one step, and a lost
connection in another. So each step marks what is raised in it.
"""

from __future__ import annotations

import enum
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._errors import (
    AsyncNotifyError,
    ChannelNameError,
    ConfigurationError,
    PoolerError,
    describe_error,
    mark_as_callers,
    place_of,
)
from asyncnotify._escaping import escaped
from asyncnotify._logs import Log

if TYPE_CHECKING:
    from collections.abc import Generator

log = Log("connection")

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
)

_PASSING: Final = (
    OSError,  # of the network, TLS and timeouts as well
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    AsyncNotifyError,
)
"""Errors that a step may meet on its way. All others are defects, ours or the driver's."""

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

_REFUSALS_OF_TLS: Final = (
    "CERTIFICATE_VERIFY_FAILED",  # of the server's
    "ALERT_UNKNOWN_CA",  # this one and all others: of the client's, or of what it offers
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_ACCESS_DENIED",
    "ALERT_DECRYPT_ERROR",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_PROTOCOL_VERSION",
    "ALERT_INSUFFICIENT_SECURITY",
    "UNSUPPORTED_PROTOCOL",
)
"""Parts of OpenSSL's reasons that no retry changes: one side does not accept the other's."""


_OF_THE_DRIVER: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_UNSENT: Final = "_asyncnotify_unsent"

_REFUSAL_OF_THE_DRIVER: Final = "cannot switch to state"
"""A part of what the driver says before it writes anything, when the server's last words wait."""

_GOODBYE_OF_PGBOUNCER: Final = "client_idle_timeout"
"""Its message to a client that it disconnects for being idle; the SQLSTATE is 08P01."""

_LONGEST_CHAIN: Final = 10
"""Causes of an error that are looked at."""


class Step(enum.Enum):
    """A step of making a connection."""

    ARGUMENTS = "arguments, files and options: what fails here is a mistake of the caller's"
    NETWORK = "lookup and connecting: what fails here may pass"
    TLS = "the handshake: a certificate is refused, or the connection is lost"
    CALLER = "a callable of the caller's: what it raises may pass"


_MARK: Final = "_asyncnotify_step"


@contextmanager
def step(which: Step) -> Generator[None]:
    """Mark what is raised in here, unless an earlier step has done so."""
    try:
        yield
    except Exception as error:
        mark(error, which)
        raise


def mark(error: BaseException, which: Step) -> None:
    """Note in which step this was raised, unless that is known already."""
    if step_of(error) is None:
        with suppress(AttributeError, TypeError):  # of a class that takes none: its type has to do
            setattr(error, _MARK, which)
        if which is Step.CALLER:
            mark_as_callers(error)


def step_of(error: BaseException) -> Step | None:
    """Return the step in which this was raised, if that was noted."""
    return getattr(error, _MARK, None)


def is_permanent(error: BaseException) -> bool:
    """Return whether retrying will not help until something is fixed."""
    if isinstance(error, asyncpg.ProtocolViolationError):
        return any(part in str(error) for part in _REFUSALS_OF_PGBOUNCER)
    if isinstance(error, _PERMANENT):
        return True
    if isinstance(error, ssl.SSLError):
        return _is_refusal_of_tls(error)
    match step_of(error):
        case Step.ARGUMENTS:
            return True
        case Step.NETWORK | Step.TLS | Step.CALLER:
            return False
        case _:
            return is_defect(error)


def _is_refusal_of_tls(error: ssl.SSLError) -> bool:
    reason = str(getattr(error, "reason", None) or "").upper()  # absent where it is not OpenSSL's
    return isinstance(error, ssl.CertificateError) or any(
        part in reason for part in _REFUSALS_OF_TLS
    )


def is_defect(error: BaseException) -> bool:
    """Return whether this is a fault of a program, and nothing that connecting may meet."""
    return step_of(error) is None and not isinstance(error, _PASSING)


@contextmanager
def naming_tls() -> Generator[None]:
    """
    Raise the error of TLS that ended a connection, where the driver hides it behind its own.

    In TLS 1.3 a client is connected before the server has looked at its certificate: that it is
    refused is read later, as the end of the connection.
    """
    try:
        yield
    except asyncpg.ConnectionDoesNotExistError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise error.__cause__ from None
        raise


@contextmanager
def introducing(connection: asyncpg.Connection[Any]) -> Generator[None]:
    """Terminate a new connection if something is raised in here; if it is gone, that is why."""
    try:
        yield
    except BaseException as error:
        if connection.is_closed():
            mark(error, Step.NETWORK)
        connection.terminate()
        raise


def escape_texts(error: BaseException | None) -> None:
    """
    Escape what the server says in an error of the driver's and in its causes.

    In the errors themselves: they are raised to callers, and end up in their logs and terminals.
    """
    for _ in range(_LONGEST_CHAIN):
        if isinstance(error, _OF_THE_DRIVER):
            error.args = tuple(map(_escaped, error.args))
            for name, value in list(vars(error).items()):
                setattr(error, name, _escaped(value))
        if error is None:
            break
        error = error.__cause__ or error.__context__


def add_to_text(error: asyncpg.PostgresError, text: str) -> None:
    """Add to what the server has said."""
    said, *others = error.args or ("",)
    error.args = (f"{said}; {text}", *others)


def forget_statement(error: BaseException) -> None:
    """Remove the statement from an error of the driver's: behind a pooler it holds the payload."""
    if isinstance(error, asyncpg.PostgresError) and "query" in vars(error):
        vars(error)["query"] = None


def _escaped(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value


class DefectLog:
    """Tells the log of defects, with their traceback: of each one once, until all is well again."""

    def __init__(self) -> None:
        self._told: set[tuple[type, str]] = set()

    @contextmanager
    def watching(self, target: str) -> Generator[None]:
        """Tell of a defect that is raised in here, where this is connected to."""
        try:
            yield
        except Exception as error:
            key = (type(error), place_of(error))
            if is_defect(error) and key not in self._told:
                self._told.add(key)
                text = "a programming error, and not the network, prevents a connection to %s"
                log.error(text, target, exc_info=error, target=target)  # noqa: TRY400 - it is only one
            raise
        self._told.clear()


def needs_repair(error: BaseException) -> bool:
    """Return whether the next attempt should wait for the longest delay."""
    return is_permanent(error) or isinstance(error, _NEEDS_REPAIR)


def was_cancelled_by_server(error: BaseException) -> bool:
    """Return whether the statement was cancelled (57014); the connection is still good."""
    return isinstance(error, asyncpg.QueryCanceledError)


def is_truncated_status(error: BaseException) -> bool:
    """
    Return whether LISTEN failed by a server bug that goes away once the queue is emptied.

    The queue can hold transactions so old that their status has been removed: 58P01, "could not
    access status of transaction". Only the newer minor releases of PostgreSQL 14 and later keep it.
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


def is_loss(error: BaseException) -> bool:
    """Return whether the connection was lost; not of a server that does not answer in time."""
    return isinstance(error, (*_OF_THE_DRIVER, ConnectionError)) and not is_refusal(error)


def refused_name(channel: str, cause: Exception) -> ChannelNameError:
    """Return the error for a channel whose name the server refuses."""
    error = ChannelNameError(channel, f"is refused by the server: {describe_error(cause)}")
    error.__cause__ = cause
    return error


def no_listen(cause: Exception) -> ConfigurationError:
    """Return the error for a server that does not know LISTEN."""
    error = ConfigurationError(f"the server does not support LISTEN: {describe_error(cause)}")
    error.__cause__ = cause
    return error


def mark_unsent(error: BaseException) -> None:
    """Note that what this was raised for had not been sent to the server."""
    with suppress(AttributeError, TypeError):
        setattr(error, _UNSENT, True)


def is_unsent(error: BaseException) -> bool:
    """
    Return whether a command failed before the server had it: nothing has come of it.

    The driver refuses a command on a connection that it knows to be closed, and one after the
    last words of the server, while the end of the connection is still to come. And a session that
    the server ends because it is idle runs nothing any more: that is read as the answer.
    """
    if hasattr(error, _UNSENT):
        return True
    if isinstance(error, asyncpg.InternalClientError):
        return _REFUSAL_OF_THE_DRIVER in str(error)
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a wrong argument
    said: BaseException | None = error
    while said is not None:
        if isinstance(said, asyncpg.IdleSessionTimeoutError):
            return True
        if isinstance(said, asyncpg.ProtocolViolationError) and _GOODBYE_OF_PGBOUNCER in str(said):
            return True
        said = said.__cause__
    return False
