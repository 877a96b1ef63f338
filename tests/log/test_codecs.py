"""Codecs that the caller's pool has set for its own statements reach nothing of a log's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import Listener, Notifier
from asyncnotify.log import Event, Log, Retry
from tests.support.codecs import CustomRecord, set_codecs
from tests.support.driver_features import READS_CATALOGS_PLAINLY as PLAIN
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Connection = asyncpg.Connection[Any]

pytestmark = pytest.mark.needs_server("a driver's codecs")


class Logged(asyncpg.Connection):
    """A connection each of whose statements the caller sees."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_query_logger(lambda _: None)


RECORDS: Final[dict[str, Any]] = {"record_class": CustomRecord} if PLAIN else {}

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "loggers": {"connection_class": Logged},
    "uncached": {"statement_cache_size": 0},
}


@pytest_asyncio.fixture(params=list(OPTIONS))
async def pool(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """A pool with such codecs, on each way on which statements go."""
    options = OPTIONS[request.param] | RECORDS
    async with asyncpg.create_pool(dsn, min_size=1, max_size=8, init=set_codecs, **options) as pool:
        yield pool


async def check(event: Event[str], payload: str) -> None:
    """Check that an event is as it is without a codec."""
    assert (event.channel, event.payload, event.key) == ("things", payload, "key")
    assert event.headers == {"a": "b"}
    assert isinstance(event.id, UUID)
    assert isinstance(event.appended_at, datetime)
    assert [type(part) for part in event.position] == [str, int, int, int]


async def test_a_log_has_its_own_codecs(pool: asyncpg.Pool[Any]) -> None:
    """For all that it asks and tells, whatever the pool has set for whatever type."""
    began = datetime.now(UTC) - timedelta(minutes=1)
    rest: dict[str, Any] = {"key": "key", "headers": {"a": "b"}}
    handled: list[Event[str]] = []
    log = Log("orders", pool=pool, poll=0.05)
    await log.install(retention=timedelta(days=1), limit=timedelta(days=2))
    await log.install()

    @log.on("handler", transactional=True, on_error=Retry(1))
    async def handle(event: Event[str], connection: Connection) -> None:
        handled.append(event)
        assert event.payload != "1" or len(handled) > 2

    made = await log.append("things", "0", **rest)
    await log.append_many([("things", str(n), "key", {"a": "b"}) for n in range(1, 10)])
    events: list[Event[str]] = []
    places: tuple[Any, ...] = ("start", began)
    for after in places:
        async with log.read("things", after=after) as stream:
            events = [await anext(stream) for _ in range(10)]
    assert events[0].id == made
    for number, event in enumerate(events):
        await check(event, str(number))
    async with log.read(after=events[7].position) as stream:
        assert (await anext(stream)).payload == "8"
    async with log, log.consumer("mailer") as consumer, log.consumer("many", buckets=2) as many:
        assert [(await anext(consumer)).payload for _ in range(10)] == [*map(str, range(10))]
        assert {(await anext(many)).payload for _ in range(10)} == {*map(str, range(10))}
        while len(handled) < 10:
            await log.expire()
        [letter] = await log.dead_letters("handler")
        await check(letter.event, "1")
        assert (letter.attempts, type(letter.died_at)) == (1, datetime)
        await log.retry(letter)
        assert not await log.discard(letter)
        status = await log.status()
        assert (status.events, type(status.size), status.limit) == (10, int, timedelta(days=2))
        assert {one.name for one in status.consumers} == {"handler", "mailer", "many"}
        assert {type(one.committed_at) for one in status.consumers} == {datetime}
        await log.seek("mailer", began)
        await log.seek("mailer", events[8].position)
        await log.pause("many")
        await log.resume("many")
        await log.drop("many")


async def test_the_core_has_its_own_codecs(dsn: str) -> None:
    """On connections that connect= makes: of payloads, heartbeats and what health() asks."""

    async def connect() -> Connection:
        connection: Connection = await asyncpg.connect(
            dsn, server_settings={"application_name": "asyncnotify"}, **RECORDS
        )
        await set_codecs(connection)
        return connection

    async with (
        Listener(connect=connect, heartbeat=0.05, heartbeat_timeout=scaled(5.0)) as listener,
        listener.stream("orders") as stream,
        Notifier(connect=connect) as notifier,
    ):
        await notifier.notify("orders", "1")
        await notifier.notify_many([("orders", "2"), ("orders", "3")])
        assert [(await anext(stream)).payload for _ in range(3)] == ["1", "2", "3"]
        before = listener.stats().last_heartbeat
        while listener.stats().last_heartbeat == before:
            report = await listener.health()
            assert (report["server_error"], type(report["queue_usage"])) == (None, float)
        assert (listener.stats().gaps, listener.stats().reconnects) == (1, 0)
