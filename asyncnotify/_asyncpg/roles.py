"""
What the server is: a primary or a standby, and whether its sessions may write.

``target_session_attrs`` says which kind is wanted. The driver could look, but where the server does
not report what it is, the driver would prepare a statement, which behind a pooler may be another
program's. And what a server is may change while a session lives, so heartbeats look again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._asyncpg import untraced
from asyncnotify._asyncpg.statements import HERE, before_statements

if TYPE_CHECKING:
    from collections.abc import Mapping

_WANTED: Final[Mapping[str, tuple[str, str]]] = {
    "primary": ("NOT pg_catalog.pg_is_in_recovery()", "a standby"),
    "standby": ("pg_catalog.pg_is_in_recovery()", "a primary"),
    # On a standby each transaction is read-only, whatever the default
    "read-write": (
        "pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off'",
        "read-only",
    ),
    "read-only": (
        "pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'",
        "writable",
    ),
}
"""By ``target_session_attrs``: what has to be true, and what a server is for which it is not."""


def condition(wanted: str) -> str | None:
    """Return what must be true of the server, in SQL; None if any will do."""
    return _WANTED[wanted][0] if wanted in _WANTED else None


def misfit(wanted: str) -> str:
    """Return what is wrong with a server for which the condition is false."""
    return f"the server is {_WANTED[wanted][1]}, and target_session_attrs={wanted} is in effect"


async def check_role(connection: asyncpg.Connection[Any], wanted: str) -> None:
    """
    Make sure that the server is as wanted. No round trip where it reports what it is: from 14 on.

    Raises:
        asyncpg.TargetServerAttributeNotMatched: It is not.
    """
    sql = condition(wanted)
    if sql is None:
        return
    fits = _reported(connection, wanted)
    if fits is None:
        before = before_statements(connection)
        fits = (
            await untraced.execute(connection, f"{before}{HERE}SELECT 1 WHERE {sql}") == "SELECT 1"
        )
    if not fits:
        raise asyncpg.TargetServerAttributeNotMatched(misfit(wanted))


def _reported(connection: asyncpg.Connection[Any], wanted: str) -> bool | None:
    """Return whether the server fits, by what it has reported; None if it has not."""
    settings = connection.get_settings()
    standby = getattr(settings, "in_hot_standby", None)
    read_only = getattr(settings, "default_transaction_read_only", None)
    if standby is None or read_only is None:
        return None
    wanted_value = {"primary": "off", "standby": "on", "read-write": "off", "read-only": "on"}
    value = standby if wanted in {"primary", "standby"} or standby == "on" else read_only
    return bool(value == wanted_value[wanted])
