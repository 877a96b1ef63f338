"""What a function says of TRUNCATE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify.triggers._names import literal
from asyncnotify.triggers._sql.payloads import NUMBER, send, send_reread

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition


def on_truncate(definition: Definition) -> str:
    """
    Return the statements for TRUNCATE.

    A partition or a child that is truncated alone leaves rows in the others: then one has to read
    again. Not so right after a TRUNCATE of the whole, which fires the triggers of every partition,
    those of other Tables between them: whose whole it was is noted, with the number of the last.
    """
    truncate = """'{"op":"truncate","n":' || number || '}'"""
    mark = literal(f"{definition.qualified_function} ")
    return f"""
    wholes := CASE
        WHEN pg_catalog.current_setting('asyncnotify.truncated_last', true)
            = pg_catalog.current_setting('asyncnotify.change', true)
        THEN pg_catalog.current_setting('asyncnotify.truncated', true) ELSE '' END;
    IF TG_NARGS > 0 AND pg_catalog.strpos(wholes, {mark}) > 0 THEN
        RETURN NULL;
    END IF;{NUMBER}
    IF TG_NARGS = 0 THEN
        PERFORM pg_catalog.set_config('asyncnotify.truncated',
            pg_catalog.replace(wholes, {mark}, '') || {mark}, true),
            pg_catalog.set_config('asyncnotify.truncated_last', number::pg_catalog.text, true);
    END IF;
    IF TG_NARGS > 0 OR EXISTS (
        SELECT FROM pg_catalog.pg_inherits AS link
        JOIN pg_catalog.pg_class AS parent ON parent.oid = link.inhparent
        WHERE link.inhparent = TG_RELID AND parent.relkind <> 'p'
    ) THEN
        {send_reread(definition, "NULL")}
    ELSE
        {send(definition, truncate)}
    END IF;
    RETURN NULL;"""
