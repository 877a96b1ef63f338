"""The notification queue of the server: which sessions may hold it, and how log lines name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncnotify._escaping import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE_HOLDERS: Final = """
    SELECT pid, application_name, state, wait_event,
        extract(
            epoch FROM pg_catalog.clock_timestamp() - coalesce(xact_start, state_change)
        )::pg_catalog.float8 AS seconds
    FROM pg_catalog.pg_stat_activity
    WHERE pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'
        AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL OR wait_event = 'ClientWrite')
    ORDER BY coalesce(xact_start, state_change)
    LIMIT 5
"""
"""A session that listens lets the queue go only when it has read it: not within a transaction, and
not while its client does not read. Which of them listen, and on which channels, the server does not
tell. Before PostgreSQL 19 a listener on any channel holds the queue, from then on only one on a
channel that has been notified."""

TRUNCATED_STATUS: Final = (
    "LISTEN failed with %s: the notification queue of the server holds transactions whose status is"
    " gone, usually because of a bug of PostgreSQL that is fixed in 14.21, 15.16, 16.12, 17.8 and"
    " 18.2; %s"
)
"""What is logged of SQLSTATE 58P01, with the error and the outcome of the repair."""

REPAIRED: Final = "emptying the queue has repaired that"

EMPTY_QUEUE: Final = "SELECT pg_catalog.pg_notification_queue_usage()"
"""Asking for the size removes what no session has to read any more, on every version."""

EMPTIED_QUEUE: Final = (
    "the server's notification queue was full of entries that no session needed, mostly those of"
    " aborted transactions; asking for its size has emptied it, and the notifications have been"
    " sent"
)

FULL_QUEUE: Final = (
    "the server's notification queue is full: either these notifications do not fit into it at"
    " once, or a session that listens keeps it from being emptied; Listener.health() shows such"
    " sessions as queue_holders"
)


def with_escaped_name(holder: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a holder fit for a terminal: a program chooses its name."""
    name = holder["application_name"]
    return {**holder, "application_name": name and escaped(name)}


def describe_holders(holders: Sequence[dict[str, Any]]) -> str:
    """Return that emptying the queue did not help, and who may hold it, by the server's rows."""
    if not holders:
        return "emptying the queue did not help"
    return (
        "emptying the queue did not help. A session that listens holds the queue until its"
        " transaction ends, or its client reads; one of these may be such a session:"
        f" {'; '.join(map(_named, holders))}"
    )


def _named(holder: dict[str, Any]) -> str:
    name, seconds = holder["application_name"] or "", holder["seconds"] or 0.0
    return f"backend {holder['pid']} ({name!r:.80}, {holder['state']}, for {seconds:.0f} s)"
