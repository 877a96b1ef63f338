"""
Faults in the client's own process: a blocked event loop, a name service that is down or hangs.

For tests only. What goes wrong on the network is the matter of `asyncnotify.testing.proxy`, and
what goes wrong in the server that of `asyncnotify.testing.server`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from unittest import mock

from asyncnotify._arguments import check_number, check_present

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Lookups", "block_loop", "dns_fails", "dns_hangs"]


def block_loop(seconds: float) -> None:
    """
    Block the running event loop: nothing else of it runs for this long.

    Call it from a coroutine or a callback of the loop. It does what a handler does that calls
    something slow and synchronous.

    Raises:
        RuntimeError: No loop is running in this thread, so that nothing would be blocked.
        ValueError: ``seconds`` is no number, or negative.
    """
    check_number("seconds", seconds, minimum=0)
    asyncio.get_running_loop()
    time.sleep(seconds)


@dataclass(slots=True)
class Lookups:
    """
    The lookups that a fault of the name service has hit. Safe to read from any thread.

    Attributes:
        started: How many there were.
        running: How many run now.
        peak: How many ran at once, at most.
    """

    started: int = 0
    running: int = 0
    peak: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def counted(self) -> Generator[None]:
        """Count what the context spans as one lookup (the fault's part to call)."""
        with self._lock:
            self.started += 1
            self.running += 1
            self.peak = max(self.peak, self.running)
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1


@contextmanager
def dns_fails(*hosts: str) -> Generator[Lookups]:
    """
    Let every lookup of these host names, or of all if none is given, fail with `socket.gaierror`.

    Addresses such as ``127.0.0.1`` are never looked up and keep working. Goes for the whole
    process on asyncio's loop, and for the running loop on one that resolves names by itself, such
    as uvloop. Enter it where the loop is running.

    Raises:
        RuntimeError: No loop is running in this thread.
        TypeError: One of the hosts is no str.
    """
    with _faulty_dns(hosts, lambda: None) as lookups:
        yield lookups


@contextmanager
def dns_hangs(seconds: float, *hosts: str) -> Generator[Lookups]:
    """
    Let every such lookup hang for this long, and fail then; otherwise as `dns_fails()`.

    As in reality, a thread of the loop's default executor is held, also after the caller has given
    up. Leaving the context releases them all.

    Raises:
        RuntimeError: No loop is running in this thread.
        TypeError: One of the hosts is no str.
        ValueError: ``seconds`` is no number, or negative.
    """
    check_number("seconds", seconds, minimum=0)
    released = threading.Event()
    try:
        with _faulty_dns(hosts, lambda: released.wait(seconds)) as lookups:
            yield lookups
    finally:
        released.set()


@contextmanager
def _faulty_dns(hosts: Collection[str], wait: Callable[[], object]) -> Generator[Lookups]:
    for host in hosts:
        check_present("host", host, str)
    lookups = Lookups()
    faulty = _failing(socket.getaddrinfo, hosts, lookups, wait)
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(socket, "getaddrinfo", faulty))
        _patch_loop(patches)
        yield lookups


def _failing(
    real: Callable[P, R], hosts: Collection[str], lookups: Lookups, wait: Callable[[], object]
) -> Callable[P, R]:
    """Return a stand-in for getaddrinfo that fails for names, and leaves addresses to it."""

    def getaddrinfo(*args: P.args, **kwargs: P.kwargs) -> R:
        host = args[0] if args else kwargs.get("host")
        if not _is_name(host) or (hosts and host not in hosts):
            return real(*args, **kwargs)
        with lookups.counted():
            wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    return getaddrinfo


def _patch_loop(patches: ExitStack) -> None:
    """Let a running loop that looks names up by itself use `socket.getaddrinfo` before."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):
        return
    for name, place in (("create_connection", 1), ("getaddrinfo", 0)):
        method = _looking_up_first(getattr(loop, name), place)
        patches.enter_context(mock.patch.object(loop, name, method))


def _looking_up_first(real: Callable[P, Awaitable[R]], place: int) -> Callable[P, Awaitable[R]]:
    """Return a stand-in for a method of the loop that has a host in this place."""

    async def method(*args: P.args, **kwargs: P.kwargs) -> R:
        host = args[place] if len(args) > place else kwargs.get("host")
        if isinstance(host, str) and _is_name(host):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, socket.getaddrinfo, host, None)
        return await real(*args, **kwargs)

    return method


def _is_name(host: object) -> bool:
    if not isinstance(host, str):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
