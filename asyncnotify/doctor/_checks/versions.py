"""Known faults of the server's version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "version"

_KEEPS_STATUS: Final = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}
"""The first minor releases, of February 2026, in which VACUUM keeps the status of transactions
whose notifications are still in the queue. 13 had its last release before."""

_OLDEST: Final = 14
_FAULT: Final = (
    "LISTEN can fail with 58P01, «could not access status of transaction», after VACUUM FREEZE,"
    " while a notification that old is still in the queue"
)
_ASK: Final = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4"


async def look(server: Server) -> list[Finding]:
    """Compare the version with those that repaired a fault."""
    number = await server.value(_ASK)
    major, minor = divmod(number, 10_000)
    told = f"server_version_num {number}"
    if major < _OLDEST:
        title = f"PostgreSQL {major} is out of support: known faults are no longer repaired in it"
        return [
            Finding(NAME, Severity.INFO, title, (told, _FAULT), "plan to upgrade to a newer one")
        ]
    repaired = _KEEPS_STATUS.get(major, 0)
    if minor < repaired:
        title = f"this minor release has a fault that {major}.{repaired} repaired"
        cure = f"install the newest minor release of {major}"
        return [Finding(NAME, Severity.WARNING, title, (told, _FAULT), cure)]
    return [fine(NAME, "no fault of LISTEN or NOTIFY is known in this release", told)]
