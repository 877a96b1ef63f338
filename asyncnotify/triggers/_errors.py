"""
Every exception that triggers raise on purpose, besides those of asyncnotify itself.

::

    AsyncNotifyError
    └── TriggerError
        ├── DefinitionError (ValueError)       an argument of a Table that cannot be
        ├── UnknownTableError (LookupError)    the database has no table of this name
        ├── NotInstalledError                  the database has no trigger of this Table
        └── LockTimeoutError (TimeoutError)    the table was in use for too long
"""

from __future__ import annotations

from asyncnotify import AsyncNotifyError


class TriggerError(AsyncNotifyError):
    """The root of every exception that triggers raise on purpose."""


class DefinitionError(TriggerError, ValueError):
    """
    An argument of a Table that cannot be.

    Attributes:
        argument: The name of the argument.
        reason: What is wrong with its value.
    """

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.argument = argument
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.argument} {self.reason}"


class _OfTableError(TriggerError):
    """An error that concerns one table, and names it."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


class UnknownTableError(_OfTableError, LookupError):
    """
    The database has no table of this name.

    Attributes:
        table: The name with its schema, quoted as in SQL.
    """

    def __str__(self) -> str:
        return f"the database has no table {self.table}: the name must be as the catalog has it"


class NotInstalledError(_OfTableError):
    """
    The database has no trigger of this Table, or of another level: ``install()`` makes it.

    Attributes:
        table: The name with its schema, quoted as in SQL.
    """

    def __str__(self) -> str:
        return f"table {self.table} has no such trigger: install() makes it"


class LockTimeoutError(TriggerError, TimeoutError):
    """
    The table was in use for so long that no trigger could be made or removed; nothing changed.

    ``__cause__`` is what the server answered to the last attempt: a lock timeout, or a deadlock.

    Attributes:
        table: The name with its schema, quoted as in SQL.
        timeout: How long the call tried, in seconds.
    """

    def __init__(self, table: str, timeout: float) -> None:
        super().__init__(table)  # OSError would take several arguments for an errno
        BaseException.__init__(self, table, timeout)
        self.table = table
        self.timeout = timeout

    def __str__(self) -> str:
        return (
            f"no lock on table {self.table} within {self.timeout:g} s: a transaction that has"
            " written to it is still open"
        )
