"""What is installed, read from the catalog as SQL that makes it again: for the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncnotify.triggers._names import dollar_quotes, literal, quoted
from asyncnotify.triggers._sql.refusals import check_mark
from asyncnotify.triggers._sql.removing import remove_function
from asyncnotify.triggers._sql.renaming import COMMENT, comment_of
from asyncnotify.triggers._steps import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.triggers._steps import Steps


class Function(NamedTuple):
    """A function that some Table has installed."""

    schema: str
    name: str

    @property
    def qualified(self) -> str:
        """The function with its schema, quoted, and its empty list of arguments."""
        return f"{quoted(self.schema)}.{quoted(self.name)}()"

    @property
    def removal(self) -> list[str]:
        """The statements that remove it with its triggers."""
        return [remove_function(self.qualified)]


class Installed(NamedTuple):
    """
    What is installed of a function.

    Attributes:
        table: The table that has the triggers, as the server writes it; None if there are none.
        function: The statements that make the function as it is.
        triggers: The statements that make its triggers, where there are none.
    """

    table: str | None
    function: list[str]
    triggers: list[str]


def finding() -> Steps[list[Function]]:
    """Return the functions of all Tables that are installed."""
    query = f"""
        SELECT nspname, proname
        FROM pg_catalog.pg_proc AS function JOIN pg_catalog.pg_namespace AS schema
            ON schema.oid OPERATOR(pg_catalog.=) function.pronamespace
        WHERE pronargs OPERATOR(pg_catalog.=) 0
            AND prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype
            AND pg_catalog.starts_with({comment_of("function.oid")}, {literal(COMMENT)})
        ORDER BY 1, 2
    """
    rows = yield Query(query, has_rows=True)
    return [Function(str(schema), str(name)) for schema, name in rows]


def reading(function: Function) -> Steps[Installed]:
    """Return what is installed of a function that is there."""
    before = yield Query("SELECT pg_catalog.current_setting('search_path')", has_rows=True)
    yield Query("SET LOCAL search_path = pg_catalog, pg_temp")  # all other names with their schema
    oid = f"{literal(function.qualified)}::regprocedure"
    made = yield Query(
        f"SELECT pg_get_functiondef({oid}), obj_description({oid}, 'pg_proc')", has_rows=True
    )
    granted = yield Query(
        f"""
            SELECT grantee::regrole::text FROM pg_proc, aclexplode(proacl)
            WHERE pg_proc.oid = {oid} AND grantee <> 0 AND grantee <> proowner
            ORDER BY 1
        """,
        has_rows=True,
    )
    rows = yield Query(
        f"""
            SELECT tgrelid::regclass::text, tgnargs = 0, pg_get_triggerdef(oid),
                CASE WHEN tgenabled = 'A' THEN
                    concat('ALTER TABLE ', tgrelid::regclass, ' ENABLE ALWAYS TRIGGER ')
                    || quote_ident(tgname)
                END
            FROM pg_trigger
            WHERE tgfoid = {oid} AND tgparentid = 0
            ORDER BY tgnargs, tgrelid, tgname
        """,
        has_rows=True,
    )
    restoring = f"SELECT pg_catalog.set_config('search_path', {literal(str(before[0][0]))}, true)"
    yield Query(restoring, has_rows=True)
    return Installed(
        next((str(table) for table, is_root, *_ in rows if is_root), None),
        _function(function, made[0], [str(role) for (role,) in granted]),
        _triggers(rows),
    )


def _function(function: Function, made: Sequence[object], roles: Sequence[str]) -> list[str]:
    definition, comment = map(str, made)
    grants = {role: f"GRANT EXECUTE ON FUNCTION {function.qualified} TO {role}" for role in roles}
    return [
        check_mark(function.qualified),
        definition.rstrip("\n"),
        f"REVOKE ALL ON FUNCTION {function.qualified} FROM PUBLIC",
        *(_where("regrole", role, grant) for role, grant in grants.items()),
        f"COMMENT ON FUNCTION {function.qualified} IS {literal(comment)}",
    ]


def _triggers(rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        str(make) if is_root else _where("regclass", str(table), str(make))
        for table, is_root, made, fires_always in rows
        for make in (made, fires_always)
        if make is not None
    ]


def _where(kind: str, name: str, make: str) -> str:
    """Return a statement for what another database may not have: a partition, a child, a role."""
    body = (
        f"BEGIN IF pg_catalog.to_{kind}({literal(name)}) IS NOT NULL"
        f" THEN EXECUTE {literal(make)}; END IF; END"
    )
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"
