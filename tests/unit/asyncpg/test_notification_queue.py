"""How log lines name the sessions that may hold the notification queue."""

from __future__ import annotations

from typing import Any

from asyncnotify._asyncpg.notification_queue import describe_holders


def holder(pid: int, **known: Any) -> dict[str, Any]:
    """Return a row of what the server tells."""
    row = {"application_name": "report", "state": "idle in transaction", "seconds": 3600.4}
    return {"pid": pid, **row, **known}


def test_the_holders_are_named() -> None:
    """By pid, application and state, with the time for which each has been in it."""
    text = describe_holders([holder(12), holder(13, application_name=None, seconds=None)])
    assert "may be such a session: backend 12 ('report', idle in transaction, for 3600 s)" in text
    assert text.endswith("backend 13 ('', idle in transaction, for 0 s)")


def test_a_name_is_escaped_and_not_endless() -> None:
    """Any client gives its own."""
    text = describe_holders([holder(12, application_name="\x1b[2J" + "x" * 1_000)])
    assert "\\x1b[2J" in text
    assert len(text) < 400


def test_where_nobody_is_seen_nobody_is_blamed() -> None:
    """The role may not see the sessions of other roles, or there is another cause."""
    assert describe_holders([]) == "emptying the queue did not help"
