"""Logs on a pool of the caller's: its connections are given back as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify.log import Log

if TYPE_CHECKING:
    from asyncnotify.log._names import Names

    Connection = asyncpg.Connection[Any]

pytestmark = pytest.mark.needs_server("a pool")

SETTINGS: Final = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_deferrable": "on",
    "default_transaction_read_only": "on",
    "jit": "on",
    "statement_timeout": "7s",
    "idle_in_transaction_session_timeout": "9s",
}


class Unreset(asyncpg.Connection):
    """A connection that a pool does not reset, as it is advised behind poolers."""

    def get_reset_query(self) -> str:
        """Return nothing to be done."""
        return ""

    _get_reset_query = get_reset_query  # its name in asyncpg before 0.30


async def configured(connection: Connection) -> None:
    """Set what users set in ``init=``."""
    for name, value in SETTINGS.items():
        await connection.execute(f"SET {name} TO '{value}'")


@pytest.mark.parametrize("kind", [asyncpg.Connection, Unreset])
async def test_r58_a_pools_connection_keeps_its_settings(
    dsn: str, installed: Names, kind: type[Connection]
) -> None:
    """Whether the pool resets it or not: with the first, what ``init=`` set is gone in any case."""
    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=1, connection_class=kind, init=configured
    ) as pool:
        async with pool.acquire():
            pass
        query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in SETTINGS)
        before = await pool.fetchrow(query)
        async with Log("orders", pool=pool, poll=0.01) as log:
            await log.append("things", "x")
            async with log.read(after="start") as stream:
                assert (await anext(stream)).payload == "x"
            async with log.consumer("mailer") as consumer:
                assert (await anext(consumer)).payload == "x"
        assert await pool.fetchrow(query) == before
