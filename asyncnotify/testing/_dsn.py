"""A DSN in its pieces, so that one of them can be replaced while the others stay as written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Collection

DEFAULT_PORT: Final = 5432

_ADDRESS: Final = {"host", "hostaddr", "port"}
_DATABASE: Final = {"dbname", "database"}

# As libpq, which differs from urllib: the login ends at the first @, and no # begins a fragment.
# A further @ before the hosts is of a password, as asyncpg has it.
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?]+://)(?P<login>(?:[^@/]*@(?:[^/?]*@)?)?)(?P<hosts>[^/?]*)"
    r"(?P<path>[^?]*)(?P<query>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Pieces:
    """
    A URL of libpq's, asyncpg's or SQLAlchemy's, cut into pieces that are still encoded.

    Nothing is decoded and encoded again: what stands for a space, ``+`` or ``%20``, depends on who
    reads it.

    Attributes:
        scheme: With ``://``.
        login: User and password, with ``@``; or empty.
        hosts: Hosts and ports, with commas; or empty.
        path: With its ``/``; or empty.
        query: With its ``?``; or empty.
    """

    scheme: str
    login: str
    hosts: str
    path: str
    query: str

    def __str__(self) -> str:
        return f"{self.scheme}{self.login}{self.hosts}{self.path}{self.query}"

    def with_address(self, host: str, port: int) -> Pieces:
        """Return it with this host and port instead of all others."""
        name = f"[{host}]" if ":" in host else host
        return replace(self, hosts=f"{name}:{port}", query=self._query_without(_ADDRESS))

    def with_database(self, name: str) -> Pieces:
        """Return it with this database instead of the other."""
        path = "/" + quote(name, safe="")
        return replace(self, path=path, query=self._query_without(_DATABASE))

    def first_address(self) -> tuple[str, str]:
        """Return the first host (or the directory of a Unix socket) and its port; "" for none."""
        given = self._parameters()
        host, port = _host_and_port(_first(self.hosts))
        if "host" in given:
            host, own_port = _host_and_port(_first(given["host"]))
            port = own_port or port
        return _first(given.get("hostaddr", "")) or host, _first(given.get("port", "")) or port

    def _parameters(self) -> dict[str, str]:
        """Return the query's parameters: of several hosts the first, else the last of a name."""
        pairs = [(_name_of(one), unquote(one.partition("=")[2])) for one in self._query()]
        if "+" in self.scheme:  # SQLAlchemy's: each host is a parameter of its own
            pairs.reverse()
        return dict(pairs)

    def _query(self) -> list[str]:
        return self.query.removeprefix("?").split("&")

    def _query_without(self, names: Collection[str]) -> str:
        """Return it as it is written, without the parameters of these names."""
        kept = "&".join(one for one in self._query() if _name_of(one) not in names)
        return kept and f"?{kept}"


def pieces_of(dsn: str) -> Pieces:
    """
    Return the pieces of a DSN.

    Raises:
        ValueError: It is no URL.
    """
    found = _URL.fullmatch(dsn)
    if found is None:
        message = "the DSN is no URL"  # nothing of it is shown: it may hold a password
        raise ValueError(message)
    return Pieces(**found.groupdict())


def _name_of(parameter: str) -> str:
    return unquote(parameter.partition("=")[0])


def _first(several: str) -> str:
    return several.partition(",")[0]


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.startswith("/") or text.count(":") > 1:  # a directory; an IPv6 address in the query
        return text, ""
    host, _, port = text.partition(":")
    return unquote(host), port
