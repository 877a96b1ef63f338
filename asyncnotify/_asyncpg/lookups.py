"""Host name lookups: at most one at a time for each name."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any


class Lookups:
    """
    Waits until a host name can be resolved, before the driver resolves it again.

    A lookup cannot be cancelled: one that hangs occupies a thread until the resolver gives up.
    If each attempt to connect began another, all threads of the event loop would be occupied.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[Any]] = {}

    async def resolve(self, host: str) -> None:
        """
        Return if the name can be resolved; for addresses and Unix sockets at once.

        Cancelling it leaves the lookup running, and the next call waits for the same one.

        Raises:
            socket.gaierror: The name cannot be resolved.
        """
        if not _is_name(host):
            return
        lookup, loop = self._running.get(host), asyncio.get_running_loop()
        if lookup is None or lookup.done() or lookup.get_loop() is not loop:
            lookup = loop.run_in_executor(None, socket.getaddrinfo, host, None)
            # Retrieve the exception: every caller may have been cancelled by then
            lookup.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._running[host] = lookup
        await asyncio.wait({lookup})
        if self._running.get(host) is lookup:
            del self._running[host]
        lookup.result()


def _is_name(host: str) -> bool:
    if not host or host.startswith("/"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
