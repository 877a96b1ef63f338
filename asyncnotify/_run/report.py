"""The state of a listener as a plain dict, for a health endpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._errors import describe_error

if TYPE_CHECKING:
    from asyncnotify._connection.ports import ListeningSession
    from asyncnotify._run.lifetime import Lifetime

_WORTH_ASKING: Final = 0.01
"""How full the queue must be for its holders to be listed: in health it is nearly empty."""


_MARGIN: Final = 0.1
"""Extra seconds: the session's own deadline comes first, and the report has its error."""


async def health_of(lifetime: Lifetime, *, server: bool) -> dict[str, Any]:
    """Return what Listener.health() documents."""
    answer = await _server_report(lifetime) if server else {}
    return {**_local_report(lifetime), **answer}


def _local_report(lifetime: Lifetime) -> dict[str, Any]:
    stats, connection = lifetime.stats(), lifetime.connection
    error, since = connection.last_error, stats.connected_since
    return {
        "state": str(stats.state),
        "generation": connection.generation,
        "backend_pid": connection.backend_pid,
        "connected_since": None if since is None else since.isoformat(),
        "last_contact_age": connection.last_contact_age,
        "heartbeat_round_trip": stats.heartbeat_round_trip,
        "last_error": None if error is None else describe_error(error),
        "channels_desired": connection.channels_desired,
        "channels_confirmed": connection.channels_confirmed,
        "received": stats.received,
        "delivered": stats.delivered,
        "dropped": stats.dropped,
        "gaps": stats.gaps,
        "handler_errors": stats.handler_errors,
        "decode_errors": stats.decode_errors,
        "rereads": stats.rereads,
        "subscriptions": [asdict(subscription) for subscription in stats.subscriptions],
    }


async def _server_report(lifetime: Lifetime) -> dict[str, Any]:
    report: dict[str, Any] = {"queue_usage": None, "queue_holders": [], "server_error": None}
    timeout = lifetime.answer_timeout

    async def ask(session: ListeningSession) -> None:
        usage = report["queue_usage"] = await session.queue_usage(timeout=timeout)
        if usage >= _WORTH_ASKING:
            report["queue_holders"] = await session.queue_holders(timeout=timeout)

    try:
        await lifetime.ask(ask, timeout=timeout + _MARGIN)
    except Exception as error:  # noqa: BLE001 - every error belongs in the report
        report["server_error"] = describe_error(error)
    return report
