"""read(): from a place in the order to its end, and on as events come."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Channel, Gap, GapReason, Listener, Reread
from asyncnotify.log import Event, Log, NotInstalledError, Position, PositionError
from tests.log.conftest import append, kill_sessions, server_time, take_tick
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.log import LogStream
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection

NUMBERS: Final = Channel("numbers", int)
REREADS: Final = Channel("numbers", decode=lambda t: Reread(3) if t == "again" else int(t))


@pytest_asyncio.fixture
async def log(dsn: str, installed: Names) -> AsyncIterator[Log]:
    """A log that has been installed; its readers look only when they are woken."""
    async with Log("orders", dsn, poll=3600) as log:
        yield log


async def taken(stream: LogStream[Any], count: int) -> list[Any]:
    """Return the payloads of the next so many events, or Gaps; they have to come soon."""
    async with asyncio.timeout(scaled(20)):
        items = [await anext(stream) for _ in range(count)]
    return [item.payload if isinstance(item, Event) else item for item in items]


async def test_first_what_is_there_and_then_what_comes(log: Log, admin: Connection) -> None:
    """Nothing is missed at the seam, and nothing comes twice."""
    await append(admin, *map(str, range(2_500)))
    async with log.read(after="start") as stream:
        assert await taken(stream, 2_500) == [*map(str, range(2_500))]
        waiting = asyncio.ensure_future(taken(stream, 3))
        await append(admin, "a", "b", "c")
        assert await waiting == ["a", "b", "c"]


async def test_each_event_has_its_own_channel_and_headers(log: Log) -> None:
    """Whatever those before have, in the same portion and in the one before."""
    expected = [
        ("abc"[n // 400 % 3], str(n), None, {} if n % 7 else {"n": str(n)}) for n in range(3_500)
    ]
    await log.append_many(expected)
    async with asyncio.timeout(scaled(20)), log.read(after="start") as stream:
        events = [await anext(stream) for _ in expected]
    assert [(one.channel, one.payload, one.key, one.headers) for one in events] == expected


async def test_from_now_on_only_what_is_committed_after_the_block_is_entered(
    log: Log, admin: Connection, connect: Connect
) -> None:
    """A transaction that began before, and commits after, belongs to what is after."""
    await append(admin, "before")
    async with connect() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await append(slow, "slow")
        async with log.read(after="now") as stream:
            await transaction.commit()
            await append(admin, "after")
            assert await taken(stream, 2) == ["slow", "after"]


async def test_until_end_yields_what_is_there_and_ends(log: Log, admin: Connection) -> None:
    """Of the wanted channels; afterwards the stream goes on from there."""
    await append(admin, "1", "2")
    await append(admin, "-", channel="other")
    async with log.read("things", after="start") as stream:
        assert [event.payload async for event in stream.until_end()] == ["1", "2"]
        assert [event async for event in stream.until_end()] == []
        await append(admin, "3")
        assert [event.payload async for event in stream.until_end()] == ["3"]
        await append(admin, "4")
        assert (await anext(stream)).payload == "4"


async def test_from_a_position_on(log: Log, admin: Connection) -> None:
    """Each event's position is where reading goes on behind it, as an object and as a text."""
    for n in range(6):
        await append(admin, f"{n}a", f"{n}b")
        await take_tick(admin)
    async with asyncio.timeout(scaled(20)):
        async with log.read(after="start") as stream:
            events = [await anext(stream) for _ in range(12)]
        assert [event.position for event in events] == sorted(e.position for e in events)
        for n, event in enumerate(events[:-1]):
            after = Position.parse(str(event.position))
            async with log.read(after=after) as stream:
                assert (await anext(stream)).id == events[n + 1].id
                assert stream.position == events[n + 1].position


async def test_from_a_time_on(log: Log, admin: Connection) -> None:
    """All that was committed at that time or later is there."""
    await append(admin, "long ago")
    await take_tick(admin)
    await append(admin, "before")
    await take_tick(admin)
    time = await server_time(admin)
    await append(admin, "after")
    async with log.read(after=time) as stream:
        assert await taken(stream, 1) == ["after"]
    async with log.read(after=datetime.now(UTC) - timedelta(days=1)) as stream:
        assert await taken(stream, 3) == ["long ago", "before", "after"]
    async with log.read(after=datetime.now(UTC) + timedelta(days=1)) as stream:
        waiting = asyncio.ensure_future(taken(stream, 1))
        await append(admin, "later")
        assert await waiting == ["later"]


@pytest.mark.needs_server("SQL")
async def test_a_clock_that_is_set_back_loses_nothing_from_a_time_on(
    log: Log, admin: Connection
) -> None:
    """Places are found by time because the times of ticks ascend: they go on as the last one."""
    await append(admin, "before")
    await take_tick(admin)
    ahead = (
        "UPDATE asyncnotify.orders_ticks SET taken_at = now() + interval '1 hour' WHERE tick = 1"
    )
    await admin.execute(ahead)  # as a clock that was an hour ahead had it
    for payload in ("a", "b", "c"):
        await append(admin, payload)
        await take_tick(admin)
    times = await admin.fetch("SELECT taken_at FROM asyncnotify.orders_ticks ORDER BY tick")
    assert times == sorted(times)
    async with log.read(after=datetime.now(UTC) - timedelta(minutes=1)) as stream:
        assert {"a", "b", "c"} <= {event.payload async for event in stream.until_end()}
    async with log.consumer("late"):
        assert [one.lag_seconds for one in (await log.status()).consumers] == [0.0]


async def test_an_event_has_all_that_was_appended(log: Log, admin: Connection) -> None:
    """With types of their own."""
    before = await server_time(admin)
    made = await log.append("things", "é", key="42", headers={"a": "b"})
    await log.append("things")
    async with log.read(after="start") as stream:
        event, bare = [await anext(stream) for _ in range(2)]
    assert (event.id, event.channel, event.payload, event.key) == (made, "things", "é", "42")
    assert event.headers == {"a": "b"}
    assert before < event.appended_at < bare.appended_at
    assert (bare.payload, bare.key, bare.headers) == ("", None, {})


async def test_some_channels_decoded(log: Log, admin: Connection) -> None:
    """Only events of the channels named, decoded where a Channel says how."""
    await log.append(NUMBERS, 1)
    await log.append("texts", "one")
    await log.append("others", "x")
    await log.append(NUMBERS, 2)
    async with log.read(NUMBERS, "texts", after="start") as stream:
        assert await taken(stream, 3) == [1, "one", 2]
    async with log.read(NUMBERS, after="start") as numbers:
        assert await taken(numbers, 2) == [1, 2]


async def test_what_cannot_be_decoded_is_a_gap_in_its_place(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends nothing, and without gaps=True it is only logged, without the payload."""
    await log.append(NUMBERS, 1)
    await log.append("numbers", "secret")
    await log.append(NUMBERS, 2)
    async with log.read(NUMBERS, after="start", gaps=True) as stream:
        one, gap, two = await taken(stream, 3)
    assert (one, two) == (1, 2)
    assert isinstance(gap, Gap)
    assert (gap.channel, gap.reason) == ("numbers", GapReason.UNDECODABLE)
    assert "secret" not in caplog.text
    async with log.read(NUMBERS, after="start") as numbers:
        assert await taken(numbers, 2) == [1, 2]


async def test_what_says_read_again_is_a_gap_in_its_place(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """With its count; without gaps=True a WARNING says so, and reading goes on."""
    for text in ("1", "again", "2"):
        await log.append("numbers", text)
    async with log.read(REREADS, after="start", gaps=True) as stream:
        one, gap, two = await taken(stream, 3)
    assert (one, two) == (1, 2)
    assert isinstance(gap, Gap)
    assert (gap.channel, gap.reason, gap.dropped) == ("numbers", GapReason.REREAD, 3)
    assert gap.since is not None
    assert warnings_of(caplog) == []
    async with log.read(REREADS, after="start") as numbers:
        assert await taken(numbers, 2) == [1, 2]
    (warning,) = warnings_of(caplog)
    assert "an event on 'numbers' says \"read again\"" in warning


class Interrupted(logging.Handler):
    """Sees a WARNING of an interruption."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        if "interrupted" in record.getMessage():
            self.seen.set()


@pytest.mark.needs_server("sessions that end while they are asked")
async def test_what_one_reader_warns_of_is_hidden_by_no_other(
    log: Log, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by many that have lost their connection, nor by one that has gone."""
    for text in ("1", "again", "2"):
        await log.append("numbers", text)
    streams = [log.read(REREADS, after="now") for _ in range(20)]
    for stream in streams:
        await stream.__aenter__()
    reading = [asyncio.ensure_future(anext(stream, None)) for stream in streams]
    interrupted = Interrupted()
    logging.getLogger("asyncnotify.log").addHandler(interrupted)
    try:
        async with asyncio.timeout(scaled(20)):
            while not interrupted.seen.is_set():
                await kill_sessions(admin)
                await append(admin, "-", channel="other")
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await interrupted.seen.wait()
    finally:
        logging.getLogger("asyncnotify.log").removeHandler(interrupted)
    for stream in streams:
        await stream.aclose()
    await asyncio.gather(*reading)
    for _ in range(3):
        caplog.clear()
        async with log.read(REREADS, after="start") as numbers:
            assert await taken(numbers, 2) == [1, 2]
        del numbers
        assert len(warnings_of(caplog)) == 1


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what has been logged at WARNING or above."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def test_waiting_may_be_cancelled_and_loses_nothing(log: Log, admin: Connection) -> None:
    """Whether it waits for news or for the server: the next call gets the next event."""
    async with log.read(after="now") as stream:
        read: list[str] = []
        for n in range(100):
            await append(admin, str(n))
            waiting = asyncio.ensure_future(anext(stream))
            for _ in range(n % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            if not waiting.cancelled():
                read.append(waiting.result().payload)
        read += await taken(stream, 100 - len(read))
    assert read == [*map(str, range(100))]


async def test_a_lost_connection_is_made_anew_and_reading_goes_on(
    log: Log, admin: Connection
) -> None:
    """At every kill of the log's sessions, those of the listener included."""
    async with log.read(after="now") as stream:
        for n in range(5):
            await append(admin, f"{n}a")
            assert await taken(stream, 1) == [f"{n}a"]
            await kill_sessions(admin)
            await append(admin, f"{n}b")
            assert await taken(stream, 1) == [f"{n}b"]


async def test_closing_the_log_ends_its_readers(log: Log, admin: Connection) -> None:
    """With StopAsyncIteration, also one that waits."""
    stream = log.read(after="start")
    waiting = asyncio.ensure_future(taken(stream, 1))
    await append(admin, "x")
    assert await waiting == ["x"]
    rest = asyncio.ensure_future(anext(stream, "the end"))
    await asyncio.sleep(0)
    await log.aclose()
    assert await rest == "the end"


async def test_closing_a_stream_ends_it(log: Log, admin: Connection) -> None:
    """Also from another task."""
    async with log.read(after="now") as stream:
        rest = asyncio.ensure_future(anext(stream, "the end"))
        await asyncio.sleep(0)
        await stream.aclose()
        assert await rest == "the end"


@pytest.mark.needs_server("a look at the sessions by SQL")
async def test_many_readers_share_few_connections(log: Log, admin: Connection) -> None:
    """A hundred that wait hold none of their own: one listens, and at most four read."""
    streams = [log.read(after="start") for _ in range(100)]
    await append(admin, "x")
    found = await asyncio.gather(*(taken(stream, 1) for stream in streams))
    assert found == [["x"]] * 100
    count = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'asyncnotify' AND datname = current_database()"
    )
    assert count <= 5


async def test_a_listener_of_the_callers_wakes_readers(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """It serves all logs of a process; the log neither starts nor closes it."""
    async with Listener(dsn) as listener:
        async with Log("orders", dsn, listener=listener, poll=3600) as log:
            async with log.read(after="now") as stream:
                waiting = asyncio.ensure_future(taken(stream, 1))
                await append(admin, "x")
                assert await waiting == ["x"]
            assert installed.wake_channel in listener.channels
        assert listener.is_connected
        assert installed.wake_channel not in listener.channels


async def test_one_listener_wakes_the_readers_and_consumers_of_several_logs(dsn: str) -> None:
    """None of them looks by itself, and none has a listener of its own."""
    async with Listener(dsn) as listener:
        logs = [Log(name, dsn, listener=listener, poll=3600) for name in ("orders", "mails")]
        handled: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        def handle(event: Event[str]) -> None:
            handled.put_nowait((event.position.log, event.payload))

        for log in logs:
            await log.install()
            log.on("handler", "things")(handle)
        async with asyncio.timeout(scaled(20)), logs[0], logs[1]:
            takers: list[Any] = [log.consumer("consumer") for log in logs]
            takers += [log.read(after="start") for log in logs]
            for payload in ("first", "woken"):
                waiting = [asyncio.ensure_future(anext(taker)) for taker in takers]
                for log in logs:
                    await log.append("things", payload)
                assert {(await handled.get())[1] for _ in logs} == {payload}
                assert {event.payload for event in await asyncio.gather(*waiting)} == {payload}
            assert len(listener.channels) == len(logs)
            for taker in takers:
                await taker.aclose()


@pytest.mark.needs_server("a pool")
async def test_without_notifications_readers_look_by_themselves(
    dsn: str, installed: Names, admin: Connection
) -> None:
    """At the interval of poll, and on connections that the log borrows from a pool."""
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool,
        Log("orders", pool=pool, poll=0.05, wake="poll") as log,
        log.read(after="now") as stream,
    ):
        await append(admin, "x")
        assert await taken(stream, 1) == ["x"]


@pytest.mark.parametrize(
    "position",
    ["mails:1.0.0", "orders:2.0.0", "orders:1.99.5", "orders:0.0.0"],
)
async def test_a_position_of_another_log_or_epoch_is_refused(log: Log, position: str) -> None:
    """With a PositionError at the first step."""
    with pytest.raises(PositionError):
        await anext(log.read(after=Position.parse(position)))


@pytest.mark.parametrize("after", [datetime(2026, 1, 1), "end", "orders:1.2.3"])  # noqa: DTZ001 - that is what is refused
def test_other_places_are_refused(after: object) -> None:
    """With a ValueError when the stream is made; other types with a TypeError."""
    log = Log("orders")

    async def read(after: object) -> None:
        log.read(after=cast("Position", after))

    with pytest.raises(ValueError, match="after"):
        asyncio.run(read(after))
    with pytest.raises(TypeError, match="after"):
        asyncio.run(read(5))


async def test_without_installation_reading_says_so(dsn: str) -> None:
    """At the first step, and it does not try again for ever."""
    async with Log("orders", dsn) as log:
        with pytest.raises(NotInstalledError):
            await anext(log.read(after="start"))


@pytest.mark.needs_server("a statement that is cancelled by SQL")
async def test_a_statement_that_is_cancelled_is_repeated(log: Log, admin: Connection) -> None:
    """An administrator's pg_cancel_backend ends neither a reader nor a consumer."""
    cancel = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'asyncnotify' AND datname = current_database()"
    )
    async with log.read(after="start") as stream, log.consumer("mailer") as consumer:
        for n in range(20):
            await append(admin, str(n))
            reading = asyncio.ensure_future(taken(stream, 1))
            consuming = asyncio.ensure_future(anext(consumer))
            for _ in range(50):  # and not for ever: each time all would begin anew
                if not (reading.done() and consuming.done()):
                    await admin.execute(cancel)
            await asyncio.wait({reading, consuming})
            assert reading.result() == [str(n)]
            assert int((await consuming).payload) <= n
