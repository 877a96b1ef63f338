"""Fifty tasks publish under faults: what was acknowledged has arrived, what failed raised."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    ChannelNameError,
    ConnectError,
    ConnectionLostError,
    Gap,
    Listener,
    Notification,
    Notifier,
    NotifyTimeoutError,
    PayloadTooLargeError,
)
from tests.faults.conftest import FENCE, SHORT_BACKOFF, WAIT_LIMIT
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.testing.server import PostgresServer
    from tests.faults.conftest import ProxiedDatabase

    Fault = Callable[[], Awaitable[object]]

PUBLISHERS = 50
PAUSE = 0.01
LIMIT = scaled(1.0)  # seconds for a call
WRONG: list[tuple[Any, Any, type[Exception]]] = [
    ("orders", "p" * 8_000, PayloadTooLargeError),
    ("", "p", ChannelNameError),
]


def now() -> dt.datetime:
    """Return the time in the form of `Gap.since`."""
    return dt.datetime.now(dt.UTC)


@dataclass
class PublishingRecord:
    """What was sent, the outcome of each call, what arrived, and when the listener was down."""

    acknowledged: dict[str, tuple[dt.datetime, dt.datetime]] = field(
        default_factory=dict[str, "tuple[dt.datetime, dt.datetime]"]
    )
    doubtful: set[str] = field(default_factory=set[str])
    refused: set[str] = field(default_factory=set[str])
    arrived: list[str] = field(default_factory=list[str])
    gaps: list[tuple[dt.datetime, dt.datetime]] = field(
        default_factory=list["tuple[dt.datetime, dt.datetime]"]
    )
    stopped: bool = False

    @property
    def failures(self) -> int:
        """How many calls have failed because the connection did."""
        return len(self.doubtful) + len(self.refused)

    async def publish(self, notifier: Notifier, name: int) -> None:
        """Send one after another, some with wrong arguments, until stopped; record each outcome."""
        chance = random.Random(name)
        number = 0
        while not self.stopped:
            number += 1
            if chance.random() < 0.1:
                channel, payload, error = chance.choice(WRONG)
                with pytest.raises(error):
                    await notifier.notify(channel, payload)
            else:
                await self._send(notifier, f"{name} {number}")

    async def _send(self, notifier: Notifier, payload: str) -> None:
        began = now()
        try:
            await notifier.notify("orders", payload)
        except ConnectionLostError:
            self.doubtful.add(payload)
            await asyncio.sleep(PAUSE)
        except (ConnectError, NotifyTimeoutError):
            self.refused.add(payload)
            await asyncio.sleep(PAUSE)
        else:
            self.acknowledged[payload] = (began, now())

    def note(self, item: Notification[str] | Gap) -> None:
        """Record what the listener receives."""
        if isinstance(item, Notification):
            self.arrived.append(item.payload)
        elif item.since is not None:
            self.gaps.append((item.since, now()))

    def fell_into_a_gap(self, payload: str) -> bool:
        """Return whether it was sent while the listener may not have listened."""
        began, ended = self.acknowledged[payload]
        return any(began <= end and since <= ended for since, end in self.gaps)

    def check(self) -> None:
        """
        Check that nothing acknowledged is lost, nothing refused arrived, nothing came twice.

        What was acknowledged comes before all that its task has sent later. One in doubt may be
        late: its session may still commit it when the next call has another one.
        """
        arrived = set(self.arrived)
        assert len(arrived) == len(self.arrived)
        lost = [p for p in self.acknowledged if p not in arrived and not self.fell_into_a_gap(p)]
        assert lost == []
        assert not arrived & self.refused
        assert arrived <= self.acknowledged.keys() | self.doubtful
        newest: dict[str, int] = {}
        for payload in self.arrived:
            name, number = payload.split()
            assert newest.get(name, 0) < int(number) or payload in self.doubtful
            newest[name] = max(newest.get(name, 0), int(number))


async def publish_under(
    database: ProxiedDatabase, notifier: Notifier, faults: list[Fault], *, rest: float
) -> PublishingRecord:
    """Let fifty tasks publish through one notifier while one fault after another is injected."""
    record = PublishingRecord()
    async with Listener(
        database.dsn, backoff=SHORT_BACKOFF, heartbeat=0.1, heartbeat_timeout=scaled(5.0)
    ) as listener:
        stream = listener.stream("orders", FENCE, gaps=True, buffer=1_000_000)
        async with stream, notifier:
            publishers = [
                asyncio.create_task(record.publish(notifier, name)) for name in range(PUBLISHERS)
            ]
            for fault in faults:
                between = len(record.acknowledged) + PUBLISHERS
                async with asyncio.timeout(WAIT_LIMIT):
                    while len(record.acknowledged) < between:
                        await asyncio.wait(publishers, timeout=rest)
                failures, enough = record.failures, len(record.acknowledged) + 10 * PUBLISHERS
                await fault()
                async with asyncio.timeout(WAIT_LIMIT):
                    # Where nothing was in flight no call fails: it goes out on a new connection
                    while record.failures == failures and len(record.acknowledged) < enough:  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(PAUSE)
                    acknowledged = len(record.acknowledged)
                    while len(record.acknowledged) == acknowledged:  # noqa: ASYNC110 - as above
                        await asyncio.sleep(PAUSE)
            record.stopped = True
            await asyncio.gather(*publishers)
            await listener.wait_connected()
            await notifier.notify(FENCE, retry=True)
            async with asyncio.timeout(WAIT_LIMIT):
                async for item in stream:
                    if isinstance(item, Notification) and item.channel == FENCE:
                        break
                    record.note(item)
    return record


async def test_r17_nothing_acknowledged_is_lost_on_a_bad_network(database: ProxiedDatabase) -> None:
    """The listener stays connected: every call that succeeded has arrived, once, in order."""
    proxy = database.proxy

    async def reset() -> None:
        proxy.reset()

    async def fin() -> None:
        proxy.fin()

    async def reset_in_flight() -> None:
        proxy.cut_after(random.randrange(2_000), "to_server")

    async def answer_lost() -> None:
        proxy.cut_after(random.randrange(200), "to_client")

    async def forgotten() -> None:
        proxy.pause()

    async def refused() -> None:
        proxy.refuse()
        proxy.reset()
        await asyncio.sleep(3 * PAUSE)
        proxy.accept()

    async def terminated() -> None:
        async with ServerFaults(database.dsn) as server_faults:
            *_, pid = await server_faults.sessions(database=database.dsn.rpartition("/")[2])
            await server_faults.terminate(pid)

    kinds = [reset, fin, reset_in_flight, answer_lost, refused, terminated]
    faults: list[Fault] = [*kinds * 5, forgotten]
    notifier = Notifier(
        database.proxied_dsn, operation_timeout=scaled(0.3), connect_timeout=scaled(1.0)
    )
    record = await publish_under(database, notifier, faults, rest=0.02)
    assert record.gaps == []
    record.check()
    assert len(record.acknowledged) > 1_000
    assert record.doubtful
    assert record.refused


async def test_r17_nothing_acknowledged_is_lost_when_the_server_is_killed(
    own_database: ProxiedDatabase, battered_server: PostgresServer
) -> None:
    """Backends and postmaster die by kill -9: what succeeded has arrived, or fell in a gap."""

    async def backend_killed() -> None:
        pids = await own_database.backends()
        battered_server.kill_backend(pids[-1])

    async def server_killed() -> None:
        await asyncio.to_thread(battered_server.kill)
        await asyncio.sleep(1.5 * LIMIT)  # a call has exceeded its deadline, and is refused
        await asyncio.to_thread(battered_server.start)

    async def restarted() -> None:
        await asyncio.to_thread(battered_server.restart, "immediate")

    own_database.proxy.delay(to_client=0.02)  # something is in flight whenever a fault strikes
    faults: list[Fault] = [backend_killed, server_killed, backend_killed, restarted, backend_killed]
    notifier = Notifier(own_database.proxied_dsn, operation_timeout=LIMIT, connect_timeout=LIMIT)
    record = await publish_under(own_database, notifier, faults, rest=0.5)
    record.check()
    assert len(record.gaps) >= len(faults)
    received = record.acknowledged.keys() & set(record.arrived)
    assert len(received) > len(record.acknowledged) * 0.9
    assert record.doubtful
    assert record.refused
