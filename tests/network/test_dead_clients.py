"""Clients that vanish: the server must not keep their sessions for hours."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Keepalive, Listener
from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.network.conftest import Remote

    Admin = asyncpg.Connection[asyncpg.Record]

KEEPALIVE = Keepalive(idle=2, interval=1, count=3, user_timeout=4)
LIMIT = 6.0  # seconds
SLACK = scaled(4.0)
SESSIONS = """
    SELECT application_name AS name, wait_event FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database()
"""
# More than the buffers of both ends take
FLOOD = """
    SELECT pg_catalog.count(pg_catalog.pg_notify('flooded', g || pg_catalog.repeat('x', 7000)))
    FROM pg_catalog.generate_series(1, 2000) g
"""


async def sessions(admin: Admin) -> dict[str, str]:
    """Return what each session of the server waits for, by its application's name."""
    return {row["name"]: row["wait_event"] for row in await admin.fetch(SESSIONS)}


async def until_gone(admin: Admin, names: set[str]) -> None:
    """Wait until the server has no such sessions any more."""
    while not names.isdisjoint(await sessions(admin)):  # noqa: ASYNC110 - nobody is told of it
        await asyncio.sleep(0.05)  # polls the server


async def until_it_writes(admin: Admin, name: str) -> None:
    """Wait until a session can do nothing but wait for its client to read."""
    while (await sessions(admin))[name] != "ClientWrite":  # noqa: ASYNC110 - nobody is told of it
        await asyncio.sleep(0.01)  # polls the server


async def test_r38_the_server_drops_the_sessions_of_dead_clients(remote: Remote) -> None:
    """Idle, with a notification in flight, blocked by many: each is gone when TCP says so."""
    channels = ("idle", "unacknowledged", "flooded", "forgotten")
    admin = await asyncpg.connect(remote.local)
    async with AsyncExitStack() as listeners:
        for channel in channels:
            listener = Listener(
                remote.dsn,
                heartbeat=None,
                keepalive=KEEPALIVE if channel != "forgotten" else None,
                server_settings={"application_name": channel},
                close_timeout=0.1,
            )
            await listeners.enter_async_context(listener)
            await listener.listen(channel, lambda _: None)
        assert set(channels) <= set(await sessions(admin))

        remote.cut()
        async with asyncio.timeout(LIMIT + SLACK):
            await admin.execute("NOTIFY unacknowledged")
            await admin.execute(FLOOD)
            await until_it_writes(admin, "flooded")
            await until_gone(admin, {"idle", "unacknowledged", "flooded"})
        assert "forgotten" in await sessions(admin)  # without keepalive it stays: for two hours
    await admin.close()
