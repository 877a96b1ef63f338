"""What is committed arrives: all of it, once, in order, and every place of doubt has its Gap."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count, cycle, islice, repeat
from typing import TYPE_CHECKING

import pytest

from asyncnotify import Gap, GapReason, Notification
from asyncnotify.testing.faults import block_loop
from asyncnotify.testing.history import History

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from asyncnotify import Listener
    from tests.contract.conftest import Database, Inbox, ListenerFactory

AT_ONCE = partial(repeat, 0.0)
SMALLEST = ["", *map(chr, range(1, 127))]
"""The shortest payloads that one transaction delivers side by side, in the server's order."""


class Expecting:
    """A handler that checks what it gets against what has to come; the first mistake ends it."""

    def __init__(self, payloads: Iterable[str]) -> None:
        self._payloads = iter(payloads)
        self._next = next(self._payloads, None)
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, notification: Notification[str]) -> None:
        """Compare."""
        if notification.payload != self._next:
            self._end(AssertionError(f"{notification.payload!r} in place of {self._next!r}"))
        self._next = next(self._payloads, None)
        if self._next is None:
            self._end()

    def _end(self, mistake: AssertionError | None = None) -> None:
        if self._outcome.done():
            return
        if mistake is None:
            self._outcome.set_result(None)
        else:
            self._outcome.set_exception(mistake)

    async def complete(self) -> None:
        """Return once everything has come as it should."""
        await self._outcome


@pytest.mark.load
async def test_r16_a_million_on_one_channel(slow_listener: Listener, database: Database) -> None:
    """None of a million is lost, doubled or out of order, for a handler and for a stream."""
    listener = slow_listener
    handler = Expecting(map(str, range(1, database.load + 1)))
    await listener.listen("numbers", handler)
    async with listener.stream("numbers", gaps=True) as stream:
        assert isinstance(await anext(stream), Gap)
        sending = asyncio.create_task(database.flood("numbers", database.load))
        for number in range(1, database.load + 1):
            item = await anext(stream)
            assert isinstance(item, Notification)
            assert item.payload == str(number)
        await handler.complete()
        await sending
    await database.fence(listener)
    assert (listener.stats().received, listener.stats().dropped) == (database.load + 1, 0)


@pytest.mark.load
async def test_r16_a_million_on_a_hundred_channels(
    slow_listener: Listener, database: Database
) -> None:
    """Each of a hundred handlers gets exactly its share of a million, in order."""
    listener = slow_listener
    handlers = [Expecting(map(str, range(n, database.load, 100))) for n in range(100)]
    for n, handler in enumerate(handlers):
        await listener.listen(f"channel {n}", handler)
    await database.flood_in_turn([f"channel {n}" for n in range(100)], database.load)
    for handler in handlers:
        await handler.complete()
    await database.fence(listener)
    assert (listener.stats().received, listener.stats().dropped) == (database.load + 1, 0)


@pytest.mark.load
@pytest.mark.parametrize("blocked", [0.0, 0.3])
async def test_r16_a_burst_of_the_smallest_overflows_nobody_who_keeps_up(
    listener: Listener, database: Database, inbox: Inbox[Notification[str]], blocked: float
) -> None:
    """However many come at once, also after the loop was blocked, the default buffer suffices."""
    rounds = database.load // len(SMALLEST)
    handler = Expecting(islice(cycle(SMALLEST), rounds * len(SMALLEST)))
    await listener.listen("c", handler)
    await listener.listen("begun", inbox)
    async with listener.stream("c") as stream:
        sending = asyncio.create_task(database.burst("c", SMALLEST, rounds))
        await inbox.next()
        block_loop(blocked)
        for payload in islice(cycle(SMALLEST), rounds * len(SMALLEST)):
            assert (await anext(stream)).payload == payload
        await handler.complete()
        await sending
    assert listener.stats().dropped == 0


async def test_r18_one_gap_per_generation(factory: ListenerFactory, database: Database) -> None:
    """Every connection begins with exactly one Gap in each subscription."""
    async with (
        database.traffic("numbers") as traffic,
        factory.listener(backoff=AT_ONCE) as listener,
        listener.stream("numbers", gaps=True) as one,
        listener.stream("numbers", "others", gaps=True) as several,
    ):
        for _ in range(10):
            await traffic.reaches(traffic.last + 10)
            await database.interrupt(listener)
        await database.fence(listener)
        await listener.aclose()
        for stream, label in ((one, "numbers"), (several, None)):
            gaps = [item async for item in stream if isinstance(item, Gap)]
            assert {gap.channel for gap in gaps} == {label}
            assert [gap.reason for gap in gaps] == [
                GapReason.START,
                *[GapReason.RECONNECT] * 10,
            ]


async def test_r18_a_gap_comes_after_listen_and_before_what_follows(
    factory: ListenerFactory, database: Database, new_inbox: type[Inbox[int | str]]
) -> None:
    """State read on seeing a Gap, and the notifications after it, leave out nothing."""
    seen = new_inbox()

    async def read_state(_: Gap) -> None:
        seen(await traffic.read_state())

    async with (
        database.traffic("numbers") as traffic,
        factory.listener(backoff=AT_ONCE) as listener,
    ):
        await listener.listen("numbers", lambda n: seen(n.payload), resync=read_state)
        state = await seen.next()
        for _ in range(10):
            first = int(await seen.next())
            assert isinstance(state, int)
            assert first <= state + 1
            following = count(first + 1)
            for _ in range(20):
                assert await seen.next() == str(next(following))
            await database.interrupt(listener)
            while isinstance(state := await seen.next(), str):
                assert state == str(next(following))


async def test_every_number_missing_is_inside_a_gap_and_later_than_its_since(
    factory: ListenerFactory, database: Database
) -> None:
    """Whatever is published while connections come and go arrives, or a Gap stands there."""
    history, last = History(), 0
    since: datetime | None = None  # of the earliest Gap after the last number
    async with (
        database.traffic("numbers") as traffic,
        factory.listener(backoff=AT_ONCE) as listener,
        listener.stream("numbers", *map(str, range(20)), gaps=True) as stream,
    ):
        for _ in range(15):
            await traffic.reaches(traffic.last + 10)
            await database.interrupt(listener)
        await traffic.reaches(traffic.last + 10)
        committed = traffic.last
        await database.fence(listener)
        await listener.aclose()
        async for item in stream:
            if isinstance(item, Gap):
                history.gap("stream")
                since = min(filter(None, (since, item.since)), default=None)
            else:
                number = int(item.payload)
                missing = range(last + 1, number)
                assert since is None or all(since <= traffic.times[n] for n in missing)
                last, since = number, None
                history.saw("stream", number)
    history.published(*range(1, committed + 1))
    history.in_doubt(*range(committed + 1, traffic.last + 1))
    verdict = history.verdict("stream")
    assert verdict.holds, verdict
    assert verdict.received > 16
    assert verdict.gaps == 16


async def test_r19_what_is_sent_after_listen_returned_arrives(
    listener: Listener, database: Database, inbox: Inbox[Notification[str]]
) -> None:
    """In 500 trials, a notification that is committed once listen() has returned is received."""
    for n in range(500):
        await listener.listen(f"channel {n}", inbox)
        await database.notify(f"channel {n}", str(n))
        assert await inbox.payloads(1) == [str(n)]


async def test_r19_a_fresh_connection_misses_nothing_after_listen(
    factory: ListenerFactory, database: Database
) -> None:
    """Amid traffic, 40 fresh connections receive all from what followed listen() on."""
    async with database.traffic("numbers") as traffic:
        for _ in range(40):
            async with factory.listener() as listener, listener.stream("numbers") as stream:
                under_way = traffic.last + 1
                first = int((await anext(stream)).payload)
                assert first <= under_way + 1
                for number in range(first + 1, first + 20):
                    assert int((await anext(stream)).payload) == number
