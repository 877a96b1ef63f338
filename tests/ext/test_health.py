"""Answers to health checks: of listeners on the server in memory, of logs on a real one."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Final

from asyncnotify import Listener, State
from asyncnotify.ext._health import _MEANINGS, health_of
from asyncnotify.log import Log
from asyncnotify.testing.fake import FakeServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON: Final = scaled(10.0)


def quick() -> Iterator[float]:
    """Return the delays between attempts to connect."""
    return itertools.repeat(0.01)


async def test_a_listener_is_healthy_while_it_delivers() -> None:
    """It is not before the start, during an outage and after the end; the answer says why."""
    fake = FakeServer()
    listener = Listener(fake.dsn, backoff=quick)
    status, body = await health_of(listener)
    assert (status, body["state"]) == (503, "new")
    async with asyncio.timeout(SOON), listener, listener.stream("orders"):
        status, body = await health_of(listener)
        assert (status, body["status"], body["subscriptions"]) == (200, "ok", 1)
        fake.refuse()
        fake.lose()
        while listener.is_connected:  # noqa: ASYNC110 - no event tells when it ends
            await asyncio.sleep(0)
        status, body = await health_of(listener)
        assert (status, body["state"], body["status"]) == (503, "reconnecting", "unavailable")
        assert "notifications are being missed" in body["meaning"]
        assert "last_error" in body
        fake.reconnect()
        await listener.wait_connected()
        status, body = await health_of(listener)
        assert (status, body["reconnects"]) == (200, 1)
        json.dumps(body)
    status, body = await health_of(listener)
    assert (status, body["state"], body["last_error"]) == (503, "closed", None)


async def test_the_age_of_the_last_contact_is_in_whole_milliseconds() -> None:
    """The answer is read by people: it shows no digits that nobody measured."""
    fake = FakeServer()
    async with asyncio.timeout(SOON), Listener(fake.dsn) as listener:
        for _ in range(10):
            await asyncio.sleep(0)
            _, body = await health_of(listener)
            assert body["last_contact_age"] == round(body["last_contact_age"], 3)


def test_every_state_has_its_meaning() -> None:
    """None is without words for who has to act."""
    assert _MEANINGS.keys() == set(State)


async def test_a_log_is_healthy_while_it_answers(dsn: str) -> None:
    """The answer has its consumers, and no secret."""
    async with Log("web", dsn) as log:
        status, body = await health_of(log)
        assert status == 503
        assert body["last_error"].startswith("NotInstalledError")
        await log.install()
        await log.append("orders", "1")
        async with log.consumer("mailer", "orders") as consumer:
            await anext(aiter(consumer))
            status, body = await health_of(log)
        assert (status, body["status"], body["events"]) == (200, "ok", 1)
        assert body["consumers"]["mailer:0"]["lag_events"] == 1
        json.dumps(body)
