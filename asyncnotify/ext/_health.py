"""What a service answers to a health check: a status of HTTP, and what is to be done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncnotify import AsyncNotifyError, Listener, State
from asyncnotify._errors import describe_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncnotify.log import Log

OK: Final = 200
UNAVAILABLE: Final = 503

TIMEOUT: Final = 5.0
"""Seconds for a log to answer: those who ask for a health check wait no longer, as a rule."""

_MEANINGS: Final[Mapping[State, str]] = {
    State.NEW: "the listener has not been started",
    State.CONNECTING: "the first connection to PostgreSQL is being made",
    State.CONNECTED: "notifications are being delivered",
    State.RECONNECTING: (
        "the connection to PostgreSQL was lost and notifications are being missed; the listener"
        " keeps trying to connect, and clients get a gap when it has succeeded"
    ),
    State.DEGRADED: (
        "PostgreSQL refuses the connection and notifications are being missed; retrying will not"
        " help until the cause is fixed: see last_error"
    ),
    State.CLOSING: "the listener is closing: the service is being stopped",
    State.CLOSED: "the listener is closed: the service is being stopped",
}
"""What each state means, for the operator who reads it."""


class HealthAnswer(NamedTuple):
    """
    The answer to a health check.

    Attributes:
        status: 200 while notifications are delivered, 503 while they are missed.
        body: What JSON can hold: no password, no DSN, no payload.
    """

    status: int
    body: dict[str, Any]


async def health_of(source: Listener | Log) -> HealthAnswer:
    """
    Return the answer for a listener, at once, or for a log, which asks its database.

    A log that does not answer within five seconds is one that does not work. ``last_error``
    and ``error`` say what the server or the system said, with the name of the server and of the
    role: for operators, not for the public.

    Raises:
        WrongLoopError: It belongs to another event loop or process.
    """
    if isinstance(source, Listener):
        return await _of_listener(source)
    return await _of_log(source)


async def _of_listener(listener: Listener) -> HealthAnswer:
    stats, state = listener.stats(), listener.state
    body: dict[str, Any] = {
        "status": "ok" if listener.is_connected else "unavailable",
        "state": str(state),
        "meaning": _MEANINGS[state],
        "reconnects": stats.reconnects,
        "dropped": stats.dropped,
        "subscriptions": len(stats.subscriptions),
        "last_error": None,
    }
    if state in {State.CONNECTING, State.CONNECTED, State.RECONNECTING, State.DEGRADED}:
        report = await listener.health(server=False)
        age = report["last_contact_age"]
        body |= {
            "last_contact_age": None if age is None else round(age, 3),  # in seconds
            "last_error": report["last_error"],
        }
    return HealthAnswer(OK if listener.is_connected else UNAVAILABLE, body)


async def _of_log(log: Log) -> HealthAnswer:
    try:
        async with asyncio.timeout(TIMEOUT):
            status = await log.status()
    except Exception as error:  # noqa: BLE001 - whatever it is, the log does not work
        return HealthAnswer(UNAVAILABLE, _failure(error))
    consumers = {
        f"{consumer.name}:{consumer.bucket}": {
            "lag_events": consumer.lag_events,
            "is_served": consumer.is_served,
            "dead_letters": consumer.dead_letters,
        }
        for consumer in status.consumers
    }
    body = {
        "status": "ok",
        "meaning": "the log answers",
        "events": status.events,
        "consumers": consumers,
    }
    return HealthAnswer(OK, body)


def _failure(error: Exception) -> dict[str, Any]:
    meaning = "the log does not answer; what is appended now may fail, and readers wait"
    is_ours = isinstance(error, AsyncNotifyError | TimeoutError)
    said = describe_error(error) if is_ours or hasattr(error, "severity") else type(error).__name__
    return {"status": "unavailable", "meaning": meaning, "last_error": said}
