"""Consumers that are split into buckets: processes share them, and each key keeps its order."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
import pytest_asyncio

from asyncnotify import ExponentialBackoff
from asyncnotify.log import (
    BucketCountError,
    Event,
    HandlerEnded,
    Log,
    Retry,
    UnknownConsumerError,
)
from asyncnotify.log._consuming.sharing import Sharing, View
from asyncnotify.log._reporting import Reporter
from asyncnotify.log._walk.buckets import bucket_number
from asyncnotify.testing._fake import log_order
from tests.log.conftest import KILL, NAMES, kill_sessions
from tests.log.test_consumers import AT_ONCE, Seen, until
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log import Consumer
    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSession
    from tests.log.conftest import Connection

BUCKETS: Final = 8
KEYS: Final = 20
PROCESS: Final = f"""
import asyncio, sys
from asyncnotify.log import Log

name = sys.argv[2]
log = Log("orders", sys.argv[1], poll=1.0, server_settings={{"application_name": name}})

@log.on("projection", transactional=True, buckets={BUCKETS})
async def project(event, connection):
    await connection.execute("INSERT INTO effects (key, payload) VALUES ($1, $2)", event.key,
        event.payload)

async def main() -> None:
    async with log:
        await asyncio.Event().wait()

asyncio.run(main())
"""
SHARES: Final = """
    SELECT a.application_name, count(*) FROM asyncnotify.orders_consumers AS c
    JOIN pg_stat_activity AS a ON a.pid = c.pid AND a.backend_start <= c.taken_at
    GROUP BY 1
"""
EFFECTS: Final = """
    CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, key text, payload text)
"""


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed; its consumers look only when they are woken."""
    async with Log("orders", dsn, poll=3600) as log:
        yield log


class Processes:
    """Processes that serve one transactional handler together, each with a name."""

    def __init__(self, dsn: str, admin: Connection) -> None:
        self._dsn = dsn
        self._admin = admin
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._count = 0

    async def start(self) -> str:
        """Start one more; return its name."""
        self._count += 1
        name = f"process {self._count}"
        self._running[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, self._dsn, name, env={**os.environ}
        )
        return name

    async def kill(self, name: str) -> None:
        """Kill one by SIGKILL, and return once the system has buried it."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    async def kill_all(self) -> None:
        """Leave none behind."""
        for name in [*self._running]:
            await self.kill(name)

    async def shares(self) -> dict[str, int]:
        """Return how many buckets each process serves, as the server knows."""
        found = dict(map(tuple, await self._admin.fetch(SHARES)))
        return {name: found.get(name, 0) for name in self._running}

    async def are_fair(self) -> bool:
        """Return whether all buckets are served, and no share is larger than another by two."""
        shares = (await self.shares()).values()
        return sum(shares) == BUCKETS and max(shares) - min(shares) <= 1


@pytest_asyncio.fixture
async def processes(dsn: str, installed: Names, admin: Connection) -> AsyncIterator[Processes]:
    """No processes at first; none is left in the end."""
    await admin.execute(EFFECTS)
    processes = Processes(dsn, admin)
    yield processes
    await processes.kill_all()
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'process %'"
    await until(lambda: _is(admin, left, 0))


async def _is(admin: Connection, query: str, value: object) -> bool:
    return bool(await admin.fetchval(query) == value)


async def is_effect(admin: Connection, count: int) -> bool:
    """Return whether so many events have had their effects."""
    return int(await admin.fetchval("SELECT count(*) FROM effects")) >= count


def judge(sent: list[tuple[str | None, str]], found: list[tuple[str | None, str]]) -> None:
    """Check effects: 0 missing, 0 doubled, and each key's in the order of its appends."""
    assert Counter(found) == Counter(sent)
    by_key: dict[str, list[str]] = defaultdict(list)
    for key, payload in found:
        if key is not None:
            by_key[key].append(payload)
    for key, payloads in by_key.items():
        assert payloads == [payload for sent_key, payload in sent if sent_key == key]


@pytest.mark.needs_server("processes that are killed")
@pytest.mark.parametrize(
    "kills", [2, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
async def test_processes_that_are_killed_and_replaced_do_each_event_once(
    log: Log, admin: Connection, processes: Processes, kills: int
) -> None:
    """By kill -9 and by sessions that die: 0 missing, 0 doubled, every key in its order."""
    sent: list[tuple[str | None, str]] = []
    running = [await processes.start() for _ in range(3)]

    async def append_some() -> None:
        events = [(f"k{n % KEYS}" if n % 7 else None, f"{len(sent) + n}") for n in range(100)]
        sent.extend(events)
        for key, payload in events:
            await log.append("things", payload, key=key)

    for _ in range(kills):
        await append_some()
        await until(lambda: is_effect(admin, len(sent) - 50))
        await processes.kill(running.pop(0))
        running.append(await processes.start())
        await append_some()
        await admin.execute(KILL.replace("= 'asyncnotify'", f"= '{running[0]}'"))
    await until(lambda: is_effect(admin, len(sent)))
    rows = await admin.fetch("SELECT key, payload FROM effects ORDER BY n")
    judge(sent, [(row["key"], row["payload"]) for row in rows])


@pytest.mark.needs_server("processes that are killed")
async def test_shares_are_fair_and_taken_over_within_a_second_of_kill_9(
    log: Log, admin: Connection, processes: Processes
) -> None:
    """As processes come and die: all buckets are served, and no process has two more than one."""
    first = await processes.start()
    await until(processes.are_fair)
    for _ in range(2):
        await processes.start()
    await until(processes.are_fair)
    assert sorted((await processes.shares()).values()) == [2, 3, 3]
    await processes.kill(first)
    killed = time.monotonic()
    for n in range(KEYS):
        await log.append("things", "x", key=f"k{n}")
    await until(lambda: is_effect(admin, KEYS))
    assert time.monotonic() - killed < scaled(1.0)
    await until(processes.are_fair)


@pytest.mark.parametrize("count", [1, 2, 7, 16, 256])
@pytest.mark.parametrize("members", [1, 2, 3, 16, 300])
def test_shares_add_up_to_all_buckets(count: int, members: int) -> None:
    """Whatever the numbers; nobody has two more than another; paused, nobody has any."""
    views = [View(members, rank, frozenset(), is_paused=False) for rank in range(members)]
    shares = [view.share(count) for view in views]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1
    assert views[0]._replace(is_paused=True).share(count) == 0


class _StoppedMeanwhile(Sharing):
    """One that is stopped at the moment when it looks for free buckets."""

    async def _look(self, session: LogSession) -> View:
        view = await super()._look(session)
        self.stop()
        return view


async def test_one_who_stops_while_it_looks_begins_nothing(log: Log) -> None:
    """Nobody would tell what begins then to end, and the end would never come."""
    async with log.consumer("mailer", buckets=2):
        pass
    options = log._options  # noqa: SLF001
    begun: list[int] = []

    def begin(number: int) -> Any:
        begun.append(number)
        raise AssertionError

    reports = Reporter("orders", "db", None).of_consumer("mailer")
    sharing = _StoppedMeanwhile(
        options.sessions,
        NAMES,
        "mailer",
        count=2,
        begin=begin,
        backoff=AT_ONCE,
        reports=reports,
    )
    async with asyncio.timeout(scaled(20)):
        await sharing.run()
    assert begun == []


async def test_an_interrupt_between_two_calls_counts(log: Log) -> None:
    """A handler that is stopped when it waits for nothing does not begin to wait."""
    runtime = log._running()  # noqa: SLF001
    feed = runtime._feeds("mailer", (), "start", 2)(0)  # noqa: SLF001
    feed.interrupt()
    async with asyncio.timeout(scaled(20)):
        assert await feed.next() == ()
    await feed.aclose()


# -- iterating ------------------------------------------------------------------------------------


async def consumed(consumer: Consumer[Any], count: int) -> list[Event[str]]:
    """Return the next so many events; they have to come soon."""
    async with asyncio.timeout(scaled(20)):
        return [await anext(consumer) for _ in range(count)]


def bucket_of(text: str, count: int = BUCKETS) -> int:
    """Return the bucket of a key, or of the id of an event that has none."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % count


async def test_a_key_belongs_to_the_same_bucket_for_ever(log: Log, admin: Connection) -> None:
    """By a hash that no version of the server changes; without a key the id of the event counts."""
    keys = [f"k{n}" for n in range(KEYS)] + ["", "é", "日本"]
    await log.append_many([("things", "x", key) for key in keys])
    await log.append_many([("things", "x") for _ in range(100)])
    async with log.consumer("mailer", buckets=BUCKETS) as consumer:
        events = [event async for events in _batches(consumer, 123) for event in events]
    found = {event.id: number for number, event in events}
    texts = {event.id: str(event.id) if event.key is None else event.key for _, event in events}
    assert {id_: bucket_of(text) for id_, text in texts.items()} == found
    assert {number for number, event in events if event.key is None} == {*range(BUCKETS)}


async def _batches(
    consumer: Consumer[Any], count: int
) -> AsyncIterator[list[tuple[int, Event[str]]]]:
    """Yield batches with the bucket that they came from, until there have been so many events."""
    feed: Any = consumer._feed  # noqa: SLF001 - a batch is of one bucket, and nobody is told which
    async for batch in consumer.batches():
        serving = feed._given.feed.serving  # noqa: SLF001
        yield [(serving._owner[1], event) for event in batch]  # noqa: SLF001
        count -= len(batch)
        if count == 0:
            return


async def test_one_who_iterates_gets_all_and_goes_on_where_it_left_off(
    log: Log, admin: Connection
) -> None:
    """Alone it serves every bucket; what was given last comes again, and nothing else."""
    await log.append_many([("things", str(n), f"k{n % KEYS}") for n in range(200)])
    async with log.consumer("mailer", buckets=BUCKETS) as consumer:
        first = await consumed(consumer, 120)
        assert consumer.is_serving
    async with log.consumer("mailer", buckets=BUCKETS) as consumer:
        second = await consumed(consumer, 81)
        assert first.pop() in second
    events = first + second
    judge([(f"k{n % KEYS}", str(n)) for n in range(200)], [(e.key, e.payload) for e in events])


async def test_two_who_iterate_share_and_the_rest_goes_to_the_one_who_stays(
    log: Log, dsn: str, admin: Connection
) -> None:
    """A bucket moves when the event that was given of it is done; nothing comes to both."""
    async with Log("orders", dsn, poll=3600) as other:
        leaving = other.consumer("mailer", buckets=2)
        async with log.consumer("mailer", buckets=2) as staying:
            await log.append_many([("things", str(n), f"k{n}") for n in range(KEYS)])
            [given] = await consumed(staying, 1)
            [event] = await consumed(leaving, 1)  # the bucket that is not being handled has moved
            assert bucket_of(str(event.key), 2) != bucket_of(str(given.key), 2)
            mine = [
                e for e in range(KEYS) if bucket_of(f"k{e}", 2) == bucket_of(given.key or "", 2)
            ]
            rest = await consumed(staying, len(mine) - 1)
            await leaving.aclose()
            rest += await consumed(staying, KEYS - len(mine))
    assert sorted(int(e.payload) for e in [given, *rest]) == [*range(KEYS)]


async def test_a_lost_session_costs_its_own_bucket_what_was_not_committed(
    log: Log, admin: Connection
) -> None:
    """After all sessions have been killed every event comes, those of each key in their order."""
    await log.append_many([("things", str(n), f"k{n % KEYS}") for n in range(300)])
    seen: dict[str | None, list[str]] = defaultdict(list)
    async with log.consumer("mailer", buckets=BUCKETS) as consumer:
        for n in range(300):
            [event] = await consumed(consumer, 1)
            seen[event.key].append(event.payload)
            if n in {50, 200}:
                await kill_sessions(admin)
            if sum(len(set(payloads)) for payloads in seen.values()) == 300:
                break
        while sum(len(set(payloads)) for payloads in seen.values()) < 300:
            [event] = await consumed(consumer, 1)
            seen[event.key].append(event.payload)
    for payloads in seen.values():
        assert sorted(set(payloads), key=int) == [*dict.fromkeys(payloads)]


# -- the number -----------------------------------------------------------------------------------


async def test_the_number_is_fixed_at_the_first_use(log: Log, dsn: str) -> None:
    """Another one is refused with the advice what to do, by handlers and iterators."""
    async with log.consumer("mailer", buckets=4):
        pass
    for wanted in (1, 5):
        with pytest.raises(BucketCountError, match=r"buckets=4.*drop\(\)") as caught:
            async with log.consumer("mailer", buckets=wanted):
                pass
        assert (caught.value.wanted, caught.value.present) == (wanted, 4)
    other = Log("orders", dsn)
    other.on("mailer", buckets=8)(print)
    with pytest.raises(BucketCountError):
        await other.start()
    await other.aclose()
    await log.drop("mailer")
    async with log.consumer("mailer", buckets=5):
        assert [status.buckets for status in (await log.status()).consumers] == [5] * 5


@pytest.mark.parametrize("is_handler", [False, True])
@pytest.mark.parametrize(("before", "now"), [(4, 1), (1, 4), (4, 2), (2, 4)])
async def test_one_who_serves_what_was_made_anew_with_another_number_ends(
    log: Log, dsn: str, before: int, now: int, *, is_handler: bool
) -> None:
    """It did not see that it was dropped; its buckets have other keys: events were lost."""
    old, seen = Log("orders", dsn, poll=3600), Seen()
    async with asyncio.timeout(scaled(20)), old:
        ending = asyncio.ensure_future(_ended(old, before, seen, is_handler=is_handler))
        await log.append_many([("things", f"{n}", f"k{n}") for n in range(KEYS)])
        await seen.until(KEYS)
        await log.drop("mailer")
        async with log.consumer("mailer", start="now", buckets=now):
            pass
        payloads = [f"later {n}" for n in range(KEYS)]
        await log.append_many([("things", payload, payload) for payload in payloads])
        assert isinstance(await ending, BucketCountError | UnknownConsumerError)
        async with log.consumer("mailer", buckets=now) as consumer:
            given = {(await anext(consumer)).payload for _ in payloads}
        assert given == {*payloads}


async def _ended(log: Log, buckets: int, seen: Seen, *, is_handler: bool) -> BaseException:
    """Serve a consumer; return what has ended that for all of its buckets."""
    if is_handler:

        @log.on("mailer", buckets=buckets)
        async def mail(event: Event[str]) -> None:
            seen.note(event.payload)

        async for incident in log.incidents():
            if isinstance(incident, HandlerEnded) and incident.bucket is None:
                return incident.cause
    async with log.consumer("mailer", buckets=buckets) as consumer:
        try:
            async for event in consumer:
                seen.note(event.payload)
        except (BucketCountError, UnknownConsumerError) as error:
            return error
    raise AssertionError


async def test_a_token_of_a_dropped_consumer_does_not_count_for_a_new_one(log: Log) -> None:
    """Of the same name, and with as many takings and seeks: it would move the cursor on."""
    await log.append_many([("things", f"{n}", "k") for n in range(3)])
    async with log.consumer("mailer") as consumer:
        assert (await anext(consumer)).payload == "0"
        assert (await anext(consumer)).payload == "1"
        await log.drop("mailer")
        async with log.consumer("mailer", start="now"):
            pass
        await log.seek("mailer", "start")  # the new one has had as many tokens as the old one
        assert [event.payload for event in await consumer.next_batch(9)] == ["0", "1", "2"]


async def test_a_handler_may_be_registered_once_the_log_runs(log: Log) -> None:
    """Its consumer is made then, with all of its buckets."""
    seen: asyncio.Queue[str] = asyncio.Queue()

    @log.on("mailer", buckets=4)
    async def handle(event: Event[str]) -> None:
        seen.put_nowait(event.payload)

    await log.append_many([("orders", "1", "ann"), ("orders", "2", "bob")])
    assert {await seen.get(), await seen.get()} == {"1", "2"}


async def test_of_two_numbers_at_once_one_wins_whole(log: Log) -> None:
    """Of many who make a consumer at the same moment, all who asked for the other are refused."""

    async def make(buckets: int) -> int | None:
        try:
            async with log.consumer("mailer", buckets=buckets):
                return buckets
        except BucketCountError:
            return None

    made = await asyncio.gather(*(make(n) for n in [3, 7] * 5))
    [count] = {buckets for buckets in made if buckets}
    statuses = (await log.status()).consumers
    assert [(s.bucket, s.buckets) for s in statuses] == [(n, count) for n in range(count)]


@pytest.mark.parametrize("buckets", [0, -1, 257, True, 2.0, "4", None])
def test_numbers_that_make_no_sense_are_refused(buckets: Any) -> None:
    """When they are given."""
    log = Log("orders")
    with pytest.raises((TypeError, ValueError), match="buckets"):
        log.on("mailer", buckets=buckets)


# -- operating ------------------------------------------------------------------------------------


async def test_seek_pause_and_drop_mean_all_buckets(log: Log, dsn: str, admin: Connection) -> None:
    """Each of them, of one who serves; the status tells of each bucket, the sum of dead letters."""
    seen = Seen(fail={"bad": 2})
    served = Log("orders", dsn, poll=3600)

    @served.on("mailer", buckets=4, on_error=Retry(1, backoff=AT_ONCE))
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)

    events = [("things", str(n), f"k{n}") for n in range(KEYS)]
    async with served:
        await log.append_many([*events, ("things", "bad", "b")])
        await seen.until(KEYS + 1)
        await until(lambda: _are_letters(log, 1))
        await log.seek("mailer", "start")
        await seen.until(2 * (KEYS + 1))
        statuses = (await log.status()).consumers
        assert [status.bucket for status in statuses] == [0, 1, 2, 3]
        assert [s.dead_letters for s in statuses] == [n == bucket_of("b", 4) for n in range(4)]
        await log.pause("mailer")
        await until(lambda: _are_served(log, 0))
        await log.append("things", "later", key="k")
        await log.resume("mailer")
        await seen.until_noted("later")  # what was in a handler may come again
        await until(lambda: _are_served(log, 4))
        await log.drop("mailer")
        assert (await log.status()).consumers == ()
        assert await log.dead_letters() == []
    assert Counter(seen.payloads)["0"] >= 2


async def _are_letters(log: Log, count: int) -> bool:
    return len(await log.dead_letters("mailer")) == count


async def _are_served(log: Log, count: int) -> bool:
    return sum(status.is_served for status in (await log.status()).consumers) == count


async def test_one_who_iterates_a_dropped_consumer_is_told(log: Log) -> None:
    """It does not wait for buckets for ever."""
    async with log.consumer("mailer", buckets=3) as consumer:
        await log.append("things", "x", key="k")
        await consumed(consumer, 1)
        await log.drop("mailer")
        with pytest.raises(UnknownConsumerError):
            await consumed(consumer, 5)


async def test_what_was_read_ahead_is_not_given_after_a_seek(log: Log, admin: Connection) -> None:
    """Once it has returned, no event of a bucket that was not being handled comes any more."""
    await log.append_many([("things", f"{n}", f"k{n}") for n in range(KEYS)])
    async with log.consumer("mailer", buckets=4) as consumer:
        await consumed(consumer, 1)
        feed: Any = consumer._feed  # noqa: SLF001 - read ahead means: found, and not yet given
        await until(lambda: _are_found(log, feed, 3))
        items: Any = consumer._items  # noqa: SLF001
        mine = {event.payload for event in items}
        await log.seek("mailer", "now")
        await log.append("things", "new", key="k0")
        while (payload := (await consumed(consumer, 1))[0].payload) != "new":
            assert payload in mine  # of the bucket that was being handled


async def _are_found(log: Log, feed: Any, count: int) -> bool:
    await log.status()
    return len(feed._found) == count  # noqa: SLF001


@pytest.mark.needs_server("SQL")
async def test_the_slowest_bucket_holds_up_retention(log: Log, admin: Connection) -> None:
    """What one bucket has not consumed is kept, however far the others are."""
    await log.append_many([("things", str(n), f"k{n}") for n in range(KEYS)])
    async with log.consumer("mailer", buckets=4) as consumer:
        await consumed(consumer, KEYS - 1)
    up_to = "SELECT asyncnotify.orders_consumed_up_to()"
    assert await admin.fetchval(up_to) == 0
    assert any(status.holds_retention for status in (await log.status()).consumers)


async def test_a_bucket_that_is_to_stop_leaves_the_others(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """Retry(then="stop") stops the bucket of the event, before it; the next start tries again."""
    log = Log("orders", dsn, poll=3600, backoff=ExponentialBackoff(initial=0.01, cap=0.01))
    seen = Seen(fail={"bad": 1})

    @log.on("mailer", buckets=4, on_error=Retry(1, then="stop", backoff=AT_ONCE))
    async def mail(event: Event[str]) -> None:
        seen.note(event.payload)

    keys = [f"k{n}" for n in range(KEYS)]
    behind = [key for key in keys if bucket_of(key, 4) == bucket_of("b", 4)]
    async with log:
        await log.append("things", "bad", key="b")
        await seen.until(1)
        await log.append_many([("things", key, key) for key in keys])
        found = await seen.until(1 + KEYS - len(behind))
        assert sorted(found[1:]) == sorted({*keys} - {*behind})
    async with log:
        found = await seen.until(2 + KEYS)
        assert found[-1 - len(behind) :] == ["bad", *behind]


async def test_handlers_of_different_buckets_run_at_the_same_time(log: Log, dsn: str) -> None:
    """In one process, too; those of one bucket one after the other."""
    served = Log("orders", dsn, poll=3600)
    inside, most = Counter[int](), Counter[int]()
    together = asyncio.Barrier(2)

    @served.on("mailer", buckets=2)
    async def mail(event: Event[str]) -> None:
        number = bucket_of(event.key or "", 2)
        inside[number] += 1
        most[number] = max(most[number], inside[number])
        await together.wait()
        inside[number] -= 1
        if event.payload == "last":
            done.release()

    done = asyncio.Semaphore(0)
    pair = {bucket_of(key, 2): key for key in map(str, range(50))}
    async with served:
        for payload in ("a", "b", "last"):
            await log.append_many([("things", payload, key) for key in pair.values()])
        async with asyncio.timeout(scaled(20)):
            await done.acquire()
            await done.acquire()
    assert most == {0: 1, 1: 1}


@pytest.mark.needs_server("the expression in SQL")
async def test_the_server_in_memory_has_the_same_buckets(
    installed: Names, admin: Connection
) -> None:
    """Of keys of any kind, and of events without a key."""
    uid = uuid4()
    query = f"SELECT {bucket_number('7')} FROM (VALUES ($1::text, $2::uuid)) AS event (key, uid)"
    for key in (None, "", "a", "日本", "x" * 1_000, *map(str, range(50))):
        assert await admin.fetchval(query, key, uid) == log_order.bucket_of(key, uid, 7)
