"""
Cursors of psycopg on a connection of the caller's.

They take ``%s``, give tuples, and code values as psycopg does by itself: whatever dumpers, loaders,
row factory or class of cursors the caller has set on the connection, or in all of the process.
"""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import Any

from asyncnotify._asyncpg.untraced import unwrapped


def cursor_on(connection: Any) -> Any:
    """Return a cursor, to be entered: one that is awaited on a connection that is awaited."""
    connection = unwrapped(connection)
    library = sys.modules["psycopg"]
    is_async = isinstance(connection, library.AsyncConnection)
    # A tracing agent replaces the class by a proxy, from which none can be derived
    kind = _plain(unwrapped(library.AsyncCursor if is_async else library.Cursor))
    return kind(connection, row_factory=library.rows.tuple_row)


@functools.cache
def _plain(kind: type[Any]) -> type[Any]:
    """Return a class of cursors that codes by these adapters."""
    adapters = _own_adapters()
    return type(f"Plain{kind.__name__}", (kind,), {"adapters": property(lambda _: adapters)})


@functools.cache
def _own_adapters() -> Any:
    """Return all adapters that psycopg has by itself."""
    library = sys.modules["psycopg"]
    adapters = library.adapt.AdaptersMap(types=library.postgres.types)
    context = SimpleNamespace(adapters=adapters, connection=None)
    library.postgres.register_default_adapters(context)
    library.types.array.register_all_arrays(context)
    return adapters
