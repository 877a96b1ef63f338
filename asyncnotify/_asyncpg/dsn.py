"""
Reading a DSN: what a user pastes, made into what the driver takes.

Nothing here raises with a piece of the DSN in its text: a part that was taken for the port may
well be the end of a password.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES = frozenset({"postgresql", "postgres"})

_MAX_PORT = 65_535

# Arguments of SQLAlchemy's asyncpg dialect, not of the server
SQLALCHEMY_ONLY = frozenset(
    {"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"}
)


def normalize_dsn(dsn: str) -> str:
    """
    Return the DSN as asyncpg takes it.

    ``postgresql+asyncpg://`` URLs of SQLAlchemy lose the driver's name and the arguments that
    only SQLAlchemy knows; their ``ssl=`` becomes ``sslmode=``, their repeated ``host=`` one list.

    Raises:
        ConfigurationError: It is not a PostgreSQL URL.
    """
    scheme, _, driver = dsn.partition("://")[0].partition("+")
    if scheme not in _SCHEMES or "://" not in dsn:
        msg = "the DSN must begin with postgresql:// (or postgres://, or postgresql+asyncpg://)"
        raise ConfigurationError(msg)
    if not _is_readable(dsn):
        raise ConfigurationError(UNREADABLE_DSN)
    if not driver:
        return dsn
    parts = urlsplit("postgresql" + dsn[dsn.index("://") :])
    query = _without_sqlalchemy(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit(parts._replace(query=urlencode(query, safe="/:,")))


UNREADABLE_DSN = (
    "the DSN cannot be read; are the special characters of its password percent-encoded?"
)


def _without_sqlalchemy(query: list[tuple[str, str]]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in query:
        if name == "ssl":
            kept["sslmode"] = value
        elif name == "host" and "host" in kept:
            kept["host"] += f",{value}"
        elif name not in SQLALCHEMY_ONLY:
            kept[name] = value
    return kept


def dsn_parameters(dsn: str | None) -> dict[str, str]:
    """Return the parameters of the DSN's query; none if it cannot be read."""
    try:
        return dict(parse_qsl(urlsplit(dsn).query)) if dsn else {}
    except ValueError:
        return {}


def refuse_impossible_ports(dsn: str | None, kwargs: Mapping[str, Any]) -> None:
    """
    Raise ConfigurationError for a port that cannot be: of the event loops, not all refuse it.

    The number is not told: in a DSN that lacks its host it is the password.
    """
    for port in _ports(dsn, kwargs):
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MAX_PORT):
            msg = "a port must be a number between 1 and 65535"
            raise ConfigurationError(msg)


def _ports(dsn: str | None, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the ports that are given in the first place that gives any, as the driver looks."""
    argument = kwargs.get("port")
    several = argument if isinstance(argument, (list, tuple)) else [argument or ""]
    hosts = unquote(_dsn_hosts(dsn)).split(",")
    for ports in (
        [str(port) for port in several],
        [str(port) for _, port in map(_split_port, hosts) if port is not None],
        dsn_parameters(dsn).get("port", "").split(","),
        os.environ.get("PGPORT", "").split(","),
    ):
        if given := [port for port in ports if port]:
            return given
    return []


def several_hosts(dsn: str | None, kwargs: Mapping[str, Any]) -> bool:
    """Return whether the arguments, or PGHOST in their absence, name more than one host."""
    host = kwargs.get("host") or _dsn_hosts(dsn) or os.environ.get("PGHOST", "")
    return "," in host if isinstance(host, str) else len(host) > 1


def single_host(dsn: str | None, kwargs: Mapping[str, Any]) -> str:
    """Return the host where there is one: a name, an address, a socket's folder; else nothing."""
    if several_hosts(dsn, kwargs):
        return ""
    host = kwargs.get("host") or _dsn_hosts(dsn) or os.environ.get("PGHOST", "")
    if not isinstance(host, str):
        host = next(iter(host), "")
    return _split_port(unquote(host))[0]


def _dsn_hosts(dsn: str | None) -> str:
    if not dsn:
        return ""
    try:
        hosts = urlsplit(dsn).netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return hosts or dsn_parameters(dsn).get("host", "")


def describe_target(dsn: str | None, kwargs: Mapping[str, Any]) -> str:
    """Return ``user@host:port/database`` for logs, without a password, as far as it is given."""
    if dsn is not None and not _is_plain(dsn):
        return "an unreadable DSN"
    parts = urlsplit(dsn or "")
    user = kwargs.get("user") or (unquote(parts.username) if parts.username else None)
    user = user or os.environ.get("PGUSER")
    host = kwargs.get("host") or _dsn_hosts(dsn) or os.environ.get("PGHOST") or "localhost"
    if not isinstance(host, str):
        host = ",".join(map(str, host))
    port = kwargs.get("port")
    database = kwargs.get("database") or unquote(parts.path.lstrip("/"))
    database = database or os.environ.get("PGDATABASE")
    return "".join(
        [
            f"{user}@" if user else "",
            host,
            f":{port}" if port else "",
            f"/{database}" if database else "",
        ]
    )


def _is_plain(dsn: str) -> bool:
    """Return whether no part of a password can have been taken for something else."""
    return dsn.partition("://")[0].partition("+")[0] in _SCHEMES and (
        _is_readable(dsn) and "@" not in urlsplit(dsn).query
    )


def _is_readable(dsn: str) -> bool:
    """Return whether hosts and ports are such; the rest of a password would not be."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return (
        not parts.fragment
        and "@" not in parts.path
        and all(_may_hold_at(part) for part in parts.query.split("&") if "@" in part)
        and all(_HOST.fullmatch(host) for host in hosts)
    )


def _may_hold_at(parameter: str) -> bool:
    """Return whether this is a parameter, and not the end of a password and a host."""
    return parameter.partition("=")[0] in {"user", "password", "application_name"}


_HOST = re.compile(r"(\[[^\]@]*\]|[^:@\[\]]*)(:\d*)?")


def split_hosts(dsn: str | None, kwargs: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """
    Return the (host, port) pairs where there are several hosts, else an empty list.

    A port of None leaves the choice to the driver: PGPORT, or 5432.
    """
    if not several_hosts(dsn, kwargs):
        return []
    spec = kwargs.get("host") or _dsn_hosts(dsn) or os.environ.get("PGHOST", "")
    if isinstance(spec, str):
        pairs = [_split_port(unquote(host)) for host in spec.split(",")]
    else:
        pairs = [(str(host), None) for host in spec]
    ports = kwargs.get("port") or dsn_parameters(dsn).get("port") or os.environ.get("PGPORT")
    if isinstance(ports, str):
        ports = [int(port) for port in ports.split(",")]
    if isinstance(ports, (list, tuple)) and len(ports) == len(pairs):
        return [(host, port or other) for (host, port), other in zip(pairs, ports, strict=True)]
    if isinstance(ports, (list, tuple)) and len(ports) != 1:
        msg = f"{len(pairs)} hosts, but {len(ports)} ports"
        raise ValueError(msg)
    only = ports[0] if isinstance(ports, (list, tuple)) else ports
    return [(host, port or only) for host, port in pairs]


def _split_port(host: str) -> tuple[str, int | None]:
    if host.startswith("["):
        address, _, rest = host[1:].partition("]")
        return address, int(rest[1:]) if rest[1:].isdigit() else None
    name, colon, port = host.rpartition(":")
    if colon and (port.isdigit() or not port) and ":" not in name and not host.startswith("/"):
        return name, int(port) if port else None
    return host, None
