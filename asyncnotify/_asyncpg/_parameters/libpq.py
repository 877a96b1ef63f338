"""
The parameters of libpq: which are honoured, and what to do about those that are not.

Every one that libpq knows either means here what it means there, or is refused by its name. What
libpq does not know is a setting of the server, as asyncpg has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_TLS_VERSIONS: Final = ("", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3")

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow"),
    "target_session_attrs": (
        "any",
        "primary",
        "standby",
        "prefer-standby",
        "read-write",
        "read-only",
    ),
    "load_balance_hosts": ("disable", "random"),
    "gsslib": ("gssapi", "sspi"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "client_encoding": ("utf8", "utf-8", "unicode"),
}
"""Parameters that are honoured, of which only these values are; compared in lower case."""

_HONOURED: Final = frozenset(_CHOICES) | {
    "application_name",
    "dbname",
    "fallback_application_name",
    "host",
    "hostaddr",
    "krbsrvname",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "servicefile",
    "sslcert",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "user",
}

_WITHOUT_EFFECT: Final[dict[str, frozenset[str]]] = {
    "channel_binding": frozenset({"prefer", "disable"}),
    "gssencmode": frozenset({"prefer", "disable"}),
    "gssdelegation": frozenset({"0"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
    "min_protocol_version": frozenset({"3.0"}),
    "replication": frozenset({"false", "off", "no", "0"}),
    "sslcompression": frozenset({"0", "1"}),
    "sslsni": frozenset({"1"}),
}
"""Values that ask for nothing that would not be so anyway."""

_VERIFY: Final = "remove it; sslmode=verify-full makes sure of the server"
_KEEPALIVE: Final = "remove it; the argument keepalive=Keepalive(...) sets it at both ends"
_NEITHER: Final = "remove it; asyncpg has no such thing"
_ARGUMENT: Final = "remove it, and give it as an argument"
_POOL: Final = "remove it; a listener has one connection, and no pool"
_POOLER: Final = (
    "remove it, and connect to PostgreSQL itself or to a pool in session mode: through one in"
    " transaction mode no notification arrives"
)
_SCHEMA: Final = "write search_path= instead; notifications have no schema"
_SSLMODE: Final = "write sslmode= instead"

_REFUSED: Final[dict[str, str]] = {
    # libpq's
    "channel_binding": f"asyncpg has no channel binding: {_VERIFY}",
    "connect_timeout": "remove it; the argument connect_timeout= is for each host",
    "gssdelegation": _NEITHER,
    "gssencmode": "asyncpg has no GSSAPI encryption: remove it, and use sslmode=verify-full",
    "keepalives": _KEEPALIVE,
    "keepalives_count": _KEEPALIVE,
    "keepalives_idle": _KEEPALIVE,
    "keepalives_interval": _KEEPALIVE,
    "tcp_user_timeout": _KEEPALIVE,
    "max_protocol_version": "asyncpg speaks version 3.0 of the protocol: remove it",
    "min_protocol_version": "asyncpg speaks version 3.0 of the protocol: remove it",
    "oauth_client_id": _NEITHER,
    "oauth_client_secret": _NEITHER,
    "oauth_issuer": _NEITHER,
    "oauth_scope": _NEITHER,
    "replication": "remove it; replication connections cannot listen",
    "require_auth": f"asyncpg answers to whatever the server asks for: {_VERIFY}",
    "requirepeer": "remove it; asyncpg does not look who owns the server's socket",
    "scram_client_key": _NEITHER,
    "scram_server_key": _NEITHER,
    "sslcompression": _NEITHER,
    "sslkeylogfile": "remove it; the environment variable SSLKEYLOGFILE does the same",
    "sslsni": "remove it; the host's name is always sent",
    # those of other drivers, of their pools, and of hosting providers
    "command_timeout": "remove it; the argument operation_timeout= is for each command",
    "currentSchema": _SCHEMA,
    "schema": _SCHEMA,
    "ssl": _SSLMODE,
    "sslaccept": "write sslmode=verify-full instead of strict, sslmode=require for the rest",
    "sslfactory": _SSLMODE,
    "sslidentity": "write sslcert= and sslkey= instead",
    "uselibpqcompat": "remove it; sslmode= has libpq's meaning here",
    "pgbouncer": _POOLER,
    "pool_mode": _POOLER,
    "supavisor": _POOLER,
    "connection_limit": _POOL,
    "max_overflow": _POOL,
    "max_size": _POOL,
    "min_size": _POOL,
    "pool": _POOL,
    "pool_max_conns": _POOL,
    "pool_min_conns": _POOL,
    "pool_recycle": _POOL,
    "pool_size": _POOL,
    "pool_timeout": _POOL,
    "direct_tls": "write sslnegotiation=direct instead",
    "max_cached_statement_lifetime": _ARGUMENT,
    "max_cacheable_statement_size": _ARGUMENT,
    "socket_timeout": "remove it; heartbeat= finds a connection that is dead",
    "statement_cache_size": _ARGUMENT,
    "statement_cache_mode": _ARGUMENT + " to asyncpg: statement_cache_size=0",
    "default_query_exec_mode": _ARGUMENT + " to asyncpg: statement_cache_size=0",
    "prepareThreshold": _ARGUMENT + " to asyncpg: statement_cache_size=0",
    "prepared_statements": _ARGUMENT + " to asyncpg: statement_cache_size=0",
    "binary_parameters": _NEITHER,
    "timeout": "remove it; the argument connect_timeout= is for each host",
    "async_fallback": _NEITHER,
    "prepared_statement_cache_size": _NEITHER,
    "prepared_statement_name_func": _NEITHER,
}

_ALIASES: Final = {("ssl", "true"): ("sslmode", "require")}  # JDBC's, and libpq's as well

_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?")


@dataclass(slots=True)
class Parameters:
    """
    What a DSN, a service file or the environment says.

    Attributes:
        options: By libpq's names, those that are honoured.
        settings: Settings of the server.
    """

    options: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def sort_out(pairs: Iterable[tuple[str, str]], *, source: str) -> Parameters:
    """
    Return the parameters that count; of several with one name it is the last one.

    Args:
        pairs: Name and value of each.
        source: Where they stand, for the error: ``the DSN``.

    Raises:
        ConfigurationError: One of them cannot be honoured, and what to do instead.
    """
    found = Parameters()
    for pair in pairs:
        name, value = _ALIASES.get(pair, pair)
        name = "dbname" if name == "database" else name
        if name in _HONOURED:
            found.options[name] = _checked(name, value, source)
        elif not _has_no_effect(name, value):
            found.settings[_setting(name, source)] = value
    return found


def _checked(name: str, value: str, source: str) -> str:
    choices = _CHOICES.get(name)
    if choices is None or not value:
        return value
    if value.lower() not in choices:
        # The value is not told: it may be the end of a password
        known = ", ".join(filter(None, choices))
        msg = f"{name} in {source} must be one of {known}"
        if name == "client_encoding":
            msg = f"client_encoding in {source} must be UTF8: channels would get other names"
        raise ConfigurationError(msg)
    return value.lower()


def _has_no_effect(name: str, value: str) -> bool:
    known = name in _REFUSED or name in _WITHOUT_EFFECT
    return known and (not value or value in _WITHOUT_EFFECT.get(name, ()))


def _setting(name: str, source: str) -> str:
    if (advice := _REFUSED.get(name)) is not None:
        msg = f"{name} in {source} cannot be honoured: {advice}"
        raise ConfigurationError(msg)
    if not _SETTING.fullmatch(name):
        msg = f"a parameter in {source} has a name that no setting of the server can have"
        raise ConfigurationError(msg)
    return name
