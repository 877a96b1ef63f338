"""The bodies of functions that send NOTIFY, one for each level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._sql.one_row import (
    NOTHING,
    OPERATIONS,
    branches,
    row_of_call,
    row_of_statement,
)
from asyncnotify.triggers._sql.payloads import (
    MAY_BE_UNREADABLE,
    NEXT_NUMBER,
    NUMBER,
    PAYLOAD_LIMIT,
    check_encoding,
    check_readable,
    head,
    notified,
    on_failure,
    send,
    send_reread,
)
from asyncnotify.triggers._sql.rows import (
    CONTEXT,
    NEW_ROWS,
    OLD_ROWS,
    changed_rows,
    find_unclear,
    json_array,
    rows_of_call,
    updated_rows,
)
from asyncnotify.triggers._sql.truncating import on_truncate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify.triggers._definition import Definition

_NO_ROWS: Final = f"""WHEN no_data_found THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM FROM {NEW_ROWS} LIMIT 1;
        ELSE
            PERFORM FROM {OLD_ROWS} LIMIT 1;
        END IF;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        must_collect := true;
    """
"""What is done where a statement has not changed one row: it may have changed none."""


def for_statements(definition: Definition) -> str:
    """
    Return the body for statement-level triggers.

    One row is sent at once. Several are collected into payloads, each filled up to what the server
    takes, and nothing is sent before the last row is known to fit in the payloads that are allowed.
    """
    rows = (row_of_statement(definition, operation) for operation in OPERATIONS)
    return _body(definition, rows, _of_all_rows(definition), _NO_ROWS)


def for_rows(definition: Definition) -> str:
    """Return the body for row-level triggers: a payload for each row, two for another key."""
    rows = (row_of_call(definition, operation, NEXT_NUMBER) for operation in OPERATIONS)
    return _body(definition, rows, _of_call(definition))


def _body(definition: Definition, rows: Iterable[str], others: str, on_error: str = "") -> str:
    """
    Return a body that has two ways: that of one row, and one for all that does not fit there.

    The other way is taken as well where anything has failed, and then says what it was, if it still
    does. A session that knows a column by the type which it had before fails in the first only.

    PL/pgSQL prepares each expression anew in each transaction that comes to it, as the server's
    exec_eval_simple_expr() says, so that there are few on the way of one row.
    """
    nothing = f"\n    IF payload = {NOTHING} THEN\n        RETURN NULL;\n    END IF;"
    fits_not = f"payload IS NULL OR pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT}"
    sent = f"{notified(definition, 'payload')} IS NOT NULL"
    return f"""
#variable_conflict use_column
DECLARE
    one pg_catalog.record;
    payload pg_catalog.text;
    must_collect pg_catalog.bool;
BEGIN
    BEGIN
{branches(rows, "must_collect := true;")}{nothing if definition.is_filtered else ""}
    IF {fits_not} OR {MAY_BE_UNREADABLE} THEN
        must_collect := {fits_not};
        IF NOT must_collect THEN{_indented(check_encoding("payload"), 1)}
        END IF;
    END IF;
    EXCEPTION {on_error}WHEN OTHERS OR assert_failure THEN
        must_collect := true;
    END;
    IF (CASE WHEN must_collect THEN false ELSE {sent} END) THEN
        RETURN NULL;
    END IF;
{others}
    RETURN NULL;
END
"""


def _of_all_rows(definition: Definition) -> str:
    """Return the statements that send all rows of a statement, or "read again" if too many."""
    return f"""    DECLARE
    number pg_catalog.int8;
    total pg_catalog.int8;
    items pg_catalog.refcursor;
    item pg_catalog.record;
    operation pg_catalog.text;
    payloads pg_catalog.text[];
    item_payload pg_catalog.text;
    wholes pg_catalog.text;
    room pg_catalog.int4;
    is_not_clear pg_catalog.bool;
    must_read pg_catalog.bool;{CONTEXT}{SETTINGS}
    BEGIN
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN{_indented(on_truncate(definition), 2)}
        END IF;
{_collect(definition)}
{check_readable("payloads || payload")}{on_failure(definition)}
    IF must_read THEN
        {send_reread(definition, "NULL" if definition.is_filtered else "total")}
    ELSE
        FOREACH item_payload IN ARRAY payloads LOOP
            {send(definition, "item_payload")}
        END LOOP;
        IF payload IS NOT NULL THEN
            {send(definition, "payload")}
        END IF;
    END IF;
    END;"""


def _of_call(definition: Definition) -> str:
    """Return the statements that send the rows of one call by a query."""
    shorter = ""
    if definition.columns != definition.key:
        key = head("item.operation", definition.key, first_types(definition))
        shorter = f"\n            payload := {key} || item.key || ']}}';"
    whole = head("item.operation", definition.columns, "item.types")
    make = f"""
        payload := {whole} || item.data || ']}}';
        IF pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT} THEN
            total := 1;{shorter}
            must_read := must_read OR pg_catalog.octet_length(payload) > {PAYLOAD_LIMIT};
        END IF;
        payloads := payloads || payload;"""
    return f"""    DECLARE
    number pg_catalog.int8;
    total pg_catalog.int8;
    item pg_catalog.record;
    payloads pg_catalog.text[] := {NONE};
    wholes pg_catalog.text;
    must_read pg_catalog.bool := false;
    BEGIN
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN{_indented(on_truncate(definition), 2)}
        END IF;{NUMBER}{rows_of_call(definition, make)}
{check_readable("payloads")}{on_failure(definition)}
    IF must_read THEN
        {send_reread(definition, "total")}
    ELSE
        FOREACH payload IN ARRAY payloads LOOP
            {send(definition, "payload")}
        END LOOP;
    END IF;
    END;"""


def _collect(definition: Definition) -> str:
    """Return the statements that make ``payloads`` of all rows, and ``payload``, the last one."""
    return f"""
    must_read := false;{NUMBER}{PLAN_FOR_MANY}{_shortcut(definition)}
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
    told = (update, changed_rows(definition, "insert"), changed_rows(definition, "delete"))
    return branches(f"OPEN items FOR{chr(10)}{query};" for query in told)


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
    return f"""        IF room < 0 THEN
            payload := {head("operation", definition.key, first_types(definition))}
                || item.key;
            room := {PAYLOAD_LIMIT - 2} - pg_catalog.octet_length(payload);
            operation := '';
        END IF;"""


def first_types(definition: Definition) -> str:
    """Return the expression for the types of an item's key: the first ones of all."""
    types = [f"item.types::pg_catalog.json -> {at}" for at, _ in enumerate(definition.key)]
    return f"{json_array(types)}::pg_catalog.text"


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


def _indented(statements: str, levels: int) -> str:
    return statements.replace("\n", "\n" + "    " * levels)
