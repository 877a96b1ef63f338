"""The statement that removes a function with its triggers: one that asyncnotify has made."""

from __future__ import annotations

from asyncnotify.triggers._names import dollar_quotes, literal
from asyncnotify.triggers._sql.renaming import COMMENT


def remove_function(function: str) -> str:
    """Return the statement that removes a function, by its qualified name, and its triggers."""
    equals = "OPERATOR(pg_catalog.=)"
    body = f"""
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_description
        WHERE objoid {equals}
                pg_catalog.to_regprocedure({literal(function)})::pg_catalog.oid
            AND classoid {equals} 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND pg_catalog.starts_with(description, {literal(COMMENT)})
    ) THEN
        DROP FUNCTION {function} CASCADE;
    END IF;
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"
