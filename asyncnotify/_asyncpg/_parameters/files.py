"""libpq's own files: where they are, the service file, the password file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncnotify._errors import ConfigurationError
from asyncnotify._logs import Log

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from asyncnotify._asyncpg._parameters.uri import Pairs
    from asyncnotify._logs import WarningLimit

log = Log("connection")

_SYSTEM_FOLDERS: Final = ("/etc/postgresql-common", "/etc/sysconfig/pgsql")
"""Where the service file of the whole system is with Debian's packages, and with PGDG's."""


def home_file(name: str) -> Path | None:
    """Return the path of one of the user's files, such as ``root.crt``; None without a home."""
    if os.name == "nt":
        folder = os.environ.get("APPDATA")
        return Path(folder, "postgresql", name) if folder else None
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        return None
    dotted = {"pgpass.conf": ".pgpass", "pg_service.conf": ".pg_service.conf"}.get(name)
    return home / dotted if dotted else home / ".postgresql" / name


# -- the service file -----------------------------------------------------------------------------


def read_service(name: str, file: str | None, environ: Mapping[str, str]) -> Pairs:
    """
    Return the parameters of a service, the first of each name last, so that it counts.

    Args:
        name: The service.
        file: Where it is defined; None: in the user's file, or in the system's.
        environ: Says where the system's file is.

    Raises:
        ConfigurationError: It is not defined, or its definition cannot be read.
    """
    looked_in: list[str] = []
    for path in _service_files(file, environ):
        looked_in.append(str(path))
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeError) as error:
            msg = f"the service file {path} cannot be read: {type(error).__name__}"
            raise ConfigurationError(msg) from error
        pairs = _section(text, name, path)
        if pairs is not None:
            return pairs[::-1]
    msg = f"the service {name!r} is not defined in {', '.join(looked_in) or 'any file'}"
    raise ConfigurationError(msg)


def _service_files(file: str | None, environ: Mapping[str, str]) -> Iterator[Path]:
    own = Path(file) if file else home_file("pg_service.conf")
    if own is not None:
        yield own
    folder = environ.get("PGSYSCONFDIR")
    for system in (folder,) if folder else _SYSTEM_FOLDERS:
        yield Path(system, "pg_service.conf")


def _section(text: str, name: str, path: Path) -> Pairs | None:
    """Return the parameters of a section; None if there is none of this name."""
    pairs: Pairs | None = None
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if pairs is not None:
                break
            pairs = [] if line == f"[{name}]" else None
        elif pairs is not None:
            pairs.append(_assignment(line, f"line {number} of the service file {path}"))
    return pairs


def _assignment(line: str, where: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in line.partition("="))
    if not equals or name in {"service", "servicefile"}:
        msg = f"{where} must be of the form name=value, and name no other service"
        raise ConfigurationError(msg)
    return name, value


# -- the password file ----------------------------------------------------------------------------


def password_file(given: str | None, warnings: WarningLimit) -> Path | None:
    """
    Return the path of the password file; None if there is none, or it must not be used.

    Args:
        given: Its path; None: the user's own.
        warnings: The limit of the warning that it must not be used.
    """
    path = Path(given) if given else home_file("pgpass.conf")
    return path if path is not None and _may_be_used(path, warnings) else None


def find_password(
    file: Path | None, hosts: Collection[str], port: int, database: str, user: str
) -> str | None:
    """
    Return the password for one host; None where the file has none, or cannot be read.

    Args:
        file: Its path.
        hosts: What the host is called; ``localhost`` for a Unix socket as well.
        port: Its port.
        database: What is connected to.
        user: The role to connect as.
    """
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return None
    wanted = (hosts, {str(port)}, {database}, {user})
    for line in lines:
        fields = _fields(line)
        if fields is not None and all(map(_matches, fields, wanted)):
            return _without_escapes(fields[-1])
    return None


def _may_be_used(path: Path, warnings: WarningLimit) -> bool:
    """Return whether it is a file of the user's alone, as libpq demands it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    if not stat.S_ISREG(mode):
        return False
    if os.name != "nt" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        text = "the password file %s is not used: others have access to it; chmod 0600 helps"
        log.warning(warnings, ("password file", path), text, str(path))
        return False
    return True


_FIELD: Final = r"((?:[^\\:]|\\.)*)"
_LINE: Final = re.compile(":".join([_FIELD] * 4) + ":(.*)")


def _fields(line: str) -> tuple[str, ...] | None:
    found = None if line.startswith("#") else _LINE.fullmatch(line)
    return found.groups() if found is not None else None


def _matches(field: str, wanted: Collection[str]) -> bool:
    return field == "*" or _without_escapes(field) in wanted


def _without_escapes(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)
