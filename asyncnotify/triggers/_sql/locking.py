"""Waiting for the locks of several tables within the lock_timeout of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import dollar_quotes, literal
from asyncnotify.triggers._sql.renaming import COMMENT

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

LOCKS: Final = """
    lock_timeout_before CONSTANT pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    most CONSTANT pg_catalog.float8 := (
        SELECT setting::pg_catalog.float8 FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) 'lock_timeout'
    );
    waited pg_catalog.float8 := 0;
    since pg_catalog.timestamptz;
    to_lock pg_catalog.regclass;"""
"""The variables: milliseconds, 0 for no limit."""

RESTORE_LOCK_TIMEOUT: Final = """
    PERFORM pg_catalog.set_config('lock_timeout', lock_timeout_before, true);"""


def lock(tables: str, mode: str) -> str:
    """
    Return the statements that lock tables, given by a query, one after the other.

    Those who write through a parent wait for all of them: so each wait gets what those before have
    left of the time. What takes no lock, as the work between, is not counted. What the role may
    not lock, or the server locks in no such way, is left to the statement that needs it.
    """
    return f"""
    FOR to_lock IN {tables}
    LOOP
        IF most > 0 THEN
            IF waited >= most THEN
                RAISE EXCEPTION 'asyncnotify: no time is left for the lock of %', to_lock
                USING ERRCODE = 'lock_not_available';
            END IF;
            PERFORM set_config('lock_timeout', ceil(most - waited)::pg_catalog.text, true);
        END IF;
        since := clock_timestamp();
        BEGIN
            EXECUTE 'LOCK TABLE ONLY ' || to_lock || ' IN {mode} MODE';
        EXCEPTION WHEN insufficient_privilege OR wrong_object_type THEN
            NULL;
        END;
        waited := waited + 1000 * date_part('epoch', clock_timestamp() - since);
    END LOOP;"""


def lock_for_removal(definition: Definition) -> str:
    """
    Return the statement that locks the tables whose triggers go with their function.

    For what is left to be locked, lock_timeout is what is left of it.
    """
    of_function = f"""SELECT relid::pg_catalog.regclass FROM (
            SELECT DISTINCT tgrelid FROM pg_trigger
            WHERE tgfoid = to_regprocedure({literal(definition.qualified_function)})
                AND starts_with(obj_description(tgfoid, 'pg_proc'), {literal(COMMENT)})
        ) AS it (relid)
        ORDER BY relid <> to_regclass({literal(definition.qualified)}), relid"""
    body = f"""
DECLARE
    before CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');{LOCKS}
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
{lock(of_function, "ACCESS EXCLUSIVE")}
    PERFORM pg_catalog.set_config('search_path', before, true);
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"
