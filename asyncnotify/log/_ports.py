"""
What a log needs of a server, as protocols: nothing above these knows SQL's answers from others.

A ``Statement`` is a verb, and the SQL by which PostgreSQL does it. Another source than PostgreSQL
goes by the verb. ``asyncnotify.log.sources`` tells what each verb does.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from asyncnotify._errors import ConfigurationError
from asyncnotify.log._entries import Entry
from asyncnotify.log._settings import GivenSettings
from asyncnotify.sources import Transaction


class Statement(NamedTuple):
    """
    One thing that a log asks of a server.

    Attributes:
        verb: What is to be done.
        sql: How PostgreSQL does it.
        given: Arguments of the verb that are in the SQL already. Others follow when it is sent.
    """

    verb: str
    sql: str
    given: tuple[object, ...] = ()


class UnsentError(Exception):
    """A session was gone before the server had a statement: the cause of a ConnectionLostError."""


class PermanentRefusalError(Exception):
    """A server refuses each connection until something is fixed: the cause of a ConnectError."""


class Queries(Protocol):
    """A connection on which each query has a snapshot of its own."""

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - as the driver
        """Return the rows of the answer."""
        ...


class SessionTransaction(Protocol):
    """A transaction that is open on a session."""

    async def commit(self) -> None:
        """
        Commit.

        Raises:
            Exception: As of ``LogSession.fetch()``.
        """

    async def rollback(self) -> None:
        """
        Roll back.

        Raises:
            Exception: As of ``LogSession.fetch()``.
        """


class LogSession(Queries, Protocol):
    """
    A session of the server's that is the log's alone, as long as it is held.

    A statement that exceeds its deadline, or is cancelled, ends the connection. The locks that the
    session holds, and a transaction that is open on it, end with it.
    """

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone, or the server has ended it."""
        ...

    @property
    def connection(self) -> Any:  # noqa: ANN401 - of the source's own kind
        """What a transactional handler is called with."""
        ...

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - as the driver
        """
        Return the rows of the answer: each has its columns by number, in slices and by name.

        Raises:
            ConnectionLostError: The connection died, or the server did not answer in time.
            NotInstalledError: The server has no such log.
            StandbyError: The server is a standby.
            Exception: The server refused the statement.
        """
        ...

    async def execute(self, statement: Statement, /) -> None:
        """
        Do what needs no argument and has no answer.

        Raises:
            Exception: As of ``fetch()``.
        """

    async def append(self, entries: Sequence[Entry], *, wake: bool) -> None:
        """
        Append entries, at least one, in one transaction.

        Raises:
            Exception: As of ``fetch()``.
        """

    async def begin(self) -> SessionTransaction:
        """
        Begin a transaction.

        Raises:
            Exception: As of ``fetch()``.
        """
        ...

    async def install(self, given: GivenSettings) -> None:
        """
        Make the log, if it is not there, and keep events for as long as was given.

        Raises:
            SchemaVersionError: The log is of a newer version than is known here.
            Exception: As of ``fetch()``.
        """


class LogSessions(Protocol):
    """Opens sessions for a log."""

    target: str
    """The server, as logs and errors name it."""

    keep: bool
    """Whether a session is kept while nothing is to be done: one of a pool is given back."""

    async def open(self, *, own: bool = True) -> LogSession:
        """
        Return a session. May be cancelled: no connection is left behind.

        Args:
            own: The server's session has to be this connection's own, with no pooler in between.

        Raises:
            ConfigurationError: The arguments for connecting are wrong.
            ConnectError: There is no connection, or a pooler is in between.
        """
        ...

    async def close(self, session: Any, /) -> None:  # noqa: ANN401 - one that it has opened
        """Part with a session in good order; one that has been lost raises nothing."""


class LogTransaction(Transaction):
    """A transaction at a source: ``append(…, connection=)`` takes it as the drivers' own."""

    @abc.abstractmethod
    def append(self, log: str, entries: Sequence[Entry], *, wake: bool) -> None:
        """
        Append entries, at least one, when the transaction commits. Must not block.

        Raises:
            NotInstalledError: The server has no such log.
        """


class LogSource(abc.ABC):
    """Where the sessions of logs come from: a ``ConnectionSource`` that logs can use, too."""

    @abc.abstractmethod
    def log_sessions(self, log: str, *, connect_timeout: float, timeout: float) -> LogSessions:
        """
        Return what opens sessions for a log of this name.

        Args:
            log: The checked name.
            connect_timeout: Seconds in which each connection has to be made.
            timeout: Seconds in which the server has to answer each statement.

        Raises nothing.
        """


def source_of_logs(source: object) -> LogSource:
    """Return the source, if logs can use it; raise ConfigurationError if not."""
    if isinstance(source, LogSource):
        return source
    msg = f"{source!r} has listeners and notifiers only, and no logs"
    raise ConfigurationError(msg)
