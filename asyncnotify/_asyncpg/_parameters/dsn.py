"""
Reading a DSN: what a user pastes, or an object of SQLAlchemy's or pydantic's, as parameters.

Nothing here raises with a piece of the DSN in its text: a part that was taken for the port may
well be the end of a password.
"""

from __future__ import annotations

import re
from typing import Any, Final, Protocol, TypeAlias

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg._parameters.libpq import Parameters, sort_out
from asyncnotify._asyncpg._parameters.uri import LIBPQ, SQLALCHEMY, Pairs, parse_uri
from asyncnotify._errors import ConfigurationError


class SqlalchemyUrl(Protocol):
    """A ``URL`` of SQLAlchemy's."""

    def render_as_string(self, hide_password: bool = ...) -> str:  # noqa: FBT001 - SQLAlchemy's
        """Return it as a str."""
        ...


class PydanticUrl(Protocol):
    """A ``PostgresDsn`` or another URL of pydantic's."""

    def unicode_string(self) -> str:
        """Return it as a str."""
        ...


Dsn: TypeAlias = str | SqlalchemyUrl | PydanticUrl
"""What ``dsn=`` takes: a URL as a str, or an object of SQLAlchemy's or pydantic's."""

SOURCE: Final = "the DSN"

_SCHEMES: Final = {"postgresql": LIBPQ, "postgres": LIBPQ}
_SCHEMES_OF_SQLALCHEMY: Final = {"postgresql+asyncpg", "postgres+asyncpg"}
_OTHER_DRIVERS: Final = ("postgresql+", "postgres+")

SQLALCHEMY_ONLY: Final = frozenset(
    {"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"}
)
"""Arguments of SQLAlchemy's asyncpg dialect, not of the server."""

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{1,30}")
_WANTED: Final = "it must begin with postgresql:// (or postgres://, or postgresql+asyncpg://)"
_NO_URL: Final = "is no URL (its parts can be given as host=, port=, user=, database=)"

_QUOTES: Final = ('"', "'", "`")

_MASK: Final = "***"


def check_dsn(dsn: object) -> None:
    """Raise TypeError unless it is a str, a URL of SQLAlchemy's, or one of pydantic's."""
    if not (dsn is None or isinstance(dsn, str) or _is_url(dsn)):
        msg = (
            "dsn must be a str, or a URL object of SQLAlchemy or pydantic, not of type"
            f" {type_name(dsn)}{_remedy(dsn)}"
        )
        raise TypeError(msg)


def _remedy(thing: object) -> str:
    """Return what to do with an object that knows how to connect."""
    if type_name(thing) == "sqlalchemy.AsyncEngine":
        return ": use from_sqlalchemy(engine)"
    if hasattr(thing, "cursor") or hasattr(thing, "execute"):
        return ": a connection of its own is needed; give its address, or connect= to make it"
    if isinstance(getattr(thing, "dsn", None), str):  # a server for tests
        return ": give its dsn"
    return ""


def read_dsn(dsn: Any) -> Parameters:
    """
    Return what a DSN says.

    ``postgresql://`` and ``postgres://`` mean what they mean to libpq; ``postgresql+asyncpg://``
    means what it means to SQLAlchemy. A ``URL`` of SQLAlchemy and a ``PostgresDsn`` of pydantic
    are taken as they are.

    Raises:
        ConfigurationError: It cannot be read, or one of its parameters cannot be honoured.
        TypeError: It is of another type.
    """
    check_dsn(dsn)
    if hasattr(dsn, "render_as_string"):
        pairs = _pairs_of_sqlalchemy(dsn)
    else:
        pairs = _pairs_of_text(dsn if isinstance(dsn, str) else str(dsn.unicode_string()))
    if dict(pairs).get("password") == _MASK:
        msg = (
            f"the password in the DSN is {_MASK}: a URL object has masked it when it was made a"
            " str; give the object itself as dsn"
        )
        raise ConfigurationError(msg)
    return sort_out(pairs, source=SOURCE)


def _is_url(thing: object) -> bool:
    """Return whether it is a URL object, without importing the packages that have such."""
    if isinstance(thing, type):
        return False
    if callable(getattr(thing, "render_as_string", None)):
        return hasattr(thing, "drivername") and hasattr(thing, "query")
    return callable(getattr(thing, "unicode_string", None))


def _pairs_of_text(dsn: str) -> Pairs:
    _refuse_wrapping(dsn)
    scheme, separator, rest = dsn.partition("://")
    dialect = SQLALCHEMY if _is_sqlalchemys(scheme, separator) else LIBPQ
    parts, query = parse_uri(rest, dialect)
    return parts + (_without_sqlalchemy(query) if dialect is SQLALCHEMY else query)


def _refuse_wrapping(dsn: str) -> None:
    """Refuse what a file of settings or a shell has left around a DSN; libpq drops spaces."""
    if dsn.strip(" ") != dsn.strip() or dsn[:1] == " ":
        problem = "has white space around it, such as the end of the line that it was read from"
    elif dsn[:1] in _QUOTES:
        problem = "is in quotes, which a shell or a reader of settings would have removed"
    else:
        return
    msg = f"the DSN {problem}; {_WANTED}"
    raise ConfigurationError(msg)


def _is_sqlalchemys(scheme: str, separator: str) -> bool:
    """Return whether a URL is SQLAlchemy's, and not libpq's; refuse all others."""
    if separator and scheme in {*_SCHEMES, *_SCHEMES_OF_SQLALCHEMY}:
        return scheme not in _SCHEMES
    if scheme.startswith(_OTHER_DRIVERS):
        problem = f"is a URL of SQLAlchemy for another driver ({_shown(scheme)})"
    elif scheme.lower() in _SCHEMES:
        problem = "has its scheme in capital letters"
    elif separator:
        problem = f"is no URL of PostgreSQL, but begins with {_shown(scheme)}"
    else:
        problem = _NO_URL if scheme else "is empty (leave dsn out to use PGHOST)"
    msg = f"the DSN {problem}; {_WANTED}"
    raise ConfigurationError(msg)


def _shown(scheme: str) -> str:
    """Return a scheme as a message may show it: what is none may be a part of a password."""
    return f"{scheme}://" if _SCHEME.fullmatch(scheme) else "something else"


def _pairs_of_sqlalchemy(url: Any) -> Pairs:
    """Return the parameters of a URL object, of which none is encoded."""
    sqlalchemys = _is_sqlalchemys(str(url.drivername), "://")
    parts = {
        "user": url.username,
        "password": url.password,
        "host": url.host,
        "port": url.port,
        "dbname": url.database,
    }
    pairs = [(name, str(value)) for name, value in parts.items() if value]
    query: Pairs = []
    for name, value in url.query.items():
        query += [(str(name), one) for one in ([value] if isinstance(value, str) else value)]
    return pairs + (_without_sqlalchemy(query) if sqlalchemys else query)


_RENAMED: Final = {"ssl": "sslmode"}


def _without_sqlalchemy(query: Pairs) -> Pairs:
    """Return them by libpq's names, without what is for SQLAlchemy alone, and hosts as a list."""
    kept: dict[str, str] = {}
    for given, value in query:
        name = _RENAMED.get(given, given)
        if name in {"host", "port"} and name in kept:
            kept[name] += f",{value}"
        elif name not in SQLALCHEMY_ONLY:
            kept[name] = value
    return list(kept.items())
