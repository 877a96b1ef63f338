"""Whether a function can read the rows of its table: tried on no rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import dollar_quotes, literal
from asyncnotify.triggers._sql.rows import NEW_ROWS, OLD_ROWS, changed_rows

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

READABLE: Final = "asyncnotify.readable"
"""The setting that holds an answer for the rest of a transaction."""

_PASSING: Final = "lock_not_available OR transaction_rollback OR insufficient_resources"
"""Failures of an attempt to read that say nothing of the table: categories, and a condition."""

_COLUMNS: Final = "/* asyncnotify: columns */"
"""Stands in a statement for the columns that a table has when that is executed."""


def check_readable(definition: Definition) -> str:
    """Return a statement that fails where the function could not read the rows, and says why."""
    return f"""    BEGIN
{_read_no_rows(definition)}
    EXCEPTION WHEN undefined_column THEN
        IF EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = root AND attgenerated = 'v'
                AND pg_catalog.strpos(SQLERRM, attname::pg_catalog.text) > 0
        ) THEN
            RAISE EXCEPTION 'asyncnotify: triggers do not see virtual generated columns: %', SQLERRM
            USING ERRCODE = 'feature_not_supported';
        ELSIF EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = root AND {_has_no_value(definition)}
                AND pg_catalog.strpos(SQLERRM, attname::pg_catalog.text) > 0
        ) THEN
            RAISE EXCEPTION 'asyncnotify: triggers of statements do not see stored generated'
                ' columns of a partitioned table: %', SQLERRM
            USING ERRCODE = 'feature_not_supported', HINT = 'Use level="row".';
        END IF;
        RAISE;
    END;"""


def try_to_read(definition: Definition) -> str:
    """
    Return the statement that finds out whether the function can read the rows of its table.

    It sets READABLE to a text, for its transaction. A role that may not read the table finds out
    whether all columns are there.
    """
    body = f"""
DECLARE
    root CONSTANT pg_catalog.regclass := {literal(definition.qualified)};
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM pg_catalog.set_config({literal(READABLE)}, 'true', true);
    BEGIN
{_read_no_rows(definition)}
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    WHEN {_PASSING} THEN
        RAISE;
    WHEN OTHERS THEN
        PERFORM pg_catalog.set_config({literal(READABLE)}, 'false', true);
    END;
    PERFORM pg_catalog.set_config('search_path', before, true);
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"


def _read_no_rows(definition: Definition) -> str:
    """
    Return a statement that reads no rows by the query for updates, which has all conditions.

    Its rows have no generated columns of which triggers do not see the values.
    """
    none = f"(SELECT {_COLUMNS} FROM {definition.qualified} WHERE false)"
    query = changed_rows(definition, "update")
    probe = f"""SELECT FROM (
    WITH {OLD_ROWS} AS {none}, {NEW_ROWS} AS {none}
{query}
    ) AS probe"""
    return f"""        EXECUTE pg_catalog.replace({literal(probe)}, {literal(_COLUMNS)}, COALESCE((
            SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum)
            FROM pg_attribute
            WHERE attrelid = root AND attnum > 0 AND NOT attisdropped
                AND NOT {_has_no_value(definition)}
        ), ''));"""


def _has_no_value(definition: Definition) -> str:
    """
    Return the condition that triggers may see no value of a column of the table, or a former one.

    Of virtual generated columns they never do. Of a row that is inserted through a partitioned
    table, or moved, the server puts into the transition table what it had before the stored ones
    were computed, if the columns of the partition lie otherwise: and one that is attached later may
    be the first of those.
    """
    sees_all = definition.level == "row" or {"insert", "update"}.isdisjoint(definition.operations)
    of_partitioned = (
        ""
        if sees_all
        else """ OR attgenerated = 's' AND EXISTS (
                    SELECT FROM pg_class WHERE oid = root AND relkind = 'p')"""
    )
    return f"(attgenerated = 'v'{of_partitioned})"
