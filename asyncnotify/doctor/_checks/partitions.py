"""Partitions, and tables that inherit, into which rows can be written that no trigger tells of."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import TELLS, fine, first_of
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "partitions"

_ASK: Final = rf"""
    WITH RECURSIVE telling AS (
        SELECT DISTINCT t.tgrelid AS relid FROM pg_catalog.pg_trigger AS t
        JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
        WHERE t.tgenabled NOT IN ('D', 'R') AND t.tgtype & 28 <> 0 AND {TELLS}
    ), tree AS (
        SELECT i.inhparent AS root, i.inhrelid AS relid FROM pg_catalog.pg_inherits AS i
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS up WHERE up.inhrelid = i.inhparent)
        UNION
        SELECT tree.root, i.inhrelid FROM tree
        JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.relid
    )
    SELECT tree.root::pg_catalog.regclass::pg_catalog.text AS root,
        tree.relid::pg_catalog.regclass::pg_catalog.text AS "table"
    FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid
    WHERE c.relkind = 'r' AND NOT EXISTS (SELECT FROM telling WHERE telling.relid = tree.relid)
        AND EXISTS (SELECT FROM telling WHERE telling.relid = tree.root
            OR telling.relid IN (SELECT other.relid FROM tree AS other
                WHERE other.root = tree.root))
    ORDER BY 1, 2
"""  # noqa: S608 - a constant


async def look(server: Server) -> list[Finding]:
    """Look for tables without a trigger that notifies, beside such that have one."""
    missing: dict[str, list[str]] = defaultdict(list)
    for row in await server.fetch(_ASK):
        missing[row["root"]].append(row["table"])
    if not missing:
        return [fine(NAME, "no partition is left out by triggers that notify")]
    title = (
        "partitions without a trigger that notifies: a statement that names the partition itself"
        " tells nobody"
    )
    told = first_of([f"{root}: {', '.join(first_of(parts))}" for root, parts in missing.items()])
    cure = (
        "create the trigger on each partition, new ones too; install() of asyncnotify.triggers does"
    )
    return [Finding(NAME, Severity.WARNING, title, told, cure)]
