"""
Migrations of Alembic's that install and remove triggers: imported by the ``env.py`` that uses it.

It adds ``op.install_notify_trigger()`` and ``op.remove_notify_trigger()``, and the plugin
``asyncnotify.triggers``, by which autogenerate compares the Tables that are declared with what is
installed. They are declared in ``metadata.info["asyncnotify.triggers"]``, or by
``context.configure(notify_triggers=…)``, which goes before; without either, nothing is compared.

A migration holds its SQL: it does tomorrow what it did when it was written.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._arguments import check_seconds, type_name
from asyncnotify.triggers._connections import (
    blocking_session_on,
    take_in_thread,
    take_in_thread_when_unlocked,
)
from asyncnotify.triggers._errors import UnknownTableError
from asyncnotify.triggers._installed import Function, finding, reading
from asyncnotify.triggers._status import Status, TriggerState
from asyncnotify.triggers._steps import executing, inspecting
from asyncnotify.triggers._table import DEFAULT_LOCK_TIMEOUT, DEFAULT_TIMEOUT, Table

if TYPE_CHECKING:
    from asyncnotify.triggers._connections import BlockingSession
    from asyncnotify.triggers._installed import Installed

__all__ = ["InstallNotifyTriggerOp", "RemoveNotifyTriggerOp"]

PLUGIN: Final = "asyncnotify.triggers"
"""The name of the plugin, and the key in ``metadata.info``."""

OPTION: Final = "notify_triggers"


def _module(name: str) -> Any:  # noqa: ANN401 - Alembic is an extra
    """Return a module of Alembic; raise ImportError, with what to install, if there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("alembic"):
            raise
        msg = "asyncnotify.triggers.alembic needs Alembic 1.18: pip install 'alembic>=1.18'"
        raise ImportError(msg) from error


_operations: Any = _module("alembic.operations")
_autogenerate: Any = _module("alembic.autogenerate")
_plugins: Any = _module("alembic.runtime.plugins")
_util: Any = _module("alembic.util")


# -- operations -----------------------------------------------------------------------------------


class _NotifyTriggerOp(_operations.MigrateOperation):  # type: ignore[misc]  # an extra
    """Statements of a migration, and those of the way back."""

    method = ""

    def __init__(
        self,
        name: str,
        statements: Sequence[str],
        back: _NotifyTriggerOp | None = None,
        *,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        _check_statements(statements)
        check_seconds("lock_timeout", lock_timeout)
        check_seconds("timeout", timeout)
        self.name = name
        self.statements = list(statements)
        self.back = back
        self.lock_timeout = lock_timeout
        self.timeout = timeout

    def reverse(self) -> _NotifyTriggerOp:
        """
        Return the operation that undoes this one.

        Raises:
            ValueError: It was not made by autogenerate, which knows what was there before.
        """
        if self.back is None:
            msg = f"op.{self.method}() of {self.name} does not know what was there before"
            raise ValueError(msg)
        return self.back

    def to_diff_tuple(self) -> tuple[str, str]:
        """Return what ``alembic check`` prints."""
        return self.method, self.name


@_operations.Operations.register_operation("install_notify_trigger")
class InstallNotifyTriggerOp(_NotifyTriggerOp):
    """``op.install_notify_trigger()``: installs, or replaces, the triggers of a Table."""

    method = "install_notify_trigger"

    @classmethod
    def install_notify_trigger(
        cls,
        operations: Any,  # noqa: ANN401 - Alembic's, which is an extra
        name: str,
        *,
        statements: Sequence[str],
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Execute statements as they are, again where a table was locked, until ``timeout`` seconds.

        Args:
            operations: Alembic's.
            name: The table, for messages.
            statements: SQL, such as of ``Table.statements()``; nothing in it is a placeholder.
            lock_timeout: Seconds that an attempt waits for a lock on the table.
            timeout: Seconds in which attempts are begun.

        Raises:
            LockTimeoutError: The table was in use all the time.
            TypeError: ``statements`` are no strings.
            ValueError: A number of seconds is not positive and finite.
        """
        made = cls(name, statements, lock_timeout=lock_timeout, timeout=timeout)
        operations.invoke(made)


@_operations.Operations.register_operation("remove_notify_trigger")
class RemoveNotifyTriggerOp(_NotifyTriggerOp):
    """``op.remove_notify_trigger()``: removes the triggers of a Table."""

    method = "remove_notify_trigger"

    @classmethod
    def remove_notify_trigger(
        cls,
        operations: Any,  # noqa: ANN401 - Alembic's, which is an extra
        name: str,
        *,
        statements: Sequence[str],
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Do as ``op.install_notify_trigger()``, with statements of ``Table.removal_statements()``.

        Raises:
            LockTimeoutError: The table was in use all the time.
            TypeError: ``statements`` are no strings.
            ValueError: A number of seconds is not positive and finite.
        """
        made = cls(name, statements, lock_timeout=lock_timeout, timeout=timeout)
        operations.invoke(made)


def _check_statements(statements: object) -> None:
    """Raise TypeError unless they are several strings."""
    if isinstance(statements, str) or not isinstance(statements, Sequence):
        msg = f"statements must be a list of str, not of type {type_name(statements)}"
        raise TypeError(msg)
    for statement in statements:
        if not isinstance(statement, str):
            msg = f"statements must be a list of str: one is of type {type_name(statement)}"
            raise TypeError(msg)


@_operations.Operations.implementation_for(InstallNotifyTriggerOp)  # type: ignore[untyped-decorator]  # an extra
@_operations.Operations.implementation_for(RemoveNotifyTriggerOp)  # type: ignore[untyped-decorator]  # an extra
def _execute(operations: Any, operation: _NotifyTriggerOp) -> None:  # noqa: ANN401 - an extra
    context = operations.get_context()
    if context.as_sql:
        for statement in operation.statements:
            context.impl.static_output(statement + context.impl.command_terminator)
        return
    take_in_thread_when_unlocked(
        blocking_session_on(operations.get_bind()),
        lambda: executing(operation.statements, operation.lock_timeout),
        operation.name,
        operation.timeout,
    )


@_autogenerate.renderers.dispatch_for(InstallNotifyTriggerOp)  # type: ignore[untyped-decorator]  # an extra
@_autogenerate.renderers.dispatch_for(RemoveNotifyTriggerOp)  # type: ignore[untyped-decorator]  # an extra
def _render(context: Any, operation: _NotifyTriggerOp) -> str:  # noqa: ANN401 - an extra
    """Return the call with its SQL, a literal for each line: those of a file are indented."""
    prefix = context.opts["alembic_module_prefix"] or ""
    statements = ",\n".join(map(_rendered, operation.statements))
    return (
        f"{prefix}{operation.method}(\n    {operation.name!r},\n"
        f"    statements=[\n{statements},\n    ],\n)"
    )


def _rendered(statement: str) -> str:
    lines = "\n".join(f"            {line!r}" for line in statement.splitlines(keepends=True))
    return f"        (\n{lines}\n        )"


# -- autogenerate ---------------------------------------------------------------------------------


def setup(plugin: Any) -> None:  # noqa: ANN401 - an extra
    """Add the comparison to a plugin: Alembic calls this."""
    last = _util.DispatchPriority.LAST  # tables are made before their triggers
    plugin.add_autogenerate_comparator(_compare, "schema", qualifier="postgresql", priority=last)


def _compare(context: Any, upgrade_ops: Any, schemas: Iterable[str | None]) -> Any:  # noqa: ANN401 - an extra
    proceed = _util.PriorityDispatchResult.CONTINUE
    tables = _declared(context)
    if tables is None:
        return proceed
    session = blocking_session_on(context.connection)
    found = take_in_thread(session, finding())
    for table in tables:
        is_there = _function_of(table) in found  # by this name: a migration replaces others
        upgrade_ops.ops.extend(_to_install(session, table, is_there=is_there))
    seen = {one or context.dialect.default_schema_name for one in schemas}
    known = {_function_of(table) for table in tables}
    for function in found:
        if function.schema in seen and function not in known:
            # In front: these, and on the way back their tables, go first
            upgrade_ops.ops.insert(0, _to_remove(session, function))
    return proceed


def _declared(context: Any) -> list[Table] | None:  # noqa: ANN401 - an extra
    """Return the Tables that were declared, None if nothing was."""
    given: Any = context.opts.get(OPTION)
    if given is None:
        metadata = context.metadata
        of_all = metadata if isinstance(metadata, Sequence) else [metadata]
        infos = [one.info[PLUGIN] for one in of_all if one is not None and PLUGIN in one.info]
        if not infos:
            return None
        given = [table for info in infos for table in _tables(info)]
    return _tables(given)


def _tables(given: object) -> list[Table]:
    """Return Tables, else raise TypeError."""
    tables: list[Table] = []
    for table in given if isinstance(given, Iterable) else [given]:
        if not isinstance(table, Table):
            msg = f"{PLUGIN} must be a list of Table: one is of type {type_name(table)}"
            raise TypeError(msg)
        tables.append(table)
    return tables


def _function_of(table: Table) -> Function:
    return Function(table.definition.schema, table.definition.function)


def _to_install(
    session: BlockingSession, table: Table, *, is_there: bool
) -> list[InstallNotifyTriggerOp]:
    """Return what installs a Table, or nothing if the database has it."""
    status = _status_of(session, table) if is_there else None
    function = _function_of(table)
    if status is None:
        back: _NotifyTriggerOp = RemoveNotifyTriggerOp(table.name, table.removal_statements())
    elif (
        status.function is TriggerState.FINE and TriggerState.MISSING not in status.tables.values()
    ):
        return []
    else:
        there = take_in_thread(session, reading(function))
        back = InstallNotifyTriggerOp(table.name, _back_to(there, function, status))
    return [InstallNotifyTriggerOp(table.name, table.statements(), back)]


def _status_of(session: BlockingSession, table: Table) -> Status | None:
    """Return the status, None if the migration has yet to make the table."""
    try:
        return take_in_thread(session, inspecting(table.definition))
    except UnknownTableError:
        return None


def _back_to(there: Installed, function: Function, status: Status) -> list[str]:
    """Return what makes it as it is: of the function only, if its triggers stay as they are."""
    changed = {TriggerState.OUTDATED, TriggerState.MISSING}
    if changed.isdisjoint(status.tables.values()):
        return there.function
    return [*function.removal, *there.function, *there.triggers]


def _to_remove(session: BlockingSession, function: Function) -> RemoveNotifyTriggerOp:
    there = take_in_thread(session, reading(function))
    name = there.table or function.qualified
    back = InstallNotifyTriggerOp(name, [*there.function, *there.triggers])
    return RemoveNotifyTriggerOp(name, function.removal, back)


setup(_plugins.Plugin(PLUGIN))
