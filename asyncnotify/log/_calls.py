"""The calls by which entries are appended, in the forms that each kind of connection needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg.statements import array_of, literal
from asyncnotify._asyncpg.transactions import (
    Call,
    call_within,
    call_within_thread,
    explaining,
)
from asyncnotify.log._errors import LACKS_PRIVILEGE, NotInstalledError

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


_NOT_INSTALLED: Final = ("3F000", "42883", "42P01")
"""There is no such schema, function or table."""

_NO_PRIVILEGE: Final = "42501"


async def append_within(connection: object, names: Names, call: Call) -> None:
    """Append in the transaction of the caller's connection; raises as ``call_within()`` does."""
    with explaining(connection, "appended", _reasons(names)):
        await call_within(connection, call)


def append_within_thread(connection: object, names: Names, call: Call) -> None:
    """Do as ``append_within()``, on a connection that blocks, in the calling thread."""
    with explaining(connection, "appended", _reasons(names)):
        call_within_thread(connection, call)


def _reasons(names: Names) -> dict[str, str]:
    """Return what is to be done, by the SQLSTATE of a refusal."""
    reasons: dict[str, str] = dict.fromkeys(_NOT_INSTALLED, str(NotInstalledError(names.log)))
    reasons[_NO_PRIVILEGE] = LACKS_PRIVILEGE.format(names.log)
    return reasons


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
