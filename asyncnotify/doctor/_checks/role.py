"""Whether the role may see what the other checks look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine, needs_monitor

if TYPE_CHECKING:
    from asyncnotify.doctor._findings import Finding
    from asyncnotify.doctor._server import Server

NAME: Final = "role"


async def look(server: Server) -> list[Finding]:
    """Ask for the role and its privileges."""
    if not await server.sees_all():
        return [needs_monitor(NAME, "what sessions of other roles do")]
    return [
        fine(NAME, "the role sees all sessions", str(await server.value("SELECT current_user")))
    ]
