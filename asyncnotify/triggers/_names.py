"""Names of tables, columns and functions: read, and quoted for SQL text."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from asyncnotify.triggers._errors import DefinitionError

IDENTIFIER_LIMIT: Final = 63
"""Bytes: NAMEDATALEN - 1. The server cuts longer identifiers with a notice only."""

DEFAULT_SCHEMA: Final = "public"
_PARTS: Final = 2
_HASH_LENGTH: Final = 8
_PART: Final = re.compile(r'"((?:[^"]|"")+)"(?:\.|\Z)|([^".][^.]*)(?:\.|\Z)', re.DOTALL)
"""One part of a name, with the dot after it: in quotes as in SQL, or as it is."""


def table_name(name: object) -> tuple[str, str]:
    """
    Return schema and name of a table.

    ``shop.orders``, ``orders`` of the schema ``public``, ``shop."odd.name"``. Nothing is folded to
    lower case: a name is as the catalog has it.

    Raises:
        DefinitionError: No table can have this name.
        TypeError: It is no str.
    """
    if not isinstance(name, str):
        msg = f"name must be a str, as 'shop.orders', not of type {type(name).__name__}"
        raise TypeError(msg)
    parts = _parts_of(str.__str__(name))
    if not 1 <= len(parts) <= _PARTS:
        reason = f"must be a table, or a schema and a table, as 'shop.orders', not {name!r:.200}"
        raise DefinitionError("name", reason)
    schema, table = parts if len(parts) == _PARTS else (DEFAULT_SCHEMA, parts[0])
    return identifier("name", schema), identifier("name", table)


def _parts_of(name: str) -> list[str]:
    """Return the parts; none if the name cannot be read to its end."""
    parts: list[str] = []
    at = 0
    while at < len(name):
        found = _PART.match(name, at)
        if found is None:
            return []
        quoted, plain = found.groups()
        parts.append(plain if quoted is None else quoted.replace('""', '"'))
        at = found.end()
    return [] if name.endswith(".") else parts


def identifier(argument: str, name: object) -> str:
    """
    Return a name if the server takes it unchanged as an identifier.

    Raises:
        DefinitionError: The name is empty, too long, or holds NUL or a lone surrogate.
        TypeError: It is no str.
    """
    if not isinstance(name, str):
        msg = f"{argument} must name columns by str, not by {type(name).__name__}"
        raise TypeError(msg)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DefinitionError(argument, "has a name with a lone surrogate in it") from None
    if not 0 < size <= IDENTIFIER_LIMIT or "\0" in name:
        reason = f"has a name of {size} bytes: 1 to {IDENTIFIER_LIMIT} without NUL are allowed"
        raise DefinitionError(argument, reason)
    return str.__str__(name)


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as a literal in SQL, whatever ``standard_conforming_strings`` is."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"


def joined(prefix: str, name: str) -> str:
    """Return ``prefix_name`` as one identifier; a name that is too long ends with a hash."""
    whole = f"{prefix}_{name}"
    if len(whole.encode()) <= IDENTIFIER_LIMIT:
        return whole
    digest = hash_of(whole)
    cut = whole.encode()[: IDENTIFIER_LIMIT - _HASH_LENGTH - 1].decode(errors="ignore")
    return f"{cut}_{digest}"


def hash_of(text: str) -> str:
    """Return what tells a text from others in a name."""
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def dollar_quotes(body: str) -> str:
    """Return a dollar quote that does not occur in a text."""
    tag, number = "$asyncnotify$", 0
    while tag in body:
        number += 1
        tag = f"$asyncnotify{number}$"
    return tag
