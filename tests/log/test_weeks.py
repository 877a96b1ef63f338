"""Weeks of retention in fast forward: what is kept, and what is told of what is not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import Gap, GapReason
from asyncnotify.log import Event, Log
from asyncnotify.log._settings import Settings
from tests.log.conftest import append, take_tick

if TYPE_CHECKING:
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("SQL")

RETENTION: Final = timedelta(days=7)
STEP: Final = timedelta(hours=7)
EACH: Final = 5
OLDER: Final = """
    UPDATE asyncnotify.orders_events SET appended_at = appended_at - $1::interval,
        slot = extract(epoch FROM appended_at - $1::interval)::bigint / $2 % 8
"""
OLDER_TICKS: Final = "UPDATE asyncnotify.orders_ticks SET taken_at = taken_at - $1::interval"


class Weeks:
    """A log to which some events are appended every few hours, and whose old ones are removed."""

    def __init__(self, log: Log, admin: Connection, settings: Settings) -> None:
        self._log = log
        self._admin = admin
        self._longest = settings.limit or settings.retention
        self._slot = settings.slot_seconds
        self.steps = 0

    async def pass_step(self) -> None:
        """Append; grow older, each event in the partition of its time; remove what is old."""
        await append(self._admin, *(f"{self.steps}/{n}" for n in range(EACH)))
        await take_tick(self._admin)
        self.steps += 1
        await self._admin.execute(OLDER, STEP, self._slot)
        await self._admin.execute(OLDER_TICKS, STEP)
        while await self._log.expire():
            pass

    async def check(self) -> None:
        """Nothing that is younger than the retention was removed; little that is older was not."""
        query = (
            "SELECT clock_timestamp() - min(appended_at) AS oldest,"
            " count(*) FILTER (WHERE clock_timestamp() - appended_at < $1) AS young"
            " FROM asyncnotify.orders_events"
        )
        row = await self._admin.fetchrow(query, RETENTION)
        assert row is not None
        # What was appended 24 steps ago is older than 7 days by the time that the test has taken
        assert row["young"] == min(self.steps, RETENTION // STEP - 1) * EACH
        at_most = self._longest + timedelta(seconds=self._slot) + 2 * STEP
        assert row["oldest"] <= at_most
        ticks = await self._admin.fetchval("SELECT count(*) FROM asyncnotify.orders_ticks")
        assert ticks <= at_most / STEP + 1


@pytest.mark.parametrize("limit", [None, 9, 14, 30])
async def test_weeks_of_retention(dsn: str, admin: Connection, limit: int | None) -> None:
    """
    One consumer takes all; a second comes back after weeks, if there is a limit.

    That limit holds, and the Gap has the number of those that were removed.
    """
    settings = Settings(RETENTION, timedelta(days=limit) if limit else None)
    taken: list[str] = []
    async with Log("orders", dsn, poll=3600) as log:
        await log.install(retention=settings.retention, limit=settings.limit)
        weeks = Weeks(log, admin, settings)
        if limit:
            async with log.consumer("absent"):
                pass
        async with log.consumer("steady") as steady:
            while weeks.steps * STEP < 2 * (settings.limit or RETENTION) + RETENTION:
                await weeks.pass_step()
                await weeks.check()
                taken += [(await anext(steady)).payload for _ in range(EACH)]
        every = [f"{step}/{n}" for step in range(weeks.steps) for n in range(EACH)]
        assert taken == every
        async with log.read(after="start") as stream:
            kept = [event.payload async for event in stream.until_end()]
        assert kept == every[-len(kept) :]
        if limit:
            async with log.consumer("absent", gaps=True) as absent:
                back: list[Any] = [await anext(absent) for _ in range(len(kept) + 1)]
            gap = back.pop(0)
            assert isinstance(gap, Gap)
            assert (gap.reason, gap.dropped) == (GapReason.EXPIRED, len(every) - len(kept))
            assert [event.payload for event in back if isinstance(event, Event)] == kept
