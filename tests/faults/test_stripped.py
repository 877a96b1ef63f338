"""LISTEN taken away behind our back, on the very connection that listens."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import ConnectionLost, Gap, GapReason, Notification
from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.faults.conftest import Items, ProxiedDatabase

BEAT = b"pg_listening_channels"
HEARTBEAT = 0.1
AUDIT = 6 * HEARTBEAT
SLACK = scaled(0.5)
WAIT_LIMIT = scaled(5.0)

pytestmark = pytest.mark.parametrize("connects_by", ["connect"])  # it lets us at the connection


async def take(stream: Items) -> Notification[str] | Gap:
    """Return the stream's next item."""
    async with asyncio.timeout(WAIT_LIMIT):
        return await anext(stream)


async def strip(database: ProxiedDatabase, command: str) -> None:
    """Run a command on the listener's own connection, as soon as a heartbeat leaves it free."""
    await database.proxy.wait_for_bytes(BEAT)
    while True:
        try:
            await database.opened[-1].execute(command)
        except asyncpg.InterfaceError:
            await asyncio.sleep(0)
        else:
            return


async def chat(dsn: str, channel: str) -> None:
    """Send one notification after another, until cancelled."""
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            await connection.execute(f"NOTIFY {channel}, 'chat'")
    finally:
        connection.terminate()


@pytest.mark.parametrize("command", ["UNLISTEN *", "DISCARD ALL"])
async def test_r6_every_channel_stripped_is_listened_on_again(
    database: ProxiedDatabase, command: str
) -> None:
    """UNLISTEN * behind our back is found by an audit: LISTEN is repeated, a Gap says so."""
    async with database.running(heartbeat=HEARTBEAT, heartbeat_timeout=scaled(5.0)) as subject:
        async with subject.listener.stream("a", "b", gaps=True) as stream:
            first = await take(stream)
            assert isinstance(first, Gap)
            await strip(database, command)
            stripped, at = time.monotonic(), datetime.now(UTC)
            await database.notify("a", "unheard")
            gap = await take(stream)
            assert time.monotonic() - stripped < AUDIT + SLACK
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.UNLISTENED
            assert gap.since is not None
            assert gap.since <= at
            assert await database.heard(subject, ["a", "b"]) == {"a", "b"}
        assert subject.count(ConnectionLost) == 0


async def test_r6_one_channel_stripped_is_found_while_another_keeps_talking(
    database: ProxiedDatabase,
) -> None:
    """Notifications on one channel do not put off the audit that misses another."""
    async with (
        database.running(heartbeat=HEARTBEAT, heartbeat_timeout=scaled(5.0)) as subject,
        subject.listener.stream("quiet", gaps=True) as quiet,
        subject.listener.stream("chatty", gaps=True) as chatty,
    ):
        assert isinstance(await take(quiet), Gap)
        assert isinstance(await take(chatty), Gap)
        chatting = asyncio.create_task(chat(database.dsn, "chatty"))
        await strip(database, "UNLISTEN quiet")
        stripped = time.monotonic()
        gap = await take(quiet)
        assert time.monotonic() - stripped < AUDIT + SLACK
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.UNLISTENED
        await end(chatting)
        await database.notify("quiet", "heard")
        heard = await take(quiet)
        assert isinstance(heard, Notification)
        assert heard.payload == "heard"
        stats = chatty.stats()
        assert stats is not None
        assert stats.gaps == 1


async def test_r6_what_is_listened_on_besides_does_no_harm(database: ProxiedDatabase) -> None:
    """A LISTEN that somebody added on our connection is neither repaired nor delivered."""
    async with database.running(heartbeat=HEARTBEAT, heartbeat_timeout=scaled(5.0)) as subject:
        await strip(database, "LISTEN stranger")
        with database.wire() as wire:
            await wire.until(3, BEAT)
        await database.notify("stranger")
        await subject.fence()
        assert subject.count(ConnectionLost) == 0
        stats = subject.listener.stats()
        assert (stats.gaps, stats.reconnects) == (1, 0)
        await strip(database, "UNLISTEN *")
        with database.wire() as wire:
            await wire.until(1, b'LISTEN "fence"')
        await subject.fence()


async def test_r6_a_channel_exchanged_for_another_is_found(database: ProxiedDatabase) -> None:
    """An audit looks at which channels the server listens on, not only at how many."""
    async with (
        database.running(heartbeat=HEARTBEAT, heartbeat_timeout=scaled(5.0)) as subject,
        subject.listener.stream("a", gaps=True) as stream,
    ):
        assert isinstance(await take(stream), Gap)
        await strip(database, "UNLISTEN a; LISTEN stranger")
        gap = await take(stream)
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.UNLISTENED
        assert await database.heard(subject, ["a"]) == {"a"}


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
