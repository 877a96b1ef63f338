"""Whether a notification arrives: the only check that sends something."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import ConfigurationError, Listener, Notification, PoolerError
from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "delivery"

_SHARE: Final = 0.9
"""How much of the check's time starting may take."""


async def look(server: Server) -> list[Finding]:
    """Listen on a channel of its own, and notify it by a second connection."""
    if server.is_standby:
        return []  # told by the check of the primary
    if server.lock_is_held:
        title = "not tried: the notification would wait behind the notify lock"
        return [Finding(NAME, Severity.UNKNOWN, title, (), "see the finding about the notify lock")]
    options: dict[str, Any] = {"heartbeat": None, "operation_timeout": server.timeout}
    options |= {"start_timeout": server.timeout * _SHARE, "close_timeout": 1.0}
    listener = Listener(server.dsn, **options, **server.listener_arguments)
    try:
        async with listener:
            return [await _sent(server, listener)]
    except PoolerError as error:
        title = "no notification arrives: a pooler in the path is in transaction or statement mode"
        cure = "give the listener the server's own address, or a pool with pool_mode = session"
        return [Finding(NAME, Severity.ERROR, title, (str(error),), cure)]
    except ConfigurationError as error:
        title = "the server does not listen"
        cure = "connect to a PostgreSQL server itself"
        return [Finding(NAME, Severity.ERROR, title, (str(error),), cure)]


async def _sent(server: Server, listener: Listener) -> Finding:
    channel = f"asyncnotify_doctor_{secrets.token_hex(8)}"
    async with listener.stream(channel) as stream:
        await listener.notify(channel)  # opens the second connection
        await anext(stream)
        began = time.monotonic()
        await listener.notify(channel)
        try:
            async with asyncio.timeout(server.timeout / 2):
                arrived: Notification[str] = await anext(stream)
        except TimeoutError:
            title = "LISTEN and NOTIFY succeed, and no notification arrives"
            cure = "see what is in the path: both connections must reach the same server"
            return Finding(NAME, Severity.ERROR, title, (f"channel {channel}",), cure)
    took = f"{(time.monotonic() - began) * 1000:.1f} ms from NOTIFY to arrival"
    mode = "; the pooler is in session mode" if server.is_pooled else ""
    return fine(NAME, f"a notification of backend {arrived.pid} arrived{mode}", took)
