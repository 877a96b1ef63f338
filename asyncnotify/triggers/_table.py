"""Table: what of a table is to be told, and the triggers that tell it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from asyncnotify import Channel
from asyncnotify._arguments import check_seconds
from asyncnotify.log import Log
from asyncnotify.triggers._changes import Change, Decoder
from asyncnotify.triggers._connections import (
    explaining_steps,
    session_on,
    take,
    take_when_unlocked,
)
from asyncnotify.triggers._definition import (
    OPERATIONS,
    Definition,
    Types,
    check_types,
    columns_of,
    define,
)
from asyncnotify.triggers._mapping import mapped, names_of
from asyncnotify.triggers._sql.statements import (
    fingerprint,
    install_statements,
    removal_statements,
    upgrade_statements,
)
from asyncnotify.triggers._status import Status
from asyncnotify.triggers._steps import (
    LockingSteps,
    inspecting,
    installing,
    removing,
    upgrading,
)

DEFAULT_LOCK_TIMEOUT = 2.0
DEFAULT_TIMEOUT = 60.0


class Table:
    """
    A table that sends its changes: with NOTIFY, or as events of a durable log.

    Immutable. The constructor touches no network and no event loop.

    Once ``install()`` has made the triggers, each statement that changes rows sends notifications
    on ``changes``, within its transaction: listening sessions get them once that commits, and never
    if it rolls back, whichever program changes the rows. Sending never aborts a statement: if a
    change cannot be sent, the notification says "read again", and listeners get a ``Gap`` with
    reason ``REREAD``.

    Not sent: changes made with ``session_replication_role = replica``, by logical replication, and
    directly in a partition that was attached after ``install()``; ``status()`` names it.

    Args:
        name: The table, as ``shop.orders``; without a schema that of ``public``. A name is as the
            catalog has it: nothing is folded to lower case. A part with a dot is quoted as in SQL,
            as ``shop."odd.name"``.
        key: The column, or columns, that identify a row: usually those of the primary key. After
            each statement no two rows may have the same one: not even within a transaction, as a
            constraint that is deferred allows. With ``level="row"`` this is so after each row,
            which a constraint that is deferrable does not see to.
        watch: Columns: an update that changes none of them is not sent. By default every update
            is.
        when: A condition in SQL on ``old`` and ``new``, such as ``"new.total > 0"``: changes that
            do not satisfy it are not sent. If there is only one row, both names refer to it: for a
            delete, to the deleted row; so one that compares both is for updates only. Types,
            functions and operators that are not PostgreSQL's own need their schema. It becomes part
            of the SQL: never build it from untrusted text.
        channel: The name of the channel; by default that of the table, with its schema unless
            that is ``public``.
        payload: Columns whose values are sent along with the key.
        level: ``"statement"``: one trigger call for each statement, rows sent together.
            ``"row"``: one call and one notification for each row.
        operations: Which operations are sent. Without ``"update"`` nothing tells of an update, and
            so nothing of a key that one changes.
        max_notifications: The most notifications that one statement sends; if its rows need
            more, it sends one that says "read again". With ``level="statement"`` only.
        to: ``"notify"``, or ``"log"``: each row becomes an event of a log, of any size, in the
            transaction of the statement, and ``changes`` is the channel of these events. What
            cannot be appended aborts the statement.
        log: The log, or its name. Roles that write to the table need the right to append to it:
            ``Log.grants(append=…)``.
        types: What makes values of a column, such as an enumeration's class: called with the
            value, unless that is None. Without, values are of the types that asyncpg has for uuid,
            numeric, bytea, dates and times, also of domains over them, and all else as in JSON.
        trigger: What the names of the function and the triggers begin with, at most 40 bytes. Two
            Tables for one table of the database need different ones, and different channels: on one
            channel each change would arrive twice.

    Raises:
        ChannelNameError: The server would refuse or cut the name of the channel.
        DefinitionError: An argument has an invalid value.
        LogNameError: No log can have this name.
        TypeError: An argument is of the wrong type.
        ValueError: ``max_notifications`` is not a whole number, at least 1.
    """

    def __init__(
        self,
        name: str,
        *,
        # rows
        key: str | Iterable[str],
        watch: str | Iterable[str] = (),
        when: str | None = None,
        # notifications
        channel: str | None = None,
        payload: str | Iterable[str] = (),
        level: Literal["statement", "row"] = "statement",
        operations: Iterable[Literal["insert", "update", "delete", "truncate"]] = OPERATIONS,
        max_notifications: int = 16,
        # where to
        to: Literal["notify", "log"] = "notify",
        log: Log | str | None = None,
        # names and types
        types: Types | None = None,
        trigger: str | None = None,
    ) -> None:
        self._definition = define(
            name,
            key,
            watch,
            when,
            channel,
            payload,
            level,
            operations,
            max_notifications,
            to,
            log,
            trigger,
        )
        columns = self._definition.columns
        decoder = Decoder(self._definition.key, columns, check_types(types, columns))
        self._changes: Channel[Change] = Channel(self._definition.channel, decode=decoder)

    @classmethod
    def of(
        cls,
        model: Any,  # noqa: ANN401 - a class of SQLAlchemy's or Django's, which need not be there
        *,
        # rows
        key: Any = None,  # noqa: ANN401 - names of columns, or mapped attributes
        watch: Any = (),  # noqa: ANN401 - names of columns, or mapped attributes
        when: str | None = None,
        # notifications
        channel: str | None = None,
        payload: Any = (),  # noqa: ANN401 - names of columns, or mapped attributes
        level: Literal["statement", "row"] = "statement",
        operations: Iterable[Literal["insert", "update", "delete", "truncate"]] = OPERATIONS,
        max_notifications: int = 16,
        # where to
        to: Literal["notify", "log"] = "notify",
        log: Log | str | None = None,
        # names and types
        types: Types | None = None,
        trigger: str | None = None,
    ) -> Table:
        """
        Return the Table of a class that SQLAlchemy maps, of its Table, or of a model of Django's.

        Name, schema and primary key are taken from there. With SQLAlchemy, values get the type of
        the mapped attribute where that is made by an Enum, a Numeric or Uuid of another Python
        type, or a TypeDecorator of texts, numbers, dates and JSON. A TypeDecorator gets what has
        arrived, and any role may NOTIFY: one of bytes is not called.

        Args:
            model: The class, or SQLAlchemy's Table. Of a class that inherits, the table that it
                has itself; several classes in one table are told together, as are a model of
                Django's and its proxies.
            key: As for ``Table``; by default the primary key.
            watch: As for ``Table``. In this and in ``key`` and ``payload`` a column is named as in
                the database, or by its attribute: ``Order.status``.
            when: As for ``Table``: names are those of the database.
            channel: As for ``Table``.
            payload: As for ``Table``, and columns named as for ``watch``.
            level: As for ``Table``.
            operations: As for ``Table``.
            max_notifications: As for ``Table``.
            to: As for ``Table``.
            log: As for ``Table``.
            types: As for ``Table``: those named here go before those of the attributes.
            trigger: As for ``Table``.

        Raises:
            TypeError: It is mapped to no table, or an argument is of the wrong type.
            DefinitionError: It has no primary key, or an argument has a value that cannot be.
            ChannelNameError: The server would refuse or cut the name of the channel.
            LogNameError: No log can have this name.
            ValueError: ``max_notifications`` is not a whole number, at least 1.
        """
        source = mapped(model)
        keys = source.key() if key is None else names_of(key)
        sent = names_of(payload)
        told = columns_of("key", keys) + columns_of("payload", sent)
        known = {name: kind for name, kind in source.types().items() if name in told}
        return cls(
            source.name,
            key=keys,
            watch=names_of(watch),
            when=when,
            channel=channel,
            payload=sent,
            level=level,
            operations=operations,
            max_notifications=max_notifications,
            to=to,
            log=log,
            types={**known, **check_types(types, told)},
            trigger=trigger,
        )

    def __repr__(self) -> str:
        return f"<Table {self.name} on channel {self._changes.name!r}>"

    @property
    def name(self) -> str:
        """The name with its schema, quoted as in SQL."""
        return self._definition.qualified

    @property
    def definition(self) -> Definition:
        """The checked arguments."""
        return self._definition

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of each row that is sent, the key first."""
        return self._definition.columns

    @property
    def changes(self) -> Channel[Change]:
        """
        The channel on which the changes arrive: for ``listen()``, ``stream()`` and ``Log.read()``.

        Nothing can be sent on it from Python.
        """
        return self._changes

    @property
    def fingerprint(self) -> str:
        """A hash of the SQL: another one where this Table, or the library, makes other SQL."""
        return fingerprint(self._definition)

    # -- SQL ----------------------------------------------------------------------------------

    def statements(self) -> list[str]:
        """
        Return what ``install()`` executes, for a migration: to be run in one transaction.

        None has parameters or placeholders. They may be run again, and then change only what
        differs. A statement that makes a trigger waits for transactions that write to the table:
        set ``lock_timeout``.
        """
        return install_statements(self._definition)

    def upgrade_statements(self) -> list[str]:
        """Return what ``upgrade()`` executes: it replaces the function, and locks no table."""
        return upgrade_statements(self._definition)

    def removal_statements(self) -> list[str]:
        """Return what ``remove()`` executes: it locks the table against everybody."""
        return removal_statements(self._definition)

    # -- the database -------------------------------------------------------------------------

    async def install(
        self,
        connection: object,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Make the function and the triggers, also of each partition and child; idempotent.

        In a transaction of its own; if the connection is in one, in a savepoint of that, and it is
        in force once that commits. SQLAlchemy always begins one: commit it. Several processes may
        install at once. Only what differs from what should be is touched. Needs to own the table,
        and the right to create in its schema. Refused by the server: a function of its name that
        asyncnotify has not made, or whose owner may not make triggers of the table.

        Cancelling it leaves the transaction rolled back, or its outcome unknown while it commits.

        Args:
            connection: An asyncpg Connection, or one acquired from its Pool; SQLAlchemy's
                AsyncConnection or AsyncSession; psycopg's AsyncConnection.
            lock_timeout: Seconds that an attempt waits for a lock on the table: all that write to
                the table wait behind it. An attempt also ends where the server ends a deadlock.
            timeout: Seconds in which attempts are begun.

        Raises:
            UnknownTableError: The database has no table of this name.
            asyncnotify.log.NotInstalledError: The database has no log of the name in ``log``.
            LockTimeoutError: The table was in use all the time.
            TypeError: The connection is of another kind.
            ValueError: A number of seconds is not positive and finite.
            Exception: What the driver raises, such as for a column that the table has not.
        """
        await self._take(connection, installing, lock_timeout, timeout)

    async def upgrade(
        self,
        connection: object,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Replace the function of a Table that is installed. No table is locked.

        Enough where ``status()`` says that the function alone is outdated, as after an update of
        asyncnotify. Waits for others that install, and for nobody else. Arguments, transactions and
        cancelling as for ``install()``.

        Raises:
            NotInstalledError: The function is not there, or its triggers are of another ``level``.
            asyncnotify.log.NotInstalledError: The database has no log of the name in ``log``.
            UnknownTableError: The database has no table of this name.
            LockTimeoutError: Another transaction was installing all the time.
            TypeError: The connection is of another kind.
            ValueError: A number of seconds is not positive and finite.
            Exception: What the driver raises.
        """
        await self._take(connection, upgrading, lock_timeout, timeout)

    async def status(self, connection: object) -> Status:
        """
        Compare what is installed with what should be.

        It waits for a transaction that locks the table against readers, up to ``lock_timeout`` of
        the session.

        Raises:
            UnknownTableError: The database has no table of this name.
            TypeError: The connection is of another kind.
            Exception: What the driver raises.
        """
        session = session_on(connection)
        with explaining_steps(connection):
            return await take(session, inspecting(self._definition))

    async def remove(
        self,
        connection: object,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Remove the function and its triggers; nothing if there are none.

        A function of this name that asyncnotify has not made is left alone.

        An attempt locks the table against readers as well, once no transaction uses it. Arguments,
        transactions, cancelling and errors as for ``install()``.

        Raises:
            UnknownTableError: The database has no table of this name.
            LockTimeoutError: The table was in use all the time.
            TypeError: The connection is of another kind.
            ValueError: A number of seconds is not positive and finite.
            Exception: What the driver raises.
        """
        await self._take(connection, removing, lock_timeout, timeout)

    async def _take(
        self, connection: object, steps: LockingSteps, lock_timeout: float, timeout: float
    ) -> None:
        check_seconds("lock_timeout", lock_timeout)
        check_seconds("timeout", timeout)
        session = session_on(connection)
        with explaining_steps(connection):
            await take_when_unlocked(
                session, lambda: steps(self._definition, lock_timeout), self.name, timeout
            )
