"""The hosts that are given: names, addresses, folders of Unix sockets, each with its port."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_PORT: Final = 5432
_MAX_PORT: Final = 65_535

_DEFAULT_FOLDERS: Final = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108 - where servers have their sockets


@dataclass(frozen=True, slots=True)
class Host:
    """
    A place where a server may be.

    Attributes:
        name: What certificates and the password file call it; for a Unix socket its folder.
        address: Where it is: a name to be looked up, an IP address, or the folder.
        port: Its port.
        number: Of the hosts that the caller has named the first is 0, and so on; the places of a
            local server are all the same one.
    """

    name: str
    address: str
    port: int
    number: int = 0

    @property
    def is_socket(self) -> bool:
        """Whether it is reached by a Unix socket."""
        return self.address.startswith("/")

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.port}"


def check_hosts(options: Mapping[str, str]) -> None:
    """
    Refuse hosts and ports that cannot be, as far as they are given.

    Raises:
        ConfigurationError: Says what is wrong, but not the value: where a DSN lacks its host,
            that is the password.
    """
    if any(options.get(name) for name in ("host", "hostaddr", "port")):
        _read(options)


def read_hosts(options: Mapping[str, str]) -> list[Host]:
    """
    Return the hosts in their order; without any, the places where a local server has its socket.

    Raises:
        ConfigurationError: A host or a port cannot be, or their numbers differ.
    """
    hosts: list[Host] = []
    for number, (name, address, port) in enumerate(_read(options)):
        if address:
            hosts.append(Host(name or address, address, port, number))
        else:
            hosts += _default_hosts(port, number)
    return hosts


def _default_hosts(port: int, number: int) -> list[Host]:
    """Return where a server of this machine may be; that it is not there yet is no reason."""
    folders = [] if os.name == "nt" else _DEFAULT_FOLDERS
    sockets = [folder for folder in folders if _is_there(Path(folder, f".s.PGSQL.{port}"))]
    return [Host(place, place, port, number) for place in [*sockets, "localhost"]]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that is not for us
        return False


def _read(options: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Return name, address and port of each host; what is not given is empty."""
    names = options.get("host", "").split(",")
    addresses = options.get("hostaddr", "").split(",")
    ports = options.get("port", "").split(",")
    for port in ports:
        _number(port)
    count = max(len(names), len(addresses))
    if options.get("hostaddr") and options.get("host"):
        _check_count(len(names), len(addresses), "addresses")
    if len(ports) == 1:
        ports *= count
    _check_count(count, len(ports), "ports")
    names += [""] * (count - len(names))
    addresses += [""] * (count - len(addresses))
    return [_host(*host) for host in zip(names, addresses, ports, strict=True)]


def _check_count(hosts: int, others: int, what: str) -> None:
    if hosts != others:
        msg = f"{hosts} hosts, but {others} {what}"
        raise ConfigurationError(msg)


def _host(name: str, address: str, port: str) -> tuple[str, str, int]:
    name, own_port = _split_port(name)
    port = port or own_port
    _check_name(name)
    if address and not _is_address(address):
        msg = "hostaddr must be an IP address"
        raise ConfigurationError(msg)
    return name, address or name, _number(port)


def _split_port(host: str) -> tuple[str, str]:
    """Return host and port of ``host:port``, as SQLAlchemy and asyncpg take it."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(\d*))?", host)
    if bracketed is not None:
        return bracketed[1], bracketed[2] or ""
    name, colon, port = host.rpartition(":")
    if colon and ":" not in name and not host.startswith("/") and (port.isdigit() or not port):
        return name, port
    return host, ""


def _number(port: str) -> int:
    if not port:
        return _DEFAULT_PORT
    port = port.strip()
    # Not told: in a DSN that lacks its host it is the password
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MAX_PORT):
        msg = "a port must be a number between 1 and 65535"
        raise ConfigurationError(msg)
    return int(port)


_IMPOSSIBLE: Final = re.compile(r"[\s@/?#\[\]<>\"'\\^`{}|]|[\x00-\x20\x7f]")


def _check_name(name: str) -> None:
    if name.startswith("@"):
        msg = "asyncpg knows no abstract Unix sockets: a host must not begin with @"
        raise ConfigurationError(msg)
    if name.startswith("/") or not name or _is_address(name):
        return
    possible = not _IMPOSSIBLE.search(name) and ":" not in name
    try:
        name.encode("idna")
    except UnicodeError:
        possible = False
    if not possible:
        msg = "a host is neither a name nor an address nor the folder of a Unix socket"
        raise ConfigurationError(msg)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def describe_hosts(known: Mapping[str, str], given: Mapping[str, str]) -> str:
    """
    Return the hosts for logs: those that are known, with the ports that were given.

    Args:
        known: With what the environment says.
        given: What the caller said.
    """
    names = known.get("host") or known.get("hostaddr")
    if not names and given.get("service"):
        return f"the service {given['service']}"
    hosts = (names or "localhost").split(",")
    ports = given.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    shown = [f"[{host}]" if ":" in host and not host.startswith("/") else host for host in hosts]
    pairs = zip(shown, ports, strict=False)
    return ",".join(f"{host}:{port}" if port else host for host, port in pairs)
