"""The same for connections that block."""

from __future__ import annotations

from asyncnotify._arguments import check_seconds, type_name
from asyncnotify.triggers._connections import (
    blocking_session_on,
    explaining_steps,
    take_in_thread,
    take_in_thread_when_unlocked,
)
from asyncnotify.triggers._status import Status
from asyncnotify.triggers._steps import (
    LockingSteps,
    inspecting,
    installing,
    removing,
    upgrading,
)
from asyncnotify.triggers._table import DEFAULT_LOCK_TIMEOUT, DEFAULT_TIMEOUT, Table


class BlockingTable:
    """
    Installs a Table on connections that block: SQLAlchemy's and psycopg's.

    Args:
        table: The Table. All else that it does needs no connection.

    Raises:
        TypeError: It is no Table.
    """

    def __init__(self, table: Table) -> None:
        _check_table(table)
        self._table = table

    def __repr__(self) -> str:
        return f"<BlockingTable {self._table.name}>"

    @property
    def table(self) -> Table:
        """The Table."""
        return self._table

    def install(
        self,
        connection: object,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Do as ``Table.install()``, on SQLAlchemy's Connection or Session, or psycopg's Connection.

        Raises:
            UnknownTableError: The database has no table of this name.
            asyncnotify.log.NotInstalledError: The database has no log of the name in ``log``.
            LockTimeoutError: The table was in use all the time.
            TypeError: The connection is of another kind.
            ValueError: A number of seconds is not positive and finite.
            Exception: What the driver raises.
        """
        self._take(connection, installing, lock_timeout, timeout)

    def upgrade(
        self,
        connection: object,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Do as ``Table.upgrade()``.

        Raises:
            NotInstalledError: The function is not there, or its triggers are of another ``level``.
            asyncnotify.log.NotInstalledError: The database has no log of the name in ``log``.
            UnknownTableError: The database has no table of this name.
            LockTimeoutError: Another transaction was installing all the time.
            TypeError: The connection is of another kind.
            ValueError: A number of seconds is not positive and finite.
            Exception: What the driver raises.
        """
        self._take(connection, upgrading, lock_timeout, timeout)

    def status(self, connection: object) -> Status:
        """
        Do as ``Table.status()``.

        Raises:
            UnknownTableError: The database has no table of this name.
            TypeError: The connection is of another kind.
            Exception: What the driver raises.
        """
        session = blocking_session_on(connection)
        with explaining_steps(connection):
            return take_in_thread(session, inspecting(self._table.definition))

    def remove(
        self,
        connection: object,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Do as ``Table.remove()``.

        Raises:
            UnknownTableError: The database has no table of this name.
            LockTimeoutError: The table was in use all the time.
            TypeError: The connection is of another kind.
            ValueError: A number of seconds is not positive and finite.
            Exception: What the driver raises.
        """
        self._take(connection, removing, lock_timeout, timeout)

    def _take(
        self, connection: object, steps: LockingSteps, lock_timeout: float, timeout: float
    ) -> None:
        check_seconds("lock_timeout", lock_timeout)
        check_seconds("timeout", timeout)
        definition = self._table.definition
        session = blocking_session_on(connection)
        with explaining_steps(connection):
            take_in_thread_when_unlocked(
                session, lambda: steps(definition, lock_timeout), self._table.name, timeout
            )


def _check_table(table: object) -> None:
    """Raise TypeError unless it is a Table."""
    if not isinstance(table, Table):
        msg = f"table must be a Table, not of type {type_name(table)}"
        raise TypeError(msg)
