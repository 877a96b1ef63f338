"""Removing the logs of a database while programs read them."""

from __future__ import annotations

from typing import Any

import asyncpg


async def remove_logs(connection: asyncpg.Connection[Any]) -> None:
    """Drop their schema: who reads takes locks in another order, and the server may end one."""
    while True:
        try:
            await connection.execute("DROP SCHEMA asyncnotify CASCADE")
        except asyncpg.DeadlockDetectedError:
            continue
        return
