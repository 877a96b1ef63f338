"""What ``settings.DATABASES`` says of a database, as arguments of a Listener."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from asyncnotify import Keepalive, Listener
from asyncnotify.ext._validation import validated
from asyncnotify.ext.django._settings import check_postgresql, database_alias, listener_options

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_DJANGO: Final = frozenset(
    {
        "autocommit",
        "client_encoding",  # Django sets UTF8, and so does the listener
        "connection_factory",
        "context",
        "cursor_factory",
        "isolation_level",
        "pool",
        "prepare_threshold",
        "row_factory",
        "server_side_binding",
    }
)
"""Options of Django's own connections and of their drivers, which mean nothing for LISTEN."""

_OF_LIBPQ: Final = frozenset(
    {
        "application_name",
        "channel_binding",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "hostaddr",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "passfile",
        "replication",
        "require_auth",
        "requirepeer",
        "scram_client_key",
        "scram_server_key",
        "service",
        "servicefile",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
    }
)
"""Options that the DSN takes as libpq does, or refuses by their names."""

_KEEPALIVE: Final = {
    "keepalives_idle": "idle",
    "keepalives_interval": "interval",
    "keepalives_count": "count",
    "tcp_user_timeout": "user_timeout",
}

_PLACES: Final = {
    "HOST": "host",
    "PORT": "port",
    "USER": "user",
    "PASSWORD": "password",
}


def connect_arguments(alias: str | None = None) -> dict[str, Any]:
    """
    Return the arguments by which asyncnotify connects to a database of ``settings.DATABASES``.

    ``Listener``, ``Notifier``, their blocking classes, and ``Log`` after its name take them:
    ``BlockingNotifier(**connect_arguments())``. The settings are read at each call, so that a test
    gets the test database. Nothing connects.

    NAME, USER, PASSWORD, HOST and PORT mean what they mean to Django, and each of OPTIONS what it
    means to libpq: ``sslmode``, ``service``, ``passfile``, several hosts. ``connect_timeout`` and
    ``keepalives…`` become arguments of the same meaning, ``assume_role`` the role of the session.
    What concerns Django's own connections only, such as ``pool`` and ``isolation_level``, is left
    out.

    Args:
        alias: The alias of the database; None: as ``ASYNCNOTIFY["DATABASE"]`` says, or ``default``.

    Raises:
        ImproperlyConfigured: The database is not PostgreSQL, or an option cannot be honoured; the
            message names it.
        ConnectionDoesNotExist: There is no such alias.
    """
    name = database_alias(alias)
    connection = connections[name]
    check_postgresql(name, connection)
    try:
        arguments = _arguments_of(connection.settings_dict)
        validated(Listener, **arguments)  # refuses what cannot be honoured
    except (TypeError, ValueError) as error:
        reason = str(error).replace("the DSN", "OPTIONS")
        msg = f"DATABASES[{name!r}] cannot be listened on: {reason}"
        raise ImproperlyConfigured(msg) from None
    return arguments


def new_listener(alias: str | None = None) -> Listener:
    """
    Return a Listener of a database, with the options of the setting ASYNCNOTIFY.

    Raises:
        ImproperlyConfigured: The settings cannot be honoured.
        ConnectionDoesNotExist: There is no such alias.
    """
    return Listener(**listener_arguments(alias))


def listener_arguments(alias: str | None = None) -> dict[str, Any]:
    """
    Return the arguments of that Listener.

    Raises:
        ImproperlyConfigured: The settings cannot be honoured.
        ConnectionDoesNotExist: There is no such alias.
    """
    arguments = {**connect_arguments(alias), **listener_options()}
    try:
        validated(Listener, **arguments)
    except (TypeError, ValueError) as error:
        msg = f"ASYNCNOTIFY['LISTENER'] cannot be used: {error}"
        raise ImproperlyConfigured(msg) from None
    return arguments


def _arguments_of(given: Mapping[str, Any]) -> dict[str, Any]:
    every = dict(given.get("OPTIONS") or {})
    # The driver drops None; but a dbname of None hides NAME, and is refused below
    options = {n: value for n, value in every.items() if value is not None or n == "dbname"}
    if given.get("NAME") is None:  # as for Django, for which a service then counts no more
        options.pop("service", None)
    options = {name: value for name, value in options.items() if name not in _OF_DJANGO}
    arguments = {**_places_of(given, options), **_limits_of(options)}
    if "database" not in arguments and not options.get("service"):
        msg = "neither NAME nor OPTIONS['service'] is given"
        raise ValueError(msg)
    if role := options.pop("assume_role", None):
        arguments["server_settings"] = {"role": str(role)}
    return {**arguments, "dsn": _dsn_of(options)}


def _places_of(given: Mapping[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return where to connect, and as whom; of OPTIONS only ``dbname`` counts more than these."""
    name = "postgres" if given.get("NAME") is None else given["NAME"]
    found = {ours: options.pop(ours, None) for ours in _PLACES.values()}
    found |= {ours: given[theirs] for theirs, ours in _PLACES.items() if given.get(theirs)}
    found["database"] = options.pop("dbname", name)
    return {ours: value for ours, value in found.items() if value}


def _limits_of(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options out that are arguments of their own, in other units."""
    found: dict[str, Any] = {}
    if (seconds := options.pop("connect_timeout", None)) is not None:
        found["connect_timeout"] = _seconds_of(seconds)
    is_on = str(options.pop("keepalives", "1")) != "0"
    values = {ours: _whole_number_of(options, name) for name, ours in _KEEPALIVE.items()}
    values["user_timeout"] = -(-values["user_timeout"] // 1_000)  # of milliseconds
    # 0 is libpq's word for the default of the system, and here that of Keepalive
    chosen = {name: value for name, value in values.items() if value}
    if not is_on:
        found["keepalive"] = None
    elif chosen:
        found["keepalive"] = _keepalive_of(chosen)
    return found


def _seconds_of(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        msg = (
            f"connect_timeout must be a positive number of seconds, not {value!r}:"
            " no attempt lasts for ever"
        )
        raise ValueError(msg)
    return seconds


def _whole_number_of(options: dict[str, Any], name: str) -> int:
    """Take an option out, 0 if it is not given."""
    value = options.pop(name, None) or 0
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        msg = f"{name} must be a whole number, not {value!r}"
        raise ValueError(msg) from None


def _keepalive_of(chosen: Mapping[str, int]) -> Keepalive:
    theirs = {ours: name for name, ours in _KEEPALIVE.items()}
    for name, value in chosen.items():
        try:
            Keepalive(**{name: value})
        except ValueError as error:
            msg = f"{theirs[name]} cannot be honoured: {error}"
            raise ValueError(msg) from None
    return Keepalive(**chosen)


def _dsn_of(options: Mapping[str, Any]) -> str:
    unknown = sorted(str(name) for name in options if name not in _OF_LIBPQ)
    if unknown:
        msg = f"{', '.join(unknown)} in OPTIONS is no parameter of libpq"
        raise ValueError(msg)
    texts = {name: str(value) for name, value in options.items()}
    return f"postgresql://?{urlencode(texts, quote_via=quote)}"  # libpq knows no "+" for a space
