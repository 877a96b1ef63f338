"""What is to be asked of the server to install, inspect and remove: no I/O, no driver."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from asyncnotify.log import NotInstalledError as LogNotInstalledError
from asyncnotify.triggers._errors import NotInstalledError, UnknownTableError
from asyncnotify.triggers._names import literal
from asyncnotify.triggers._sql.locking import lock_for_removal
from asyncnotify.triggers._sql.readability import READABLE, try_to_read
from asyncnotify.triggers._sql.refusals import find_other_level, may_own
from asyncnotify.triggers._sql.renaming import COMMENT, adopt, comment_of, function_in_use
from asyncnotify.triggers._sql.settings import lacking_settings
from asyncnotify.triggers._sql.statements import (
    body_of,
    fingerprint,
    function_statements,
    removal_statements,
    upgrade_statements,
)
from asyncnotify.triggers._sql.triggers import TREE, make_triggers, triggers_of
from asyncnotify.triggers._status import Status, TriggerState

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition
    from asyncnotify.triggers._sql.triggers import Trigger

T = TypeVar("T")
Rows: TypeAlias = Sequence[Sequence[Any]]


class Query(NamedTuple):
    """A statement without parameters, and whether it answers with rows."""

    text: str
    has_rows: bool = False


Steps: TypeAlias = Generator[Query, Rows, T]
"""Yields what is to be executed, is sent the rows, and returns the result."""

LockingSteps: TypeAlias = "Callable[[Definition, float], Steps[None]]"
"""Steps for a definition, that wait so many seconds for a lock."""

_DISABLED: Final = {"D", "R"}
"""Of pg_trigger.tgenabled: fires never, and on replicas only."""
_ROOT: Final = "root"
_CHILD: Final = "child"  # the root too, if its triggers are not called for its parent's rows
_PART: Final = "part"
_FOREIGN: Final = "foreign"
_STRAY: Final = "stray"
"""Places of a table: these two are also the states of tables that can, or should, have none."""


class Known(NamedTuple):
    """What a function is: its comment, its body, whether name and owner are as they should be."""

    comment: str
    body: str
    is_in_place: bool


def installing(definition: Definition, lock_timeout: float) -> Steps[None]:
    """Make all that is needed, or bring what is there up to date."""
    yield from _exists(definition)
    yield from _has_log(definition)
    yield from _locked(definition, _make_all(definition), lock_timeout)


def _make_all(definition: Definition) -> Steps[None]:
    yield from _make_function(definition)
    yield Query(make_triggers(definition))


def _make_function(definition: Definition) -> Steps[None]:
    """Replace the function unless it is as it should be: every session would compile it anew."""
    known = yield from _function(definition)
    if known is not None:
        is_made_for_it = yield from _is_made_for(definition)
        state = _state_of_function(definition, known, is_made_for_it=is_made_for_it)
        if state is TriggerState.FINE:
            return
    yield from _each(function_statements(definition))


def removing(definition: Definition, lock_timeout: float) -> Steps[None]:
    """Remove the function and all its triggers."""
    statements = [lock_for_removal(definition), *removal_statements(definition)]
    yield from _locked(definition, _each(statements), lock_timeout)


def upgrading(definition: Definition, lock_timeout: float) -> Steps[None]:
    """Replace the function of a Table that is installed."""
    yield from _exists(definition)
    if (yield from _function(definition)) is None:
        raise NotInstalledError(definition.qualified)
    of_other_level = find_other_level(definition)
    if (yield Query(f"SELECT EXISTS ({of_other_level})", has_rows=True))[0][0]:
        raise NotInstalledError(definition.qualified)
    yield from _has_log(definition)
    yield from _locked(definition, _each(upgrade_statements(definition)), lock_timeout)


def inspecting(definition: Definition) -> Steps[Status]:
    """Compare what is installed with what should be."""
    yield from _exists(definition)
    known = yield from _function(definition)
    rows = yield Query(_triggers_query(definition), has_rows=True)
    is_made_for_it = yield from _is_made_for(definition)
    return status_of(definition, known, rows, is_made_for_it=is_made_for_it)


def _is_made_for(definition: Definition) -> Steps[bool]:
    """Return whether a function for the table would be made as for what the table is now."""
    yield Query(try_to_read(definition))
    readable = yield Query(f"SELECT pg_catalog.current_setting('{READABLE}')", has_rows=True)
    settings = yield Query(lacking_settings(definition), has_rows=True)
    return readable[0][0] == "true" and not settings


def status_of(
    definition: Definition, known: Known | None, rows: Rows, *, is_made_for_it: bool
) -> Status:
    """
    Return the status, of what is known of the function, and of rows for each table.

    A row has the name of a table, its place, and its triggers, each as a text of type, state and
    name. What is installed does not say whether the function was made for the table as it is now:
    whether that has all columns, of types for which it was made.
    """
    function = TriggerState.MISSING
    if known is not None:
        function = _state_of_function(definition, known, is_made_for_it=is_made_for_it)
    wanted = triggers_of(definition)
    tables = {str(name): _state_of(wanted, has, place) for name, place, has in rows}
    return Status(function, tables)


def _state_of_function(
    definition: Definition, known: Known, *, is_made_for_it: bool
) -> TriggerState:
    due = Known(COMMENT + fingerprint(definition), body_of(definition), is_in_place=True)
    is_fine = known == due and is_made_for_it
    return TriggerState.FINE if is_fine else TriggerState.OUTDATED


def _state_of(wanted: Sequence[Trigger], has: Sequence[str], place: str) -> TriggerState:
    """Return the state of the triggers of one table."""
    if place == _FOREIGN:
        wanted = [one for one in wanted if one.is_row_level]
    if place == _STRAY or not wanted:
        return TriggerState(place)
    present = {name: (int(kind), enabled) for name, kind, enabled, *_ in map(_fields, has)}
    # A row-level trigger of a partitioned table is there in each partition, under the same name
    due = {one.name: one.type for one in wanted}
    if not due.keys() <= present.keys():
        return TriggerState.MISSING if place in {_ROOT, _CHILD} else TriggerState.UNCOVERED
    if place == _CHILD:
        return TriggerState.UNCOVERED
    if {name: kind for name, (kind, _) in present.items()} != due:
        return TriggerState.OUTDATED
    if any(enabled in _DISABLED for _, enabled in present.values()):
        return TriggerState.DISABLED
    return TriggerState.FINE


def _fields(text: str) -> list[str]:
    """Return name, type and state of a trigger: the name may hold anything."""
    kind, enabled, name = text.split(" ", 2)
    return [name, kind, enabled]


def _locked(definition: Definition, steps: Steps[None], timeout: float) -> Steps[None]:
    """Take steps, each of which waits for a lock so many seconds at most."""
    yield from _exists(definition)
    # One at a time: a function that two replace at once is an error of the second one
    lock = f"SELECT pg_catalog.pg_advisory_xact_lock({definition.lock_key})"
    yield from _waiting(timeout, _each([lock, adopt(definition)]), steps)


def executing(statements: Sequence[str], lock_timeout: float) -> Steps[None]:
    """Execute statements, each of which waits for a lock so many seconds at most."""
    yield from _waiting(lock_timeout, _each(statements))


def _milliseconds(seconds: float) -> int:
    # 0 would be no limit, and more than 31 bits the server does not take
    return min(max(1, round(seconds * 1000)), 2**31 - 1)


def _waiting(lock_timeout: float, *all_steps: Steps[None]) -> Steps[None]:
    rows = yield Query("SELECT pg_catalog.current_setting('lock_timeout')", has_rows=True)
    yield Query(f"SET LOCAL lock_timeout = {_milliseconds(lock_timeout)}")
    for steps in all_steps:
        yield from steps
    yield Query(f"SET LOCAL lock_timeout = {literal(str(rows[0][0]))}")


def _each(statements: Sequence[str]) -> Steps[None]:
    for statement in statements:
        yield Query(statement, has_rows=statement.startswith("SELECT"))


def _exists(definition: Definition) -> Steps[None]:
    query = f"SELECT pg_catalog.to_regclass({literal(definition.qualified)}) IS NOT NULL"
    rows = yield Query(query, has_rows=True)
    if not rows[0][0]:
        raise UnknownTableError(definition.qualified)


def _has_log(definition: Definition) -> Steps[None]:
    """Refuse a log that is not there: each write to the table would fail."""
    if definition.log is None:
        return
    query = f"""
        SELECT 1 FROM pg_catalog.pg_proc
        WHERE proname OPERATOR(pg_catalog.=) {literal(f"{definition.log}_append")}
            AND pronamespace OPERATOR(pg_catalog.=) (
                SELECT oid FROM pg_catalog.pg_namespace
                WHERE nspname OPERATOR(pg_catalog.=) 'asyncnotify'
            )
    """
    if not (yield Query(query, has_rows=True)):
        error = LogNotInstalledError(definition.log)
        error.add_note(
            f"each write to {definition.qualified} would fail, because its trigger appends to this"
            f" log: call Log({definition.log!r}, …).install() first"
        )
        raise error


def _function(definition: Definition) -> Steps[Known | None]:
    """Return what the function is; None if it is not there."""
    table = f"pg_catalog.to_regclass({literal(definition.qualified)})"
    query = f"""
        SELECT COALESCE({comment_of("pg_proc.oid")}, ''), prosrc,
            pg_catalog.to_regprocedure({literal(definition.qualified_function)}) IS NOT NULL
                AND {may_own("proowner", table)}
        FROM pg_catalog.pg_proc
        WHERE oid OPERATOR(pg_catalog.=) {function_in_use(definition)}
    """
    rows = yield Query(query, has_rows=True)
    return Known(str(rows[0][0]), str(rows[0][1]), bool(rows[0][2])) if rows else None


def _triggers_query(definition: Definition) -> str:
    root = f"pg_catalog.to_regclass({literal(definition.qualified)})::pg_catalog.oid"
    equals = "OPERATOR(pg_catalog.=)"
    child = f"""CASE WHEN {str(definition.is_told_by_name).lower()} AND EXISTS (
                        SELECT FROM pg_catalog.pg_inherits WHERE inhrelid {equals} {root}
                    ) THEN '{_CHILD}' ELSE '{_ROOT}' END"""
    return f"""{TREE.format(root=root)},
        functions (called) AS (SELECT (
            SELECT oid FROM pg_catalog.pg_proc
            WHERE oid {equals} {function_in_use(definition)}
                AND pg_catalog.starts_with({comment_of("pg_proc.oid")}, {literal(COMMENT)})
        ))
        SELECT pg_catalog.concat(
                pg_catalog.quote_ident(schema.nspname), '.', pg_catalog.quote_ident(class.relname)
            ),
            CASE WHEN class.oid {equals} {root} THEN {child}
                WHEN tree.relid IS NULL THEN '{_STRAY}'
                WHEN class.relkind {equals} 'f' THEN '{_FOREIGN}'
                ELSE '{_PART}' END,
            ARRAY(
                SELECT pg_catalog.concat(tgtype, ' ', tgenabled, ' ', tgname)
                FROM pg_catalog.pg_trigger
                WHERE tgrelid {equals} class.oid AND tgfoid {equals} called
            )
        FROM functions
        JOIN pg_catalog.pg_class AS class ON class.oid {equals} ANY (ARRAY(SELECT relid FROM tree))
            OR class.oid {equals} ANY (ARRAY(
                SELECT tgrelid FROM pg_catalog.pg_trigger WHERE tgfoid {equals} called
            ))
        LEFT JOIN tree ON tree.relid {equals} class.oid
        JOIN pg_catalog.pg_namespace AS schema ON schema.oid {equals} class.relnamespace
        ORDER BY 1
    """
