"""
What to connect to, and how: arguments, the DSN, the service file and the environment in one.

In this order: what is said in one place counts, and not what the next one says.
"""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg._parameters.dsn import read_dsn
from asyncnotify._asyncpg._parameters.files import read_service
from asyncnotify._asyncpg._parameters.hosts import Host, check_hosts, describe_hosts, read_hosts
from asyncnotify._asyncpg._parameters.libpq import SSL_MODES, Parameters, sort_out
from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNENCODABLE: Final = "an argument, such as the password, cannot be encoded as UTF-8"

_ENVIRONMENT: Final = {
    "PGAPPNAME": "application_name",
    "PGCHANNELBINDING": "channel_binding",
    "PGDATABASE": "dbname",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSLIB": "gsslib",
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGKRBSRVNAME": "krbsrvname",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGMAXPROTOCOLVERSION": "max_protocol_version",
    "PGMINPROTOCOLVERSION": "min_protocol_version",
    "PGOPTIONS": "options",
    "PGPASSFILE": "passfile",
    "PGPASSWORD": "password",
    "PGPORT": "port",
    "PGREQUIREAUTH": "require_auth",
    "PGREQUIREPEER": "requirepeer",
    "PGSERVICE": "service",
    "PGSERVICEFILE": "servicefile",
    "PGSSLCERT": "sslcert",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLCRL": "sslcrl",
    "PGSSLCRLDIR": "sslcrldir",
    "PGSSLKEY": "sslkey",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLSNI": "sslsni",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGUSER": "user",
}

_OF_THE_DRIVER: Final = {
    "command_timeout",
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "statement_cache_size",
}
"""Arguments that are passed on to it as they are."""

_RENAMED: Final = {"database": "dbname"}

_NEEDS_TLS: Final = {"disable", "allow", "prefer"}


@dataclass(slots=True)
class Settings:
    """
    How to make connections, completely.

    Attributes:
        hosts: In the order in which they are tried.
        options: All that is honoured, by libpq's names.
        server_settings: What the server is told at the start.
        password: A callable is asked for each connection.
        ssl: As it was given as an argument; None: as ``options`` say.
        driver: Further arguments for the driver.
    """

    hosts: list[Host]
    options: dict[str, str]
    server_settings: dict[str, str]
    password: Any = None
    ssl: Any = None
    driver: dict[str, Any] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """The role to connect as."""
        return self.options["user"]

    @property
    def database(self) -> str:
        """What to connect to."""
        return self.options["dbname"]

    @property
    def ssl_mode(self) -> str:
        """Which of libpq's SSL modes holds, unless ``ssl`` is a context."""
        if self.ssl is not None:
            return mode_of(self.ssl)
        default = "verify-full" if self.options.get("sslrootcert") == "system" else "prefer"
        return self.options.get("sslmode") or default

    @property
    def wanted(self) -> str:
        """Which kind of server will do. Of several only the primary: a standby cannot LISTEN."""
        default = "primary" if any(host.number for host in self.hosts) else "any"
        return self.options.get("target_session_attrs") or default

    @property
    def any_will_do(self) -> bool:
        """Whether nothing says which kind of server is wanted, so far."""
        return self.wanted == "any" and not self.options.get("target_session_attrs")


class Given:
    """
    What the caller has said, as far as no file and no variable of the environment says more.

    Args:
        dsn: As a user gives it; or None.
        arguments: Those of ``asyncpg.connect``, which count more.
        driver: Further ones, which only the driver knows.

    Raises:
        ConfigurationError: It cannot be honoured.
        TypeError: An argument is of a type that it cannot have.
    """

    def __init__(
        self,
        dsn: Any,
        arguments: Mapping[str, Any],
        driver: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        found = read_dsn(dsn) if dsn is not None else Parameters()
        named = _options_of(arguments)
        if "host" in named:  # the ports of the DSN are those of its own hosts
            found.options = {n: v for n, v in found.options.items() if n not in _PLACE}
        self._options = {**found.options, **named}
        self._server_settings = {**found.settings, **_settings_of(arguments)}
        self._password = arguments.get("password")
        self._ssl = None if isinstance(arguments.get("ssl"), str) else arguments.get("ssl")
        passed_on = {n: v for n, v in arguments.items() if n in _OF_THE_DRIVER}
        self._driver = {**passed_on, **driver}
        _check_encoding(self._server_settings.get("client_encoding"))
        _check_text({**self._options, **self._server_settings})
        check_hosts(self._options)
        _check_tls(self._options, self._ssl)

    def described(self) -> str:
        """Return ``user@host:port/database`` for logs, without a password, as far as is known."""
        around = {"user": "PGUSER", "host": "PGHOST", "dbname": "PGDATABASE"}
        known = {name: os.environ.get(variable, "") for name, variable in around.items()}
        known |= self._options
        user, database = known.get("user"), known.get("dbname")
        elsewhere = {"PGHOST", "PGHOSTADDR", "PGSERVICE"} & os.environ.keys()
        return "".join(
            [
                f"{user}@" if user else "",
                describe_hosts(known, self._options),
                f"/{database}" if database else "",
                "" if self._options or elsewhere else " (no DSN or host given)",
            ]
        )

    def complete(self, environ: Mapping[str, str]) -> Settings:
        """
        Return all that it takes. Reads the service file, if one is named.

        Raises:
            ConfigurationError: A file or a variable says what cannot be honoured.
        """
        around = _from_environment(environ)
        service = self._options.get("service") or around.options.get("service")
        named = self._of_service(service, around, environ) if service else Parameters()
        options = {**around.options, **named.options, **self._options}
        options["user"] = options.get("user") or _user_of_system()
        options["dbname"] = options.get("dbname") or options["user"]
        settings = {**named.settings, **self._server_settings}
        _add_own_settings(settings, options)
        _check_tls(options, self._ssl)
        _check_text({**options, **settings})
        return Settings(
            hosts=read_hosts(options),
            options=options,
            server_settings=settings,
            password=options.get("password") if self._password is None else self._password,
            ssl=self._ssl,
            driver=dict(self._driver),
        )

    def _of_service(self, name: str, around: Parameters, environ: Mapping[str, str]) -> Parameters:
        file = self._options.get("servicefile") or around.options.get("servicefile")
        return sort_out(read_service(name, file, environ), source=f"the service {name!r}")


_PLACE: Final = {"host", "hostaddr", "port"}


def _options_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that have a name of libpq's, as its options."""
    pairs: list[tuple[str, str]] = []
    for given, value in arguments.items():
        name = _RENAMED.get(given, given)
        if value is None or given in _OF_THE_DRIVER or given == "server_settings":
            continue
        if name == "direct_tls":
            pairs.append(("sslnegotiation", "direct" if value else "postgres"))
        elif name == "ssl":
            pairs += [("sslmode", mode_of(value))] if isinstance(value, str | int) else []
        elif not (name == "password" and callable(value)):
            pairs.append((name, _text(given, value)))
    return sort_out(pairs, source="the arguments").options


def mode_of(value: object) -> str:
    """Return the name of an SSL mode; True means all that TLS can do."""
    if isinstance(value, bool):
        return "verify-full" if value else "disable"
    text = value if isinstance(value, str) else getattr(value, "name", "")
    mode = str(text).replace("_", "-")
    if mode not in SSL_MODES:
        msg = f"ssl must be an SSLContext, a bool, or one of {', '.join(SSL_MODES)}"
        raise ConfigurationError(msg)
    return mode


def _text(name: str, value: Any) -> str:
    """Return the value of an argument as a str; lists of hosts and ports with commas."""
    several = isinstance(value, (list, tuple)) and name in _PLACE
    kinds: tuple[type, ...] = (str, int) if name == "port" else (str, Path)
    for one in value if several else [value]:
        if not isinstance(one, kinds) or isinstance(one, bool):
            meant = "number" if name == "port" else "str"
            msg = f"{name} must be a {meant}, not of type {type_name(one)}"
            raise TypeError(msg)
    return ",".join(map(str, value)) if several else str(value)


def _settings_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    settings = arguments.get("server_settings") or {}
    pairs = settings.items() if isinstance(settings, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, str) for name, value in pairs):
        what = type_name(settings)
        msg = (
            f"server_settings must be a dict of str to str, as {{'timezone': 'UTC'}}, not a {what}"
        )
        if isinstance(settings, dict):
            msg = "server_settings must be a dict of str to str: one of its values is no str"
        raise TypeError(msg)
    return dict(settings)


def _from_environment(environ: Mapping[str, str]) -> Parameters:
    found = Parameters()
    for variable, name in _ENVIRONMENT.items():
        if (value := environ.get(variable)) is not None:
            found.options.update(sort_out([(name, value)], source=f"{variable}").options)
    if environ.get("PGREQUIRESSL", "").startswith("1"):
        found.options.setdefault("sslmode", "require")
    return found


def _user_of_system() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        msg = "no user is given, and this process has none that has a name"
        raise ConfigurationError(msg) from error


def _add_own_settings(settings: dict[str, str], options: Mapping[str, str]) -> None:
    name = options.get("application_name") or options.get("fallback_application_name")
    settings.setdefault("application_name", name or "asyncnotify")
    if options.get("options"):
        settings.setdefault("options", options["options"])


_UTF8: Final = {"utf8", "unicode"}


def _check_encoding(name: str | None) -> None:
    # asyncpg sends the text of a statement as UTF-8 in any case: LISTEN would hear another name
    if name is not None and name.lower().strip("'").replace("-", "") not in _UTF8:
        msg = f"client_encoding must be UTF8, not {name}: channels would get other names"
        raise ConfigurationError(msg)


def check_password(password: object) -> None:
    """Refuse what a password callable must not return; the value is not told."""
    if not (password is None or isinstance(password, str)):
        msg = f"the password callable returned a {type(password).__name__}, not a str"
        raise ConfigurationError(msg)
    _check_text({"password": password or ""})


def _check_text(values: Mapping[str, str]) -> None:
    """Refuse what cannot be sent to a server; the value is not told."""
    for name, value in values.items():
        if "\0" in value:
            msg = f"{name} must not hold a NUL"
            raise ConfigurationError(msg)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigurationError(UNENCODABLE)


def _check_tls(options: Mapping[str, str], ssl: Any) -> None:
    mode = options.get("sslmode") or "prefer"
    needs_more = ssl is None and mode in _NEEDS_TLS
    if options.get("sslnegotiation") == "direct" and needs_more:
        msg = "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"
        raise ConfigurationError(msg)
    if options.get("sslrootcert") == "system" and options.get("sslmode", "verify-full") not in {
        "",
        "verify-full",
    }:
        msg = "sslrootcert=system needs sslmode=verify-full"
        raise ConfigurationError(msg)
