"""The bodies of functions that send NOTIFY, one for each level."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify.triggers._sql.payloads import (
    NUMBER,
    PAYLOAD_LIMIT,
    head,
    on_failure,
    send,
    send_reread,
)
from asyncnotify.triggers._sql.rows import (
    NEW_ROWS,
    OLD_ROWS,
    changed_rows,
    differs,
    filter_of,
    json_of,
    types_of,
)
from asyncnotify.triggers._sql.truncating import on_truncate

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition


def for_statements(definition: Definition) -> str:
    """
    Return the body for statement-level triggers.

    Rows are collected into payloads, each filled up to what the server takes. Nothing is sent
    before the last row is known to fit in the number of payloads that are allowed.
    """
    return f"""
#variable_conflict use_column
DECLARE
    number pg_catalog.int8;
    total pg_catalog.int8;
    items pg_catalog.refcursor;
    item pg_catalog.record;
    operation pg_catalog.text := '';
    payloads pg_catalog.text[] := '{{}}';
    payload pg_catalog.text := '';
    room pg_catalog.int4 := -1;
    must_read pg_catalog.bool := false;
BEGIN{on_truncate(definition)}
{open_rows(definition)}
    LOOP
        EXIT WHEN must_read;
        FETCH items INTO item;
        EXIT WHEN NOT FOUND;
        IF item.operation = operation AND pg_catalog.octet_length(item.data) < room THEN
            payload := payload || ',' || item.data;
            room := room - pg_catalog.octet_length(item.data) - 1;
            CONTINUE;
        END IF;
        IF number IS NULL THEN{_indented(NUMBER, 2)}
        ELSE
            payloads := payloads || (payload || ']}}');
        END IF;
        operation := item.operation;
        payload := {head("operation", definition.columns, "item.types")} || item.data;
        room := {PAYLOAD_LIMIT - 2} - pg_catalog.octet_length(payload);
{_too_large(definition)}
        must_read := room < 0 OR pg_catalog.cardinality(payloads)
            >= {definition.max_notifications};
    END LOOP;
    IF must_read THEN
{_count()}
        {send_reread(definition, "total")}
    ELSIF number IS NOT NULL THEN
        FOREACH payload IN ARRAY payloads || (payload || ']}}') LOOP
            {send(definition, "payload")}
        END LOOP;
    END IF;
    RETURN NULL;{on_failure(definition)}
END
"""


def open_rows(definition: Definition) -> str:
    branches = [
        f"TG_OP = '{operation.upper()}' THEN{shortcut}\n        OPEN items FOR\n{query};"
        for operation, query, shortcut in (
            ("insert", changed_rows(definition, "insert"), ""),
            ("delete", changed_rows(definition, "delete"), ""),
            ("update", changed_rows(definition, "update"), _shortcut(definition)),
        )
    ]
    return "    IF " + "\n    ELSIF ".join(branches) + "\n    END IF;"


def _shortcut(definition: Definition) -> str:
    """Say at once that so many updated rows do not fit: joining them would take a while."""
    if definition.is_filtered:
        return ""
    smallest = len("[1],") + 3 * (len(definition.columns) - 1)
    most = definition.max_notifications * PAYLOAD_LIMIT // smallest
    return f"""
        SELECT pg_catalog.count(*) INTO total FROM {NEW_ROWS};
        IF total > {most} THEN{_indented(NUMBER, 2)}
            {send_reread(definition, "total")}
            RETURN NULL;
        END IF;"""


def _too_large(definition: Definition) -> str:
    """Leave all but the key of a row that is too large for a payload."""
    if definition.columns == definition.key:
        return ""
    types = f"pg_catalog.json_build_array({_first_types(definition)})"
    return f"""        IF room < 0 THEN
            payload := {head("operation", definition.key, f"{types}::pg_catalog.text")}
                || item.key;
            room := {PAYLOAD_LIMIT - 2} - pg_catalog.octet_length(payload);
            operation := '';
        END IF;"""


def _first_types(definition: Definition) -> str:
    """Return the types of the key: the first ones of all."""
    return ", ".join(
        f"item.types::pg_catalog.json -> {position}" for position in range(len(definition.key))
    )


def _count() -> str:
    return f"""        IF TG_OP = 'DELETE' THEN
            SELECT pg_catalog.count(*) INTO total FROM {OLD_ROWS};
        ELSE
            SELECT pg_catalog.count(*) INTO total FROM {NEW_ROWS};
        END IF;"""


def for_rows(definition: Definition) -> str:
    """Return the body for row-level triggers: one payload for each row."""
    return f"""
DECLARE
    number pg_catalog.int8;
    operation pg_catalog.text;
    payload pg_catalog.text;
    was pg_catalog.record;
BEGIN{on_truncate(definition)}
{each_row(definition, _send_row(definition))}
    RETURN NULL;{on_failure(definition)}
END
"""


def _send_row(definition: Definition) -> str:
    def payload(columns: tuple[str, ...]) -> str:
        begin = head("operation", columns, types_of("NEW", columns))
        return f"{begin} || {json_of('NEW', columns)} || ']}}'"

    shorter = ""
    if definition.columns != definition.key:
        shorter = f"""
        IF pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT} THEN
            payload := {payload(definition.key)};
        END IF;"""
    return f"""{_indented(NUMBER, 1)}
        payload := {payload(definition.columns)};{shorter}
        IF pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT} THEN
            {send_reread(definition, "1")}
        ELSE
            {send(definition, "payload")}
        END IF;"""


def each_row(definition: Definition, told: str) -> str:
    """
    Return the statements of a row-level trigger, around those that tell of the row ``NEW``.

    Where there is one row only, a condition may call it by both names.
    """
    conditions = filter_of(definition, is_update=False)
    watched = f"operation = 'update' AND NOT {differs(definition.watch)}"
    skip = f"\n        CONTINUE WHEN {watched};" if definition.watch else ""
    if conditions:
        skip += f"\n        CONTINUE WHEN ({conditions[0]}) IS NOT TRUE;"
    return f"""    FOREACH operation IN ARRAY CASE WHEN TG_OP <> 'UPDATE'
        THEN ARRAY[pg_catalog.lower(TG_OP)]
        WHEN {differs(definition.key, "OLD", "NEW")} THEN '{{delete,insert}}'
        ELSE '{{update}}' END
    LOOP
        IF operation = 'delete' THEN
            was := NEW;
            NEW := OLD;
        ELSIF operation = 'insert' THEN
            IF TG_OP = 'UPDATE' THEN
                NEW := was;
            END IF;
            OLD := NEW;
        END IF;{skip}
{told}
    END LOOP;"""


def _indented(statements: str, levels: int) -> str:
    return statements.replace("\n", "\n" + "    " * levels)
