"""The bodies of functions that send NOTIFY, one for each level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._sql.payloads import (
    LAST_NUMBER,
    NEXT_NUMBER,
    PAYLOAD_LIMIT,
    check_readable,
    head,
    on_failure,
    send,
    send_reread,
)
from asyncnotify.triggers._sql.rows import (
    CONTEXT,
    NEW_ROWS,
    OLD_ROWS,
    changed_rows,
    differs,
    filter_of,
    find_unclear,
    first_row,
    json_of,
    types_of,
    updated_rows,
)
from asyncnotify.triggers._sql.truncating import on_truncate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify.triggers._definition import Definition

ROW_OPERATIONS: Final = ("insert", "update", "delete")


def for_statements(definition: Definition) -> str:
    """
    Return the body for statement-level triggers.

    One row is sent at once. Several are collected into payloads, each filled up to what the server
    takes, and nothing is sent before the last row is known to fit in the payloads that are allowed.

    PL/pgSQL prepares each expression anew in each transaction that comes to it, as the server's
    exec_eval_simple_expr() says, so that there are few on the way of one row. The variables of the
    other way get their values there: ``must_read`` is null where there is one row.
    """
    payload = head("pg_catalog.lower(TG_OP)", definition.columns, "types", NEXT_NUMBER)
    truncate = f"\n    ELSE{_indented(on_truncate(definition), 1)}\n    END IF;"
    first_rows = _branches((first_row(definition, one) for one in ROW_OPERATIONS), truncate)
    return f"""
#variable_conflict use_column
DECLARE
    number pg_catalog.int8;
    are_more pg_catalog.bool;
    is_told pg_catalog.bool;
    data pg_catalog.text;
    types pg_catalog.text;
    total pg_catalog.int8;
    items pg_catalog.refcursor;
    item pg_catalog.record;
    operation pg_catalog.text;
    payloads pg_catalog.text[];
    payload pg_catalog.text;
    item_payload pg_catalog.text;
    wholes pg_catalog.text;
    room pg_catalog.int4;
    is_not_clear pg_catalog.bool;
    must_read pg_catalog.bool;{CONTEXT}{SETTINGS}
BEGIN
    BEGIN
{first_rows}
    IF are_more IS NULL OR NOT are_more AND is_told IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    payload := {payload} || data || ']}}';
    IF are_more OR pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT} THEN
{_indented(_collect(definition), 1)}
    END IF;{check_readable("payloads || payload")}{on_failure(definition)}
    IF must_read IS NULL THEN
        {send(definition, "payload")}
    ELSIF must_read THEN
        {send_reread(definition, "NULL" if definition.is_filtered else "total")}
    ELSE
        FOREACH item_payload IN ARRAY payloads LOOP
            {send(definition, "item_payload")}
        END LOOP;
        IF payload IS NOT NULL THEN
            {send(definition, "payload")}
        END IF;
    END IF;
    RETURN NULL;
END
"""


def _collect(definition: Definition) -> str:
    """Return the statements that make ``payloads`` of all rows, and ``payload``, the last one."""
    return f"""
    must_read := false;{LAST_NUMBER}{PLAN_FOR_MANY}{_shortcut(definition)}
    IF TG_OP = 'UPDATE' AND NOT must_read THEN
        {find_unclear(definition, "is_not_clear")}
        must_read := is_not_clear;
    END IF;
{open_rows(definition, updated_rows(definition))}
    operation := '';
    payloads := {NONE};
    payload := NULL;
    room := -1;
    LOOP
        EXIT WHEN must_read;
        FETCH items INTO item;
        EXIT WHEN NOT FOUND;
        IF item.operation = '' THEN
            -- A key is another one: begin again, with all joins that this needs
            CLOSE items;
            OPEN items FOR
{changed_rows(definition, "update")};
            operation := '';
            payloads := {NONE};
            payload := NULL;
            room := -1;
            CONTINUE;
        END IF;
        IF item.operation = operation AND pg_catalog.octet_length(item.data) < room THEN
            payload := payload || ',' || item.data;
            room := room - pg_catalog.octet_length(item.data) - 1;
            CONTINUE;
        END IF;
        IF payload IS NOT NULL THEN
            payloads := payloads || (payload || ']}}');
        END IF;
        operation := item.operation;
        payload := {head("operation", definition.columns, "item.types")} || item.data;
        room := {PAYLOAD_LIMIT - 2} - pg_catalog.octet_length(payload);
{_too_large(definition)}
        must_read := room < 0
            OR pg_catalog.cardinality(payloads) >= {definition.max_notifications};
    END LOOP;
    CLOSE items;{RESTORE_SETTINGS}
    payload := payload || ']}}';{_count(definition)}"""


def _branches(statements: Iterable[str], end: str = "\n    END IF;") -> str:
    """Return a statement for each operation, of which one is executed, and what ends them."""
    branches = (
        f"TG_OP = '{operation.upper()}' THEN\n        {statement}"
        for operation, statement in zip(ROW_OPERATIONS, statements, strict=True)
    )
    return "    IF " + "\n    ELSIF ".join(branches) + end


NONE: Final = "'{}'::pg_catalog.text[]"
"""No payloads. Without its type it would be parsed in each call."""

SETTINGS: Final = """
    loops pg_catalog.text;
    jit pg_catalog.text;"""
"""Variables for what a session has set."""

PLAN_FOR_MANY: Final = """
    loops := pg_catalog.current_setting('enable_nestloop');
    jit := pg_catalog.current_setting('jit');
    PERFORM pg_catalog.set_config('enable_nestloop', 'off', true),
        pg_catalog.set_config('jit', 'off', true);"""
"""A plan is kept for the session: loops, which are good for two rows, must not be taken for a
million, and what was compiled for a million must not be for two."""

RESTORE_SETTINGS: Final = """
    PERFORM pg_catalog.set_config('enable_nestloop', loops, true),
        pg_catalog.set_config('jit', jit, true);"""


def open_rows(definition: Definition, update: str) -> str:
    """Return the statements that open the cursor ``items`` on all rows to be told."""
    told = (changed_rows(definition, "insert"), update, changed_rows(definition, "delete"))
    return _branches(f"OPEN items FOR{chr(10)}{query};" for query in told)


def _shortcut(definition: Definition) -> str:
    """Say at once that so many updated rows do not fit: joining them would take a while."""
    if definition.is_filtered:
        return ""
    smallest = len("[1],") + 3 * (len(definition.columns) - 1)
    most = definition.max_notifications * PAYLOAD_LIMIT // smallest
    return f"""
        IF TG_OP = 'UPDATE' THEN
            SELECT pg_catalog.count(*) INTO total FROM {OLD_ROWS};
            IF total > {most} THEN
                must_read := true;
            END IF;
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


def _count(definition: Definition) -> str:
    """Count the rows that are not told, where each is there once, and none is left out."""
    if definition.is_filtered:
        return ""
    return f"""
    IF must_read THEN
        IF TG_OP = 'INSERT' THEN
            SELECT pg_catalog.count(*) INTO total FROM {NEW_ROWS};
        ELSIF is_not_clear THEN
            total := NULL;
        ELSE
            SELECT pg_catalog.count(*) INTO total FROM {OLD_ROWS};
        END IF;
    END IF;"""


def for_rows(definition: Definition) -> str:
    """
    Return the body for row-level triggers: a payload for each row, two for another key.

    Its expressions are few, as in ``for_statements()``.
    """
    return f"""
#variable_conflict use_column
DECLARE
    number pg_catalog.int8;
    operation pg_catalog.text;
    payload pg_catalog.text;
    payloads pg_catalog.text[];
    must_read pg_catalog.bool;
    total pg_catalog.int8;
    wholes pg_catalog.text;
    was pg_catalog.record;
BEGIN
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN{_indented(on_truncate(definition), 2)}
        END IF;
{_indented(each_row(definition, _make_payload(definition)), 1)}
{check_readable("payloads")}{on_failure(definition)}
    IF must_read THEN
        {send_reread(definition, "total")}
    ELSIF payloads IS NOT NULL THEN
        FOREACH payload IN ARRAY payloads LOOP
            {send(definition, "payload")}
        END LOOP;
    END IF;
    RETURN NULL;
END
"""


def _make_payload(definition: Definition) -> str:
    def payload(columns: tuple[str, ...], number: str) -> str:
        begin = head("operation", columns, types_of("NEW", columns), number)
        return f"{begin} || {json_of('NEW', columns)} || ']}}'"

    shorter = ""
    if definition.columns != definition.key:
        shorter = f"\n            payload := {payload(definition.key, 'number')};"
    return f"""        payload := {payload(definition.columns, NEXT_NUMBER)};
        IF pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT} THEN{_indented(LAST_NUMBER, 2)}
            total := 1;{shorter}
            must_read := must_read IS TRUE OR pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT};
        END IF;
        payloads := payloads || payload;"""


def each_row(definition: Definition, make: str) -> str:
    """
    Return the statements of a row-level trigger, around those that are executed for a row ``NEW``.

    Where there is one row only, a condition may call it by both names.
    """
    conditions = filter_of(definition, is_update=False)
    watched = f"operation = 'update' AND NOT {differs(definition.watch)}"
    skip = f"\n        CONTINUE WHEN {watched};" if definition.watch else ""
    if conditions:
        skip += f"\n        CONTINUE WHEN ({conditions[0]}) IS NOT TRUE;"
    return f"""    FOREACH operation IN ARRAY {_operations_of_row(definition)}
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
{make}
    END LOOP;"""


def _operations_of_row(definition: Definition) -> str:
    """Return the array of what a row-level trigger tells of its row."""
    return f"""CASE WHEN TG_OP <> 'UPDATE'
        THEN ARRAY[pg_catalog.lower(TG_OP)]
        WHEN {differs(definition.key, "OLD", "NEW")} THEN '{{delete,insert}}'
        ELSE '{{update}}' END"""


def _indented(statements: str, levels: int) -> str:
    return statements.replace("\n", "\n" + "    " * levels)
