"""Whether there is a connection at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify._errors import ConfigurationError, describe_error
from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "connection"

_CURE: Final = (
    "check the host, the port, the password and pg_hba.conf; psql with the same values shows"
    " whether it is the server or the network"
)


def none_because(why: str) -> Finding:
    """Return the finding that there is no connection."""
    return Finding(NAME, Severity.ERROR, "no connection", (why,), _CURE)


async def look(server: Server) -> list[Finding]:
    """Connect."""
    try:
        connection = await server.connection()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return [none_because(describe_error(error))]
    version = connection.get_server_version()
    server.version = version.major
    server.version_text = connection.get_settings().server_version
    return [fine(NAME, "connected", f"PostgreSQL {server.version_text}")]
