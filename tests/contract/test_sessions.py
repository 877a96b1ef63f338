"""What a listener costs the server and the process, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify import Listener, Notification
    from tests.contract.conftest import Database, Inbox, ListenerFactory

OPEN_FILES = Path("/proc/self/fd")


@pytest.mark.needs_server("catalog")
async def test_r36_the_database_can_be_dropped_after_close(
    factory: ListenerFactory, database: Database
) -> None:
    """Once aclose() has returned no session is left to hinder DROP DATABASE."""
    name = await database.connection.fetchval("SELECT current_database() || '_dropped'")
    create = f"CREATE DATABASE {name} TEMPLATE template0"
    await database.connection.execute(create)
    base, _, _ = factory.dsn.rpartition("/")
    async with factory.listener(f"{base}/{name}") as listener:
        await listener.listen("orders", lambda _: None)
        await listener.notify("orders", "1")
    async with asyncio.timeout(scaled(1.0)):
        await database.connection.execute(f"DROP DATABASE {name}")


async def test_r37_one_backend_and_a_second_only_for_notify(
    listener: Listener, database: Database
) -> None:
    """However many channels and handlers, there is one session, and it holds no transaction."""
    for n in range(20):
        await listener.listen(f"channel {n % 10}", lambda _: None)
    async with listener.stream("events"):
        (backend,) = await database.backends()
        assert (backend["state"], backend["xact_start"], backend["backend_xmin"]) == (
            "idle",
            None,
            None,
        )
        for _ in range(3):
            await asyncio.gather(*(listener.notify("events", str(n)) for n in range(10)))
        first, second = await database.until_backends(2)
        assert first["pid"] == backend["pid"]
        assert [b["state"] for b in (first, second)] == ["idle", "idle"]
        assert [b["backend_xmin"] for b in (first, second)] == [None, None]


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="counts open files in /proc")
async def test_r34_cycles_leave_nothing(
    factory: ListenerFactory, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """Fifty lives leave no file, no task, no thread and no session behind."""

    async def live() -> None:
        async with factory.listener() as listener:
            await listener.listen("orders", inbox)
            await listener.notify("orders", "1")
            await inbox.next()

    await live()
    await database.until_backends(0)
    base = footprint()
    for _ in range(50):
        await live()
    await database.until_backends(0)
    assert footprint() == base


def footprint() -> tuple[int, int, int]:
    """Return how many files are open, and how many tasks and threads there are."""
    return len(list(OPEN_FILES.iterdir())), len(asyncio.all_tasks()), threading.active_count()
