"""The triggers of a table, its partitions and its children: one statement makes all of them fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify.triggers._names import dollar_quotes, joined, literal
from asyncnotify.triggers._sql.locking import LOCKS, RESTORE_LOCK_TIMEOUT, lock
from asyncnotify.triggers._sql.readability import check_readable
from asyncnotify.triggers._sql.refusals import OWNER, refuse_function, refuse_place
from asyncnotify.triggers._sql.renaming import COMMENT, trigger_names
from asyncnotify.triggers._sql.rows import NEW_ROWS, OLD_ROWS

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

TREE: Final = """
        WITH RECURSIVE tree (relid) AS (
            SELECT {root}
            UNION
            SELECT link.inhrelid FROM pg_catalog.pg_inherits AS link JOIN tree
                ON link.inhparent OPERATOR(pg_catalog.=) tree.relid
        )"""
"""A table with all that is written to it: partitions and children, of any depth."""

_PARTS: Final = f"""{TREE.format(root="root::pg_catalog.oid")}
        SELECT class.oid::pg_catalog.regclass AS name, class.oid = root AS is_root,
            class.relispartition AS is_partition, class.relkind = 'f' AS is_foreign,
            class.oid IN (SELECT relid FROM tree) AS belongs
        FROM pg_catalog.pg_class AS class
        WHERE class.relkind IN ('r', 'p', 'f') AND (class.oid IN (SELECT relid FROM tree)
            OR class.oid IN (SELECT tgrelid FROM pg_catalog.pg_trigger WHERE tgfoid = function))
        ORDER BY class.oid <> root, class.oid"""
"""All tables that have triggers of a function, or should have: the first is its own."""

_BELOW: Final = """
        WITH RECURSIVE below (relid) AS (
            SELECT part.name::pg_catalog.oid
            UNION
            SELECT link.inhrelid FROM pg_inherits AS link JOIN below
                ON link.inhparent = below.relid
            JOIN pg_class AS class ON class.oid = link.inhrelid AND class.relispartition
            WHERE {is_row_level}
        )
        SELECT relid::pg_catalog.regclass FROM below ORDER BY relid <> part.name, relid"""
"""A table with its partitions: those get a trigger of rows by the statement for the table."""

_ROW: Final = 1
_BITS: Final = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}
"""Of pg_trigger.tgtype."""


class Trigger(NamedTuple):
    """
    One trigger of a table.

    Attributes:
        name: Its name.
        type: What pg_trigger.tgtype says of it.
        events: What stands behind AFTER.
        level: What stands behind the name of the table.
    """

    name: str
    type: int
    events: str
    level: str

    @property
    def is_row_level(self) -> bool:
        """Whether the partitions of a table get it by themselves."""
        return bool(self.type & _ROW)


def triggers_of(definition: Definition) -> list[Trigger]:
    """Return the triggers that a table has, three or four of them, or two."""
    if definition.level == "statement":
        return [_statement_level(definition, operation) for operation in definition.operations]
    triggers: list[Trigger] = []
    of_rows = [one for one in definition.operations if one != "truncate"]
    if of_rows:
        events = " OR ".join(one.upper() for one in of_rows)
        bits = _ROW + sum(_BITS[one] for one in of_rows)
        name = joined(definition.trigger, "row")
        triggers.append(Trigger(name, bits, events, "FOR EACH ROW"))
    if "truncate" in definition.operations:
        triggers.append(_statement_level(definition, "truncate"))
    return triggers


def _statement_level(definition: Definition, operation: str) -> Trigger:
    tables = {
        "insert": f"REFERENCING NEW TABLE AS {NEW_ROWS} ",
        "update": f"REFERENCING OLD TABLE AS {OLD_ROWS} NEW TABLE AS {NEW_ROWS} ",
        "delete": f"REFERENCING OLD TABLE AS {OLD_ROWS} ",
    }
    level = f"{tables.get(operation, '')}FOR EACH STATEMENT"
    name = joined(definition.trigger, operation)
    return Trigger(name, _BITS[operation], operation.upper(), level)


def make_triggers(definition: Definition) -> str:
    """
    Return the statement that makes the triggers of a table fit, and touches none that does.

    It also tries the condition and the comparison of keys on no rows, so that what cannot work is
    refused here. Triggers that the table has from before it was renamed go, and those of tables
    that are no longer part of it. Locks: ShareRowExclusive where one is made, AccessExclusive where
    another has to go.
    """
    body = f"""
#variable_conflict use_column
DECLARE
    root CONSTANT pg_catalog.regclass := {literal(definition.qualified)};
    function CONSTANT pg_catalog.regprocedure := {literal(definition.qualified_function)};
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    part pg_catalog.record;
    former pg_catalog.oid;
    fire_always pg_catalog.oid[] := '{{}}'::pg_catalog.oid[];
    wanted pg_catalog.record;
    present pg_catalog.record;{OWNER}{LOCKS}
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = root AND relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION 'asyncnotify: % is no table that can have such triggers', root
        USING ERRCODE = 'wrong_object_type';
    END IF;
{refuse_function(definition)}{refuse_place(definition)}{check_readable(definition)}
    -- Who makes a partition gives it row-level triggers, and owns the table, not the function
    FOR part IN SELECT class.relowner::pg_catalog.regrole AS owner
        FROM pg_class AS class JOIN pg_proc ON pg_proc.oid = function
        WHERE class.oid = root AND NOT pg_catalog.has_function_privilege(
            class.relowner, function::pg_catalog.oid, 'EXECUTE'
        )
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || function || ' TO ' || part.owner;
    END LOOP;
    -- All that do not fit go first: a partition cannot get a trigger of a name that it has
    FOR part IN {_PARTS}
    LOOP
        FOR present IN
            SELECT tgname, tgenabled, tgfoid, tgnargs, tgparentid,
                tgtype::pg_catalog.int4 & 1 > 0 AS is_inherited,
                tgparentid <> 0 OR tgfoid = function
                    AND (tgname::pg_catalog.text, tgtype) IN ({_wanted(definition)})
                    AND (tgnargs > 0) = NOT part.is_root AND part.belongs AS fits
            FROM pg_catalog.pg_trigger
            WHERE tgrelid = part.name AND (tgfoid = function OR tgparentid = 0
                AND tgname::text = ANY ({trigger_names(definition)})
                AND starts_with(obj_description(tgfoid, 'pg_proc'), {literal(COMMENT)}))
        LOOP
            IF present.tgfoid <> function AND {_is_of_another("present", "part")} THEN
                RAISE EXCEPTION 'asyncnotify: % has triggers of another Table, those of %',
                    part.name, present.tgfoid::pg_catalog.regprocedure
                USING ERRCODE = 'duplicate_object', HINT = 'Give one of both another trigger=.';
            END IF;
            IF NOT present.fits THEN{_lock_first("ACCESS EXCLUSIVE", "present")}
                EXECUTE 'DROP TRIGGER ' || pg_catalog.quote_ident(present.tgname)
                    || ' ON ' || part.name;
                IF present.tgenabled = 'A' THEN
                    fire_always := fire_always || part.name::pg_catalog.oid;
                END IF;
                former := present.tgfoid;
                IF former <> function
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgfoid = former)
                THEN
                    EXECUTE 'DROP FUNCTION ' || former::pg_catalog.regprocedure;
                END IF;
            ELSIF present.tgenabled IN ('D', 'R') THEN
                {_lock_first("SHARE ROW EXCLUSIVE", "present").lstrip()}
                -- That of a partition as that of its parent, from which it has it
                EXECUTE 'ALTER TABLE ' || part.name || CASE WHEN EXISTS (
                        SELECT FROM pg_catalog.pg_trigger
                        WHERE oid = present.tgparentid AND tgenabled = 'A'
                    ) THEN ' ENABLE ALWAYS TRIGGER ' ELSE ' ENABLE TRIGGER ' END
                    || pg_catalog.quote_ident(present.tgname);
            END IF;
        END LOOP;
    END LOOP;
    FOR part IN {_PARTS}
    LOOP
        FOR wanted IN SELECT * FROM (VALUES
{_to_be_made(definition)}
        ) AS it (name, events, level, is_inherited) LOOP
            CONTINUE WHEN NOT part.belongs OR part.is_foreign AND NOT wanted.is_inherited;
            IF NOT EXISTS (
                SELECT FROM pg_catalog.pg_trigger
                WHERE tgrelid = part.name AND tgname = wanted.name AND tgfoid = function
            ) THEN{_lock_first("SHARE ROW EXCLUSIVE", "wanted")}
                EXECUTE 'CREATE TRIGGER ' || pg_catalog.quote_ident(wanted.name) || ' AFTER '
                    || wanted.events || ' ON ' || part.name || ' ' || wanted.level
                    || {literal(f" EXECUTE FUNCTION {definition.qualified_function[:-1]}")}
                    || CASE WHEN part.is_root THEN ')' ELSE '''part'')' END;
            ELSIF NOT (wanted.is_inherited AND part.is_partition) THEN
                CONTINUE;
            END IF;
            IF part.name::pg_catalog.oid = ANY (fire_always) THEN
                -- As those did that it takes the place of
                EXECUTE 'ALTER TABLE ' || part.name || ' ENABLE ALWAYS TRIGGER '
                    || pg_catalog.quote_ident(wanted.name);
            END IF;
        END LOOP;
    END LOOP;{RESTORE_LOCK_TIMEOUT}
    PERFORM pg_catalog.set_config('search_path', before, true);
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"


def _lock_first(mode: str, variable: str) -> str:
    """Return the statements that lock a table, and its partitions for a trigger of rows."""
    locks = lock(_BELOW.format(is_row_level=f"{variable}.is_inherited"), mode)
    return locks.replace("\n", "\n            ")


def _is_of_another(trigger: str, part: str) -> str:
    """
    Return the condition that a trigger, found by its name, is one of another Table's.

    It is none if its table had another name then, or is no longer part of the table that it tells
    of.
    """
    return f"""(CASE WHEN {part}.is_root AND {trigger}.tgnargs = 0 THEN false
                WHEN {trigger}.tgnargs = 0 THEN true
                ELSE EXISTS (
                    WITH RECURSIVE above (relid) AS (
                        SELECT {part}.name::pg_catalog.oid
                        UNION
                        SELECT link.inhparent FROM pg_catalog.pg_inherits AS link
                        JOIN above ON link.inhrelid = above.relid
                    )
                    SELECT FROM pg_catalog.pg_trigger AS its JOIN above ON its.tgrelid = above.relid
                    WHERE its.tgfoid = {trigger}.tgfoid AND its.tgnargs = 0 AND its.tgparentid = 0
                ) END)"""


def _wanted(definition: Definition) -> str:
    return ", ".join(f"({literal(one.name)}, {one.type})" for one in triggers_of(definition))


def _to_be_made(definition: Definition) -> str:
    return ",\n".join(
        f"            ({literal(one.name)}, {literal(one.events)}, {literal(one.level)},"
        f" {str(one.is_row_level).lower()})"
        for one in triggers_of(definition)
    )
