"""The calls by which entries are appended, in the forms that each kind of connection needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg.statements import array_of, literal
from asyncnotify._asyncpg.transactions import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.log._entries import Entry
    from asyncnotify.log._names import Names

_ONE: Final = (
    "SELECT {function}(CAST({{}} AS pg_catalog.text), CAST({{}} AS pg_catalog.text),"
    " CAST({{}} AS pg_catalog.text), CAST(CAST({{}} AS pg_catalog.text) AS pg_catalog.jsonb),"
    " {wake}, CAST(CAST({{}} AS pg_catalog.text) AS pg_catalog.uuid))"
)
_MANY: Final = (
    "SELECT {function}(CAST({{}} AS pg_catalog.text[]), CAST({{}} AS pg_catalog.text[]),"
    " CAST({{}} AS pg_catalog.text[]),"
    " CAST(CAST({{}} AS pg_catalog.text[]) AS pg_catalog.jsonb[]),"
    " {wake}, CAST(CAST({{}} AS pg_catalog.text[]) AS pg_catalog.uuid[]))"
)


def append_call(names: Names, entries: Sequence[Entry], *, wake: bool) -> Call:
    """Return the call that appends these entries, at least one, in their order."""
    if len(entries) == 1:
        return _call_for_one(names, entries[0], wake=wake)
    template = _MANY.format(function=f"{names.prefix}_append_many", wake=_sql(wake=wake))
    channels, payloads, keys, headers, ids = zip(*entries, strict=True)
    columns = tuple(map(list, (channels, payloads, keys, headers, map(str, ids))))
    return Call(template, columns, lambda: template.format(*map(array_of, columns)))


def _call_for_one(names: Names, entry: Entry, *, wake: bool) -> Call:
    template = _ONE.format(function=f"{names.prefix}_append", wake=_sql(wake=wake))
    values = (*entry[:-1], str(entry.id))
    return Call(template, values, lambda: template.format(*map(_constant, values)))


def _constant(text: str | None) -> str:
    return "NULL" if text is None else literal(text)


def _sql(*, wake: bool) -> str:
    return "true" if wake else "false"
