"""Functions that a Table has installed while its table had another name, or another schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import dollar_quotes, joined, literal

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

COMMENT: Final = "asyncnotify.triggers "
"""What the comment of each function begins with: by that they are known, whatever their names."""

_SUFFIXES: Final = ("row", "insert", "update", "delete", "truncate")


def trigger_names(definition: Definition) -> str:
    """Return all names that triggers of a Table may have, as an array in SQL."""
    names = (literal(joined(definition.trigger, suffix)) for suffix in _SUFFIXES)
    return f"ARRAY[{', '.join(names)}]::pg_catalog.text[]"


def comment_of(function: str) -> str:
    """
    Return the expression for a function's comment, by its oid.

    Before PostgreSQL 14 the body of obj_description() takes operators by the search path.
    """
    equals = "OPERATOR(pg_catalog.=)"
    return f"""(
                        SELECT description FROM pg_catalog.pg_description
                        WHERE objoid {equals} {function} AND objsubid {equals} 0
                            AND classoid {equals} 'pg_catalog.pg_proc'::pg_catalog.regclass
                    )"""


def function_in_use(definition: Definition) -> str:
    """
    Return the expression for the function of a Table: its oid, NULL if there is none.

    It is the one of the expected name, else that of the table's triggers, if those are no other
    table's: then the table has been renamed, or moved to another schema, since ``install()``.
    """
    equals = "OPERATOR(pg_catalog.=)"
    return f"""COALESCE(
            pg_catalog.to_regprocedure({literal(definition.qualified_function)})::pg_catalog.oid,
            (
                SELECT pg_catalog.min(known.tgfoid) FROM pg_catalog.pg_trigger AS known
                WHERE known.tgrelid
                        {equals} pg_catalog.to_regclass({literal(definition.qualified)})
                    AND known.tgnargs {equals} 0 AND known.tgparentid {equals} 0
                    AND known.tgname::pg_catalog.text {equals} ANY ({trigger_names(definition)})
                    AND pg_catalog.starts_with({comment_of("known.tgfoid")}, {literal(COMMENT)})
                    AND NOT EXISTS (
                        SELECT FROM pg_catalog.pg_trigger AS other
                        WHERE other.tgfoid {equals} known.tgfoid AND other.tgnargs {equals} 0
                            AND other.tgparentid {equals} 0
                            AND other.tgrelid OPERATOR(pg_catalog.<>) known.tgrelid
                    )
            )
        )"""


def adopt(definition: Definition) -> str:
    """Return the statement that gives the function its expected name: it locks no table."""
    body = f"""
DECLARE
    found CONSTANT pg_catalog.oid := {function_in_use(definition)};
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    passing CONSTANT pg_catalog.text := pg_catalog.concat('asyncnotify_', found);
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF found <> COALESCE(to_regprocedure({literal(definition.qualified_function)})::oid, 0) THEN
        -- A name that is in neither schema first: the other two may be taken in one of them
        EXECUTE pg_catalog.format('ALTER FUNCTION %s RENAME TO %I', found::regprocedure, passing);
        EXECUTE pg_catalog.format(
            'ALTER FUNCTION %s SET SCHEMA %I', found::regprocedure, {literal(definition.schema)}
        );
        EXECUTE pg_catalog.format(
            'ALTER FUNCTION %s RENAME TO %I', found::regprocedure, {literal(definition.function)}
        );
    END IF;
    PERFORM pg_catalog.set_config('search_path', before, true);
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"
