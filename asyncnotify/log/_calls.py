"""The calls by which entries are appended, in the forms that each kind of connection needs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg.statements import array_of, literal
from asyncnotify._asyncpg.transactions import (
    Call,
    call_within,
    call_within_thread,
    explaining,
    sqlstate_of,
)
from asyncnotify.log._errors import NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

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


async def append_within(connection: object, names: Names, call: Call) -> None:
    """Append in the transaction of the caller's connection; raises as ``call_within()`` does."""
    with _explaining(connection, names):
        await call_within(connection, call)


def append_within_thread(connection: object, names: Names, call: Call) -> None:
    """Do as ``append_within()``, on a connection that blocks, in the calling thread."""
    with _explaining(connection, names):
        call_within_thread(connection, call)


@contextmanager
def _explaining(connection: object, names: Names) -> Generator[None]:
    """Add to what a driver raises why nothing was appended, where its words do not tell."""
    try:
        with explaining(connection, "appended"):
            yield
    except Exception as error:
        if sqlstate_of(error) in _NOT_INSTALLED:
            error.add_note(f"nothing was appended: {NotInstalledError(names.log)}")
        raise


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
