"""
Reading a connection URI by the rules of libpq's own parser.

``urllib`` is not asked: it differs from libpq, and from one version of Python to another. Nothing
here raises with a piece of the URI in its text: a part that was taken for the port may well be
the end of a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from asyncnotify._errors import ConfigurationError

UNREADABLE_DSN: Final = (
    "the DSN cannot be read; are the special characters of its password percent-encoded?"
)

_SPACE: Final = "the DSN has a space in it, which has to be percent-encoded: %20"

Pairs: TypeAlias = list[tuple[str, str]]
"""Parameters by libpq's names, in their order: of those with the same name the last one counts."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    What differs between the URLs of libpq and those of SQLAlchemy.

    Attributes:
        plus_is_space: Whether ``+`` stands for a space in the query.
        spaces: Whether a space may stand within a value.
    """

    plus_is_space: bool = False
    spaces: bool = False


LIBPQ: Final = Dialect()
SQLALCHEMY: Final = Dialect(plus_is_space=True, spaces=True)


def parse_uri(rest: str, dialect: Dialect = LIBPQ) -> tuple[Pairs, Pairs]:
    """
    Return the parameters before the query, and those in it; ``rest`` is what follows ``://``.

    Of several hosts, ``host`` and ``port`` are lists with commas, as libpq has them. What is
    empty before the query is left out. What is in the query replaces what is before it.

    Raises:
        ConfigurationError: It cannot be read.
    """
    login, hosts, database, query = _split(rest)
    user, _, password = login.partition(":")
    names, ports = _split_hosts(hosts)
    if "@" in hosts or "@" in database:
        raise ConfigurationError(UNREADABLE_DSN)
    given = [
        ("user", user),
        ("password", password),
        ("host", names),
        ("port", ports),
        ("dbname", database),
    ]
    pairs = [(name, _decoded(text, spaces=dialect.spaces)) for name, text in given if text]
    return pairs, _parameters(query, dialect)


def _split(rest: str) -> tuple[str, str, str, str]:
    """Return login, hosts, database and query, none of them decoded."""
    end = re.search(r"[@/]|$", rest)
    login = ""
    if end is not None and end[0] == "@":
        login, rest = rest[: end.start()], rest[end.end() :]
    hosts = re.match(r"[^/?]*", rest)
    here = hosts.end() if hosts else 0
    path, _, query = rest[here:].partition("?")
    return login, rest[:here], path[1:], query


_BRACKETS: Final = re.compile(r"\[([^\]]+)\](?::(.*))?", re.DOTALL)


def _split_hosts(hosts: str) -> tuple[str, str]:
    """Return the list of names and that of ports, with commas."""
    names: list[str] = []
    ports: list[str] = []
    for host in hosts.split(","):
        if host.startswith("["):
            bracketed = _BRACKETS.fullmatch(host)
            if bracketed is None:
                raise ConfigurationError(UNREADABLE_DSN)
            name, port = bracketed[1], bracketed[2] or ""
        else:
            name, _, port = host.partition(":")
        names.append(name)
        ports.append(port)
    return ",".join(names), ",".join(ports)


_MAY_HOLD_AT: Final = {"user", "password", "application_name", "fallback_application_name"}
"""Parameters in which ``@`` is no sign that a password was cut in two."""


def _parameters(query: str, dialect: Dialect) -> Pairs:
    pairs: Pairs = []
    # libpq passes over the last separator, if nothing follows
    for part in query.removesuffix("&").split("&") if query else []:
        name, equals, value = part.partition("=")
        if "@" in part and name not in _MAY_HOLD_AT:
            raise ConfigurationError(UNREADABLE_DSN)
        if not equals or ("=" in value and not dialect.plus_is_space):
            msg = (
                "each parameter of the DSN must be of the form name=value, with & between two of"
                " them; within a value = is written %3D and & is written %26"
            )
            raise ConfigurationError(msg)
        if dialect.plus_is_space:
            name, value = name.replace("+", " "), value.replace("+", " ")
        spaces = dialect.spaces
        pairs.append((_decoded(name, spaces=spaces), _decoded(value, spaces=spaces)))
    return pairs


_ENCODED: Final = re.compile(rb"%(.{0,2})", re.DOTALL)


def _decoded(text: str, *, spaces: bool) -> str:
    """Return it without its percent-encoding, by libpq's rules: no NUL, no space within."""
    if not spaces:
        text = text.strip(" ")
    if " " in text and not spaces:
        raise ConfigurationError(_SPACE)
    unreadable = "\0" in text
    decoded = ""
    if not unreadable:
        try:
            decoded = _ENCODED.sub(_byte, text.encode()).decode()
        except ValueError:  # of Unicode as well; its text holds a part of the value
            unreadable = True
    if unreadable:
        raise ConfigurationError(UNREADABLE_DSN)
    return decoded


_HEX: Final = re.compile(rb"[0-9A-Fa-f]{2}")


def _byte(encoded: re.Match[bytes]) -> bytes:
    if not _HEX.fullmatch(encoded[1]) or encoded[1] == b"00":
        raise ValueError
    return bytes([int(encoded[1], 16)])
