"""What the roles that append and consume need, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify.log._names import SCHEMA
from asyncnotify.log._schema.functions import (
    SHARED_APPEND,
    appenders_functions,
    consumers_functions,
)
from asyncnotify.log._schema.tables import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._names import Names


def grants_to_append(names: Names, role: str) -> Iterator[str]:
    """Yield the statements that let a role append, by functions alone: it reads and sets no row."""
    grantee = quoted(role)
    yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {grantee}"
    for function in (SHARED_APPEND, *appenders_functions(names)):
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {grantee}"


def grants_to_consume(names: Names, role: str) -> Iterator[str]:
    """Yield the statements that let a role read and consume: it appends and changes no event."""
    grantee = quoted(role)
    yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {grantee}"
    tables = names.events, names.ticks, names.epochs, names.consumers, names.dead_letters
    for table in (REGISTRY, *tables):
        yield f"GRANT SELECT ON {table} TO {grantee}"
    for function in consumers_functions(names):
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {grantee}"


def quoted(role: str) -> str:
    """Return a name of the caller's as an identifier in SQL."""
    return '"' + role.replace('"', '""') + '"'
