"""What is refused: tables of which changes would be lost, functions that are not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import dollar_quotes, literal
from asyncnotify.triggers._sql.renaming import COMMENT, comment_of, function_in_use

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition


OWNER: Final = """
    owner pg_catalog.text;"""
"""The variable for a role that owns a function and may not."""


def refuse_function(definition: Definition) -> str:
    """
    Return the statements that refuse a function of the expected name that is not ours to replace.

    It is none that asyncnotify has made; or its owner is not trusted with the table, and keeps the
    right to put another body into it, which all who write to the table would execute.
    """
    function = literal(definition.qualified_function)
    return f"""{_refuse_unmarked(function)}
    SELECT proowner::pg_catalog.regrole INTO owner FROM pg_proc
    WHERE oid = to_regprocedure({function})
        AND NOT {may_own("proowner", f"pg_catalog.to_regclass({literal(definition.qualified)})")};
    IF owner IS NOT NULL THEN
        RAISE EXCEPTION 'asyncnotify: function % belongs to role %, which has no right to make'
            ' triggers of table %', {function}, owner, {literal(definition.qualified)}
        USING ERRCODE = 'duplicate_object',
            HINT = 'Drop it, or ALTER FUNCTION ... OWNER TO the owner of the table.';
    END IF;
"""


def may_own(owner: str, table: str) -> str:
    """
    Return the condition that a role may own the function of a table: by their oids.

    It may if it could make such triggers itself: the owner of the table, a member of that, a
    superuser, who has the right TRIGGER; and who executes this.
    """
    equals = "OPERATOR(pg_catalog.=)"
    return f"""(pg_catalog.has_table_privilege({owner}, {table}::pg_catalog.oid, 'TRIGGER')
            OR pg_catalog.pg_get_userbyid({owner}) {equals} CURRENT_USER
            OR pg_catalog.pg_has_role({owner}, (
                SELECT relowner FROM pg_catalog.pg_class WHERE oid {equals} {table}
            ), 'MEMBER'))"""


def check_function(definition: Definition) -> str:
    """Return the statement that refuses a function that is not ours to replace."""
    return _alone(refuse_function(definition))


def check_level(definition: Definition) -> str:
    """
    Return the statement that refuses triggers that call the function at another level.

    A function for rows finds none where it is called for a statement, and the other way round.
    """
    return _alone(f"""    IF EXISTS ({find_other_level(definition)}) THEN
        RAISE EXCEPTION 'asyncnotify: the triggers of table % are of another level: install() makes'
            ' those that fit', {literal(definition.qualified)}
        USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;""")


def find_other_level(definition: Definition) -> str:
    """Return the query for triggers of the table that call its function at another level."""
    equals = "OPERATOR(pg_catalog.=)"
    truncate, row = "32::pg_catalog.int2", "1::pg_catalog.int2"
    level = 1 if definition.level == "row" else 0
    return f"""SELECT FROM pg_catalog.pg_trigger
            WHERE tgrelid {equals} pg_catalog.to_regclass({literal(definition.qualified)})
                AND tgfoid {equals} {function_in_use(definition)}
                AND pg_catalog.starts_with({comment_of("tgfoid")}, {literal(COMMENT)})
                AND tgtype OPERATOR(pg_catalog.<>) {truncate}
                AND tgtype OPERATOR(pg_catalog.&) {row} OPERATOR(pg_catalog.<>) {level}"""


def check_mark(function: str) -> str:
    """Return the statement that refuses a function that asyncnotify has not made: by its name."""
    return _alone(_refuse_unmarked(literal(function)))


def _alone(statements: str) -> str:
    body = f"""
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');{OWNER}
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
{statements}
    PERFORM pg_catalog.set_config('search_path', before, true);
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"


def _refuse_unmarked(function: str) -> str:
    mark = literal(COMMENT)
    return f"""    IF NOT starts_with(COALESCE(obj_description(oid, 'pg_proc'), ''), {mark})
        FROM pg_proc WHERE oid = to_regprocedure({function})
    THEN
        RAISE EXCEPTION 'asyncnotify: function % is there, and asyncnotify has not made it',
            {function}
        USING ERRCODE = 'duplicate_object', HINT = 'Give the Table another trigger=.';
    END IF;"""


def refuse_place(definition: Definition) -> str:
    """Return the statements that refuse a table where its place among others hides changes."""
    return _refuse_halves_of_moves(definition) + _refuse_child(definition)


def _refuse_child(definition: Definition) -> str:
    """
    Return the statement that refuses triggers of statements for a partition or a child.

    The server calls them for the table that a statement names, and nothing tells of what is
    written through a parent.
    """
    if not definition.is_told_by_name:
        return ""
    return """    IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = root) THEN
        RAISE EXCEPTION 'asyncnotify: % is a partition or a child of another table: triggers of'
            ' statements are not called for what is written through its parent', root
        USING ERRCODE = 'feature_not_supported',
            HINT = 'Use level="row", or a Table of the parent.';
    END IF;
"""


def _refuse_halves_of_moves(definition: Definition) -> str:
    """
    Return the statement that refuses operations of which half a move would be told.

    The server calls row-level triggers of DELETE and INSERT for a row that an UPDATE moves to
    another partition, and none of UPDATE.
    """
    told = set(definition.operations)
    if definition.level == "statement" or "insert" in told or told.isdisjoint({"update", "delete"}):
        return ""
    return """    IF EXISTS (SELECT FROM pg_class WHERE oid = root AND relkind = 'p') THEN
        RAISE EXCEPTION 'asyncnotify: with level="row", rows that move to another partition are'
            ' deleted and inserted: operations must have "insert" too, or level be "statement"'
        USING ERRCODE = 'feature_not_supported';
    END IF;
"""
