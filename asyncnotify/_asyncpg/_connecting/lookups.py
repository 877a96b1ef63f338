"""Host name lookups: on threads of their own, at most one at a time for each name."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final

from asyncnotify._errors import describe_error
from asyncnotify._logs import Log

log = Log("connection")

_LONGEST_WAIT: Final = 1.0
"""Seconds after which the last good answer is used, if the name service has not answered."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a host, with the port, as sockets take it."""

    family: socket.AddressFamily
    place: tuple[Any, ...]

    @property
    def is_local(self) -> bool:
        """Whether it is one of this machine alone."""
        return ipaddress.ip_address(self.place[0].partition("%")[0]).is_loopback

    def __str__(self) -> str:
        host, port = self.place[:2]
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


class Lookups:
    """
    Finds the addresses of host names, and remembers the last ones that were found.

    A lookup cannot be cancelled: one that hangs occupies its thread until the resolver gives up.
    If each attempt to connect began another, there would be ever more threads; and in the thread
    pool of the event loop a lookup would wait for the work of the application.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[int, Future[list[Address]]]] = {}
        self._last: dict[str, list[Address]] = {}

    async def resolve(self, host: str, port: int, *, timeout: float) -> list[Address]:
        """
        Return the addresses of a host, those of IPv6 and of IPv4 by turns.

        If the name service fails, or does not answer, the addresses of the last lookup.
        Cancelling the call leaves the lookup running, and the next call waits for the same one.

        Raises:
            OSError: The name cannot be resolved (``socket.gaierror``), or no thread can be had.
            TimeoutError: Not within ``timeout`` seconds.
        """
        if is_address(host):
            return _with_port(_look_up(host, numeric=True), port)
        last = self._last.get(host)
        wait = timeout if last is None else min(timeout / 2, _LONGEST_WAIT)
        try:
            last = self._last[host] = await self._answer(host, wait)
        except OSError as error:  # a TimeoutError as well
            if last is None:
                raise
            log.debug("%s; using the last known addresses of %s", describe_error(error), host)
        return _with_port(last, port)

    async def _answer(self, host: str, seconds: float) -> list[Address]:
        lookup = self._begun(host)
        answered = _answered(lookup)
        await asyncio.wait({answered}, timeout=seconds)
        if not lookup.done():
            msg = f"the name {host} was not resolved within {seconds:g} s"
            raise TimeoutError(msg)
        self._running.pop(host, None)
        error = lookup.exception()
        if error is not None:  # an object of its own for each who waits
            raise type(error)(*error.args)
        return lookup.result()

    def _begun(self, host: str) -> Future[list[Address]]:
        """Return the lookup that runs; begin one if there is none, or none of this process."""
        pid, lookup = self._running.get(host, (0, None))
        if lookup is None or lookup.done() or pid != os.getpid():
            lookup = Future()
            thread = Thread(
                target=_fill, args=(lookup, host), name="asyncnotify lookup", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # there are too many, or the interpreter ends
                raise OSError(str(error)) from error
            self._running[host] = (os.getpid(), lookup)
        return lookup


def _fill(lookup: Future[list[Address]], host: str) -> None:
    try:
        lookup.set_result(_look_up(host, numeric=False))
    except BaseException as error:  # noqa: BLE001 - whoever waits raises it
        lookup.set_exception(error)


def _answered(lookup: Future[list[Address]]) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when the lookup is."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(answered.set_result, None)

    lookup.add_done_callback(tell)
    return answered


def _look_up(host: str, *, numeric: bool) -> list[Address]:
    flags = socket.AI_NUMERICHOST if numeric else 0
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    addresses = [Address(family, _place(place)) for family, *_, place in found]
    return _by_turns(list(dict.fromkeys(addresses)))


def _place(place: tuple[Any, ...]) -> tuple[Any, ...]:
    # With its zone it would be looked up once more, on a thread of the loop's; the zone's number
    # is the last part
    return (str(place[0]).partition("%")[0], *place[1:])


def _by_turns(addresses: list[Address]) -> list[Address]:
    """Return them with the families by turns (RFC 8305, 4), beginning with the first one's."""
    first = [one for one in addresses if one.family == addresses[0].family]
    others = [one for one in addresses if one.family != addresses[0].family]
    mixed: list[Address] = []
    for number in range(max(len(first), len(others))):
        mixed += first[number : number + 1] + others[number : number + 1]
    return mixed


def _with_port(addresses: list[Address], port: int) -> list[Address]:
    return [Address(one.family, (one.place[0], port, *one.place[2:])) for one in addresses]


def is_address(host: str) -> bool:
    """Return whether it is an IP address, which needs no lookup."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
