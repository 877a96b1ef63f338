"""Triggers that tell somebody: disabled ones, and those that send for each row of a big table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import TELLS, fine, first_of
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Row, Server

NAME: Final = "triggers"

_BIG: Final = 1_000_000
_BIG_PAGES: Final = 131_072
"""1 GB of the usual pages: tables that were never analysed have no count of rows."""

_ASK: Final = rf"""
    SELECT c.oid::pg_catalog.regclass::pg_catalog.text AS "table",
        t.tgname::pg_catalog.text AS name, t.tgenabled::pg_catalog.text AS enabled,
        t.tgtype & 1 = 1 AND p.prosrc ~* '\m(pg_notify|notify)\M' AS sends_each_row,
        c.reltuples::pg_catalog.float8 AS rows, c.relpages AS pages
    FROM pg_catalog.pg_trigger AS t
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND {TELLS}
    ORDER BY 1, 2
"""  # noqa: S608 - a constant


async def look(server: Server) -> list[Finding]:
    """Look at the triggers of this database whose function tells somebody."""
    rows = await server.fetch(_ASK)
    findings = [
        *_found(
            [row for row in rows if row["enabled"] == "D"],
            "disabled triggers: their tables change, and nobody is told",
            "ALTER TABLE … ENABLE TRIGGER …, or drop them",
        ),
        *_found(
            [row for row in rows if row["enabled"] == "R"],
            "triggers that fire on replicas only: what is written here tells nobody",
            "ALTER TABLE … ENABLE ALWAYS TRIGGER …",
        ),
        *_found(
            [row for row in rows if row["sends_each_row"] and _is_big(row)],
            "row-level triggers on big tables: a bulk UPDATE sends a notification for each row, in"
            " one transaction, and the queue may not take them all",
            "statement-level triggers with transition tables; asyncnotify.triggers makes such ones",
        ),
    ]
    return findings or [
        fine(NAME, f"{len(rows)} triggers notify or append to a log, with nothing to fault")
    ]


def _is_big(row: Row) -> bool:
    return bool(row["rows"] >= _BIG or row["pages"] >= _BIG_PAGES)


def _found(rows: list[Row], title: str, cure: str) -> list[Finding]:
    told = first_of([f"{row['name']} on {row['table']}" for row in rows])
    return [Finding(NAME, Severity.WARNING, title, told, cure)] if rows else []
