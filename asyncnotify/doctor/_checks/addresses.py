"""The addresses behind the names of the hosts: several of one name, and those that are silent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg._connecting.lookups import Lookups
from asyncnotify._errors import describe_error
from asyncnotify.doctor._checks._common import fine, first_of
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify._asyncpg._connecting.lookups import Address
    from asyncnotify.doctor._server import Server

NAME: Final = "addresses"

_SHARE: Final = 0.4
"""How much of the check's time a lookup may take, and again a connection."""


async def look(server: Server) -> list[Finding]:
    """Look up every host, and connect to every address, without saying anything there."""
    seconds = server.timeout * _SHARE
    findings: list[Finding] = []
    for host in dict.fromkeys((one.address, one.port) for one in server.hosts if not one.is_socket):
        findings += await _of(*host, seconds)
    return findings or [fine(NAME, "each host has one address, or several that answer")]


async def _of(host: str, port: int, seconds: float) -> list[Finding]:
    try:
        addresses = await Lookups().resolve(host, port, timeout=seconds)
    except OSError as error:
        why = (f"{host}: {describe_error(error)}",)
        cure = "check the name, and the resolver of this machine"
        return [Finding(NAME, Severity.ERROR, "the name of a host cannot be resolved", why, cure)]
    answers = await asyncio.gather(*(_answer(address, seconds) for address in addresses))
    lines = first_of([f"{host} is {a}: {b}" for a, b in zip(addresses, answers, strict=True)])
    silent = sum(answer == _SILENT for answer in answers)
    if silent:
        title = f"{silent} of {len(addresses)} addresses do not answer: each attempt waits for them"
        cure = "take the address out of the name service, or let the firewall refuse what it drops"
        return [Finding(NAME, Severity.WARNING, title, lines, cure)]
    if _ANSWERS not in answers:
        return [Finding(NAME, Severity.INFO, "no address of a host accepts connections", lines)]
    if len(addresses) > 1:
        return [Finding(NAME, Severity.INFO, "a name has several addresses", lines, _ONE_SERVER)]
    return []


_ANSWERS: Final = "accepts connections"
_SILENT: Final = "silent"
_ONE_SERVER: Final = (
    "make sure that all of them are the same server: notifications do not reach another one"
)


async def _answer(address: Address, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(*address.place[:2], family=address.family)
    except TimeoutError:
        return _SILENT
    except OSError as error:
        return describe_error(error)
    writer.transport.abort()
    return _ANSWERS
