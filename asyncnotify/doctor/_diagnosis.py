"""One check after another, each within its time, and none that can end the diagnosis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._arguments import check_seconds
from asyncnotify._errors import ChannelNameError, ConfigurationError, describe_error
from asyncnotify.doctor._checks import (
    addresses,
    connecting,
    delivery,
    functions,
    keepalive,
    listeners,
    logs,
    notify_lock,
    partitions,
    path,
    queue,
    replication,
    role,
    round_trip,
    settings,
    tls,
    triggers,
    versions,
)
from asyncnotify.doctor._findings import SERIOUS_FIRST, Finding, Report, Severity
from asyncnotify.doctor._server import Server
from asyncnotify.typing import Dsn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

_CHECKS: Final = (
    path,
    role,
    versions,
    replication,
    notify_lock,
    queue,
    delivery,
    tls,
    keepalive,
    round_trip,
    listeners,
    settings,
    functions,
    triggers,
    partitions,
    logs,
)
"""In this order: what the path, recovery and the notify lock forbid is known before it is tried."""


async def diagnose(
    dsn: Dsn | None = None,
    *,
    timeout: float = 5.0,
    probe: bool = True,
    services: str | None = None,
    **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
) -> Report:
    """
    Examine a server, and the path to it, and return what was found.

    Nothing is changed: all queries run in READ ONLY transactions with timeouts. Only the ``probe``
    sends something, two notifications on a channel with a random name.
    A check that fails or exceeds its time is a finding of severity ``unknown``. Cancelling the call
    leaves nothing behind.

    Args:
        dsn: As for Listener.
        timeout: Seconds for each check, connecting included.
        probe: Whether to find out by a notification if any arrives.
        services: The channel on which services report, as ``asyncnotify.ext.reporting`` has them:
            they are asked who listens, which takes a second. None: they are not asked.
        connect_kwargs: Further arguments of ``asyncpg.connect``.

    Raises:
        ChannelNameError: No channel can be named as ``services`` says.
        ConfigurationError: The DSN or another argument is wrong.
        TypeError: An argument is unknown or of the wrong type.
        ValueError: ``timeout`` is not a positive number of seconds.
    """
    check_seconds("timeout", timeout)
    server = Server(dsn, connect_kwargs, timeout=timeout)
    began = time.monotonic()
    try:
        findings = [*await _run(addresses, server), *await _run(connecting, server)]
        if server.version_text is not None:
            for check in _CHECKS:
                if probe or check is not delivery:
                    findings += await _run(check, server)
            if services is not None:
                findings += await _run(_Call(services), server)
    finally:
        server.close()
    took = time.monotonic() - began
    return Report(server.target, server.version_text, took, tuple(_sorted(findings)))


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SERIOUS_FIRST.index(finding.severity))


class _Call:
    """Asking services who listens, as a check like the others."""

    NAME = listeners.NAME

    def __init__(self, channel: str) -> None:
        self._channel = channel

    async def look(self, server: Server) -> list[Finding]:
        """Ask them."""
        return await listeners.call(server, self._channel)


async def _run(check: ModuleType | _Call, server: Server) -> list[Finding]:
    """Return what a check has found; or that it could not find out, and why."""
    try:
        async with asyncio.timeout(server.timeout):
            return list(await check.look(server))
    except (ConfigurationError, ChannelNameError):
        raise
    except TimeoutError:
        server.close()  # an answer may still be on its way
        if check is connecting:  # cut off, it has found out what it asks
            return [connecting.none_because(f"TimeoutError: no answer within {server.timeout:g} s")]
        why = f"the check was not done within {server.timeout:g} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        server.close()
        why = describe_error(error)
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            cure = "run the doctor as a role that may: a superuser, or one with pg_monitor"
            return [Finding(check.NAME, Severity.UNKNOWN, "the role may not look", (why,), cure)]
    title = "this could not be examined"
    return [
        Finding(check.NAME, Severity.UNKNOWN, title, (why,), "remove the reason, and try again")
    ]
