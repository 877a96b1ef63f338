from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify._run.report import health_of
from tests.unit.lifetime_harness import HEARTBEAT_TIMEOUT, LifetimeHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVER_KEYS = {"queue_usage", "queue_holders", "server_error"}


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[LifetimeHarness]:
    """A run that has started."""
    made = LifetimeHarness()
    await made.start()
    yield made
    await made.lifetime.end(drain=False, timeout=0)


async def test_r41_the_local_part_asks_nobody(harness: LifetimeHarness) -> None:
    """It is what stats() and the connection say, in values that JSON can hold."""
    harness.send("a secret payload")
    await asyncio.sleep(1)
    asked = list(harness.server.asked)
    report = await health_of(harness.lifetime, server=False)
    assert harness.server.asked == asked
    assert SERVER_KEYS.isdisjoint(report)
    assert report["state"] == "connected"
    assert report["backend_pid"] == harness.server.session.pid
    assert (report["received"], report["delivered"]) == (1, 1)
    assert report["last_contact_age"] == pytest.approx(1)
    assert "secret" not in json.dumps(report, allow_nan=False)


async def test_r41_the_server_is_asked_how_full_its_queue_is(harness: LifetimeHarness) -> None:
    """Of a queue that is all but empty nobody has to be named."""
    report = await health_of(harness.lifetime, server=True)
    assert (report["queue_usage"], report["queue_holders"]) == (0.0, [])
    assert report["server_error"] is None
    assert "holders" not in [command for _, command in harness.server.asked]


async def test_r41_a_queue_that_fills_is_reported_with_its_holders(
    harness: LifetimeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one hundredth on."""
    holder: dict[str, object] = {"pid": 7, "state": "idle in transaction"}

    async def queue_usage(*, timeout: float) -> float:
        return 0.01

    async def queue_holders(*, timeout: float) -> list[dict[str, object]]:
        return [holder]

    session = harness.server.session
    monkeypatch.setattr(session, "queue_usage", queue_usage)
    monkeypatch.setattr(session, "queue_holders", queue_holders)
    report = await health_of(harness.lifetime, server=True)
    assert (report["queue_usage"], report["queue_holders"]) == (0.01, [holder])


async def test_r41_a_server_that_does_not_answer_is_an_entry_of_the_report(
    harness: LifetimeHarness,
) -> None:
    """health_of() raises nothing, and returns when the heartbeat's timeout is over."""
    harness.server.silent = True
    began = harness.now
    report = await health_of(harness.lifetime, server=True)
    assert report["server_error"] is not None
    assert report["queue_usage"] is None
    assert harness.now - began == pytest.approx(HEARTBEAT_TIMEOUT, abs=0.2)


async def test_r41_an_outage_is_reported_with_its_cause(harness: LifetimeHarness) -> None:
    """In both parts of the report."""
    harness.server.refusal = ConnectionRefusedError("no server")
    harness.server.session.die()
    await asyncio.sleep(1)
    report = await health_of(harness.lifetime, server=True)
    assert report["state"] == "reconnecting"
    assert "no server" in report["last_error"]
    assert "no connection" in report["server_error"]
