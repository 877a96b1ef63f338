"""Functions that notify: what they call, and what they send."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify.doctor._checks._common import fine, first_of
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.doctor._server import Row, Server

NAME: Final = "functions"

_ASK: Final = r"""
    SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text AS name, p.prosrc AS source,
        p.prosecdef AS is_definer,
        coalesce(pg_catalog.array_to_string(p.proconfig, ','), '') ~ '(^|,)search_path=' AS is_fixed
    FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND l.lanname <> 'c'
        AND p.prosrc ~* '\m(pg_notify|notify)\M'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                AND d.deptype = 'e')
    ORDER BY 1
"""
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CALL: Final = re.compile(r"(?<![\w.\"])pg_notify\s*\(", re.IGNORECASE)
_WHOLE_ROW: Final = re.compile(
    r"\b(?:row_to_json|to_jsonb?|hstore)\s*\(\s*(?:new|old)\s*[,)]|\b(?:new|old)\s*::\s*text\b",
    re.IGNORECASE,
)
_MEASURES: Final = re.compile(r"\b(?:octet_length|pg_column_size)\b", re.IGNORECASE)
_LITERAL: Final = re.compile(
    r"\bpg_notify\s*\(\s*'((?:[^']|'')*)'\s*(?:::\s*[\w.]+\s*)?,", re.IGNORECASE
)
_STATEMENT: Final = re.compile(
    r"(?:^|;|\bthen\b|\bbegin\b|\belse\b|\bloop\b)\s*notify\s+(\"(?:[^\"]|\"\")*\"|\w+)",
    re.IGNORECASE,
)
_LONGEST: Final = 63


class _Function(NamedTuple):
    name: str
    source: str
    is_definer: bool
    is_fixed: bool


class _Fault(NamedTuple):
    is_in: Callable[[_Function], bool]
    severity: Severity
    title: str
    cure: str


def _channels(function: _Function) -> list[str]:
    """Return the names of channels that stand in the source."""
    called = [name.replace("''", "'") for name in _LITERAL.findall(function.source)]
    given = _STATEMENT.findall(function.source)
    return called + [name.strip('"').replace('""', '"') for name in given]


def _has_long_channel(function: _Function) -> bool:
    return any(len(name.encode()) > _LONGEST for name in _channels(function))


def _sends_whole_rows(function: _Function) -> bool:
    return bool(_WHOLE_ROW.search(function.source)) and not _MEASURES.search(function.source)


def _lends_its_rights(function: _Function) -> bool:
    return function.is_definer and not function.is_fixed


def _calls_by_search_path(function: _Function) -> bool:
    return bool(_CALL.search(function.source)) and not (function.is_fixed or function.is_definer)


def _reads_by_search_path(function: _Function) -> bool:
    return not (_CALL.search(function.source) or function.is_fixed or function.is_definer)


_FAULTS: Final = (
    _Fault(
        _has_long_channel,
        Severity.ERROR,
        f"a channel's name is over {_LONGEST} bytes: pg_notify refuses it, NOTIFY cuts it off",
        "give the channel a shorter name",
    ),
    _Fault(
        _sends_whole_rows,
        Severity.WARNING,
        "a whole row is the payload: a row of 8,000 bytes makes the INSERT or UPDATE itself fail",
        "send the key alone, and read the row by it; asyncnotify.triggers makes such functions",
    ),
    _Fault(
        _lends_its_rights,
        Severity.WARNING,
        "SECURITY DEFINER without a fixed search_path: callers can have it run their own functions",
        "ALTER FUNCTION … SET search_path = pg_catalog, pg_temp",
    ),
    _Fault(
        _calls_by_search_path,
        Severity.WARNING,
        "pg_notify is called without its schema, and search_path is not fixed: who runs it decides"
        " which function that is",
        "write pg_catalog.pg_notify, or ALTER FUNCTION … SET search_path = pg_catalog, pg_temp",
    ),
    _Fault(
        _reads_by_search_path,
        Severity.INFO,
        "the search_path is not fixed: other names in it mean what the caller's search_path says",
        "ALTER FUNCTION … SET search_path = pg_catalog, pg_temp",
    ),
)


async def look(server: Server) -> list[Finding]:
    """Read the sources of the functions of this database that notify."""
    functions = [_function(row) for row in await server.fetch(_ASK)]
    findings: list[Finding] = []
    for fault in _FAULTS:
        names = [function.name for function in functions if fault.is_in(function)]
        if names:
            told = first_of(names)
            findings.append(Finding(NAME, fault.severity, fault.title, told, fault.cure))
    return findings or [fine(NAME, f"{len(functions)} functions notify, with nothing to fault")]


def _function(row: Row) -> _Function:
    source = _COMMENT.sub(" ", row["source"])
    return _Function(row["name"], source, row["is_definer"], row["is_fixed"])
