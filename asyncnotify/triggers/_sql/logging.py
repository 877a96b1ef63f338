"""The bodies of functions that append to a durable log: one event for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import literal
from asyncnotify.triggers._sql.notifying import (
    NONE,
    PLAN_FOR_MANY,
    RESTORE_SETTINGS,
    SETTINGS,
    open_rows,
)
from asyncnotify.triggers._sql.one_row import NOTHING, OPERATIONS, branches, row_of_call
from asyncnotify.triggers._sql.payloads import find_unreadable, head
from asyncnotify.triggers._sql.rows import (
    CONTEXT,
    changed_rows,
    find_unclear,
    json_of,
    rows_of_call,
    several_updated,
)

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

_PORTION_COUNT: Final = 1_000
_PORTION_BYTES: Final = 1_048_576
"""Events and bytes that one call of the log's function takes; a larger event goes alone."""

_REREAD: Final = """'{{"op":"{operation}","reread": null}}'"""
"""A payload that says "read again". With its blank, SQLAlchemy sees no parameter in it."""

_TRUNCATED: Final = "pg_catalog.current_setting('asyncnotify.log_truncated', true)"
"""Which functions have told of the TRUNCATE of a whole, and of nothing since."""


def for_statements(definition: Definition) -> str:
    """Return the body for statement-level triggers. Any failure aborts the statement."""
    begin = head("item.operation", definition.columns, "item.types", None)
    reread = _REREAD.format(operation="update")
    return f"""
#variable_conflict use_column
DECLARE
    items pg_catalog.refcursor;
    item pg_catalog.record;
    payload pg_catalog.text;
    payloads pg_catalog.text[] := {NONE};
    keys pg_catalog.text[] := {NONE};
    size pg_catalog.int8 := 0;
    must_read pg_catalog.bool := false;{CONTEXT}{SETTINGS}
BEGIN{_on_truncate(definition)}
{PLAN_FOR_MANY}
    -- Before any condition: rows that it leaves out may be those that say so
    IF TG_OP = 'UPDATE' THEN
        IF {several_updated(definition)} THEN
        {find_unclear(definition, "must_read")}
        END IF;
    END IF;
{open_rows(definition, changed_rows(definition, "update"))}
    LOOP
        EXIT WHEN must_read;
        FETCH items INTO item;
        EXIT WHEN NOT FOUND;
        payload := {begin} || item.data || ']}}';
        payloads := payloads || payload;
        keys := keys || ({_key_of(definition, "COALESCE(item.key, item.data)")});
        size := size + pg_catalog.octet_length(payload);
        IF pg_catalog.cardinality(payloads) >= {_PORTION_COUNT} OR size >= {_PORTION_BYTES} THEN
            {find_unreadable("payloads", "must_read")}
            EXIT WHEN must_read;
            {_append_many(definition)}
            payloads := {NONE};
            keys := {NONE};
            size := 0;
        END IF;
    END LOOP;
    CLOSE items;{RESTORE_SETTINGS}
    IF NOT must_read AND size > 0 THEN
        {find_unreadable("payloads", "must_read")}
    END IF;
    IF must_read THEN
        {_append(definition, reread, "NULL")}
    ELSIF size > 0 THEN
        {_append_many(definition)}
    END IF;
    RETURN NULL;
END
"""


def for_rows(definition: Definition) -> str:
    """
    Return the body for row-level triggers. Any failure aborts the statement.

    But not that of a session which knows a column by the type that it had before: the other way
    does there, as it does for another key.
    """
    rows = (_row_of_call(definition, operation) for operation in OPERATIONS)
    whole = head("item.operation", definition.columns, "item.types", None)
    others = f"""
        payload := {whole} || item.data || ']}}';
        key := {_key_of(definition, "COALESCE(item.key, item.data)")};
        {_append_readable(definition)}"""
    return f"""
#variable_conflict use_column
DECLARE
    payload pg_catalog.text;
    key pg_catalog.text;
    item pg_catalog.record;
    must_read pg_catalog.bool;
BEGIN{_on_truncate(definition)}
    BEGIN
{branches(rows)}
    EXCEPTION WHEN datatype_mismatch THEN
        payload := NULL;
    END;
    IF payload IS NULL THEN{rows_of_call(definition, others)}
    ELSIF payload <> {NOTHING} THEN
        {_append_readable(definition)}
    END IF;
    RETURN NULL;
END
"""


def _append_readable(definition: Definition) -> str:
    """Return the statements that append ``payload``; "read again" if nobody could read it."""
    return f"""must_read := false;{find_unreadable("ARRAY[payload]", "must_read")}
        IF must_read THEN
            {_append(definition, _REREAD.format(operation="update"), "NULL")}
        ELSE
            {_append(definition, "payload", "key")}
        END IF;"""


def _row_of_call(definition: Definition, operation: str) -> str:
    alias = "OLD" if operation == "delete" else "NEW"
    key = _key_of(definition, json_of(alias, definition.key))
    return f"{row_of_call(definition, operation, None)}\n        key := {key};"


def _on_truncate(definition: Definition) -> str:
    """
    Return the statements for TRUNCATE: one that leaves other rows says "read again".

    That of a whole fires the triggers of every partition as well, after its own.
    """
    truncate, reread = """'{"op":"truncate"}'""", _REREAD.format(operation="truncate")
    mark = literal(f"{definition.qualified_function} ")
    others = f"pg_catalog.replace(COALESCE({_TRUNCATED}, ''), {mark}, '')"
    of_whole = f"pg_catalog.strpos({_TRUNCATED}, {mark}) > 0"
    return f"""
    IF TG_OP = 'TRUNCATE' THEN
        IF TG_NARGS > 0 AND {of_whole} THEN
            RETURN NULL;
        END IF;
        IF TG_NARGS = 0 THEN
            PERFORM {_set_truncated(f"{others} || {mark}")};
        END IF;
        IF TG_NARGS > 0 OR EXISTS (
            SELECT FROM pg_catalog.pg_inherits AS link
            JOIN pg_catalog.pg_class AS parent ON parent.oid = link.inhparent
            WHERE link.inhparent = TG_RELID AND parent.relkind <> 'p'
        ) THEN
            {_append(definition, reread, "NULL")}
        ELSE
            {_append(definition, truncate, "NULL")}
        END IF;
        RETURN NULL;
    END IF;
    IF {of_whole} THEN
        PERFORM {_set_truncated(f"pg_catalog.replace({_TRUNCATED}, {mark}, '')")};
    END IF;"""


def _set_truncated(value: str) -> str:
    return f"pg_catalog.set_config('asyncnotify.log_truncated', {value}, true)"


def _key_of(definition: Definition, array: str) -> str:
    """Return the expression for the key of an event: the column's text, or a JSON array of all."""
    if len(definition.key) > 1:
        return array
    return f"({array})::pg_catalog.json ->> 0"


def _append(definition: Definition, payload: str, key: str) -> str:
    return (
        f"PERFORM asyncnotify.{definition.log}_append({definition.literal_channel()},"
        f" {payload}, {key});"
    )


def _append_many(definition: Definition) -> str:
    channels = (
        f"pg_catalog.array_fill({definition.literal_channel()}::pg_catalog.text,"
        " ARRAY[pg_catalog.cardinality(payloads)])"
    )
    return f"PERFORM asyncnotify.{definition.log}_append_many({channels}, payloads, keys);"
