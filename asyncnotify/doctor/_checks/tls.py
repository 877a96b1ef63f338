"""Whether others on the path can read and forge, and how long the certificate holds."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg._connecting.tls import tls_weakness
from asyncnotify.doctor._checks._common import fine
from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from asyncnotify.doctor._server import Server

NAME: Final = "TLS"

_SOON: Final = 21.0
"""Days: time enough to notice that a renewal which should be automatic is not."""

_DAY: Final = 86_400
_CURE: Final = "sslmode=verify-full, with sslrootcert= the authority's certificate"


async def look(server: Server) -> list[Finding]:
    """Look at the connection."""
    connection = await server.connection()
    if (weakness := tls_weakness(connection)) is not None:
        fault, _, remedy = weakness.partition("; ")
        told = (f"the connection to {server.target} {fault}",)
        return [Finding(NAME, Severity.WARNING, f"the connection {fault}", told, remedy or _CURE)]
    transport: Any = getattr(connection, "_transport", None)
    encryption = transport.get_extra_info("ssl_object") if transport is not None else None
    if encryption is None:
        return [fine(NAME, "the connection does not leave this machine, and needs no TLS")]
    return [_lasting(encryption)]


def _lasting(encryption: ssl.SSLObject) -> Finding:
    certificate = encryption.getpeercert() or {}
    until = certificate.get("notAfter")
    told = f"{encryption.version()}; the certificate ends {until}"
    if not isinstance(until, str):
        return fine(NAME, "the connection is encrypted", str(encryption.version()))
    days = (ssl.cert_time_to_seconds(until) - time.time()) / _DAY
    if days < _SOON:
        title = f"the server's certificate ends in {days:.0f} days: then no listener reconnects"
        return Finding(NAME, Severity.WARNING, title, (told,), "renew it, and reload the server")
    return fine(NAME, "the connection is encrypted, and the server is verified", told)
