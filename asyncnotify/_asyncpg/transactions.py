"""Notifying within a transaction of the caller's, on whichever driver that runs."""

from __future__ import annotations

import sys
from typing import Any, Final

import asyncpg

from asyncnotify._asyncpg.publishing import NOTIFY

_PSYCOPG: Final = "SELECT pg_catalog.pg_notify(%s, %s)"
_SQLALCHEMY: Final = "SELECT pg_catalog.pg_notify(:channel, :payload)"

_TAKEN_IN_THREADS: Final = "SQLAlchemy's Connection or Session, or psycopg's Connection"

_TAKEN: Final = (
    "an asyncpg Connection, a connection acquired from its Pool, SQLAlchemy's AsyncConnection or"
    " AsyncSession, or psycopg's AsyncConnection"
)


async def notify_within(connection: Any, channel: str, payload: str) -> None:
    """
    Send a notification when the transaction of this connection commits, and not before.

    Raises:
        TypeError: The connection is of another kind.
        Exception: What the driver raises.
    """
    if isinstance(connection, asyncpg.Connection):  # or a pool's proxy: its metaclass says so
        await connection.execute(NOTIFY, channel, payload)
    elif _is_of(connection, "sqlalchemy.ext.asyncio", ("AsyncConnection", "AsyncSession")):
        text = sys.modules["sqlalchemy"].text
        await connection.execute(text(_SQLALCHEMY), {"channel": channel, "payload": payload})
    elif _is_of(connection, "psycopg", ("AsyncConnection",)):
        # Not connection.execute(): its cursors may take other placeholders
        async with sys.modules["psycopg"].AsyncCursor(connection) as cursor:
            await cursor.execute(_PSYCOPG, (channel, payload))
    else:
        msg = f"connection must be {_TAKEN}, not of type {type(connection).__name__}"
        raise TypeError(msg)


def notify_within_thread(connection: Any, channel: str, payload: str) -> None:
    """
    Do as ``notify_within()``, on a connection that blocks, in the calling thread.

    Raises:
        TypeError: The connection is of another kind.
        Exception: What the driver raises.
    """
    if _is_of(connection, "sqlalchemy", ("Connection",)) or _is_of(
        connection, "sqlalchemy.orm", ("Session",)
    ):
        text = sys.modules["sqlalchemy"].text
        connection.execute(text(_SQLALCHEMY), {"channel": channel, "payload": payload})
    elif _is_of(connection, "psycopg", ("Connection",)):
        # Not connection.execute(): its cursors may take other placeholders
        with sys.modules["psycopg"].Cursor(connection) as cursor:
            cursor.execute(_PSYCOPG, (channel, payload))
    else:
        msg = f"connection must be {_TAKEN_IN_THREADS}, not of type {type(connection).__name__}"
        raise TypeError(msg)


def _is_of(connection: object, module: str, names: tuple[str, ...]) -> bool:
    """Return whether it is of a library, which need not be installed for anything else."""
    library = sys.modules.get(module)
    classes = tuple(getattr(library, name, type(None)) for name in names)
    return library is not None and connection is not None and isinstance(connection, classes)
