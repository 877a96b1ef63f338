"""Looking up host names, never the same one twice at once."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any


class Lookups:
    """
    Waits until a host name can be resolved, before the driver resolves it for itself.

    A lookup cannot be cancelled: one that hangs holds a thread until the resolver gives up. If
    each attempt to connect began another, they would use up the threads of the event loop.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[Any]] = {}

    async def resolve(self, host: str) -> None:
        """
        Return if the name can be resolved; addresses and Unix sockets can.

        Cancelling it leaves the lookup running, and the next call waits for the same one.

        Raises:
            socket.gaierror: The name cannot be resolved.
        """
        if not _is_name(host):
            return
        lookup, loop = self._running.get(host), asyncio.get_running_loop()
        if lookup is None or lookup.done() or lookup.get_loop() is not loop:
            lookup = loop.run_in_executor(None, socket.getaddrinfo, host, None)
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
