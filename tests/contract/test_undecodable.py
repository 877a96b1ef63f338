"""Payloads that are not what their channel says: told and counted, and nothing else suffers."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import traceback
from typing import TYPE_CHECKING, Any, Final

import pydantic
import pytest

from asyncnotify import (
    BufferOverflowError,
    Channel,
    Gap,
    Notification,
    PayloadDecodeError,
)
from tests.contract.conftest import check_exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Listener, Stream, Subscription
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Any_ = Inbox[Any]


class Model(pydantic.BaseModel):
    """A type whose library quotes what it was given, in its errors."""

    id: int


SECRET: Final = "hunter2"
BAD: Final = f'{{"id":"{SECRET}"}}'
MODELS: Final = Channel("orders", Model)
NUMBERS: Final = Channel("orders", int)

EXITS = """
import asyncio, sys
import asyncpg
from asyncnotify import Channel, Listener
from asyncnotify.testing.fake import FakeServer

def connect():
    return asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

dsn, connects_by, error, consumer = sys.argv[1:]
if connects_by == "fake":
    fake = FakeServer()
    dsn = fake.dsn

def fail(text):
    raise {"SystemExit": SystemExit(7), "KeyboardInterrupt": KeyboardInterrupt()}[error]

async def main():
    orders = Channel("orders", encode=str, decode=fail)
    async with Listener(connect=connect) if connects_by == "connect" else Listener(dsn) as listener:
        if consumer.startswith("handler"):
            await listener.listen(orders, print, concurrency=int(consumer[-1]))
            await listener.notify("orders")
            await asyncio.sleep(10)  # what the decoder raises ends it
        async with listener.stream(orders) as stream:
            await listener.notify("orders")
            await anext(stream if consumer == "stream" else stream.batches())

asyncio.run(main())
"""


class Told(list[tuple[BaseException, object]]):
    """An on_error that keeps what it is told."""

    def __call__(self, error: BaseException, item: object) -> None:
        """Keep both."""
        self.append((error, item))

    async def later(self, error: BaseException, item: object) -> None:
        """Keep both, when others have had their turn."""
        await asyncio.sleep(0)
        self(error, item)

    @property
    def payloads(self) -> list[str]:
        """What arrived, and could not be decoded."""
        found = []
        for error, item in self:
            assert isinstance(error, PayloadDecodeError)
            assert isinstance(item, Notification)
            assert (error.channel, item.channel) == ("orders", "orders")
            found.append(item.payload)
        return found


async def take(stream: Stream[Notification[Any]], count: int) -> list[Any]:
    """Return the next so many payloads."""
    return [(await anext(stream)).payload for _ in range(count)]


async def taken_in_batches(stream: Stream[Notification[Any]], count: int) -> list[Any]:
    """Return the next so many payloads, or more, by lists."""
    found: list[Any] = []
    async for batch in stream.batches():
        found.extend(n.payload for n in batch)
        if len(found) >= count:
            break
    return found


def all_of(record: logging.LogRecord) -> str:
    """Return everything that a log record holds or could be made to show."""
    parts = [logging.Formatter().format(record), repr(vars(record)), str(record.args)]
    if record.exc_info and record.exc_info[1] is not None:
        parts += traceback.format_exception(record.exc_info[1])
    return "\n".join(parts)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what asyncnotify has logged at ERROR or above."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name.startswith("asyncnotify")
    ]


ways = pytest.mark.parametrize("way", ["plain", "async"])


# -- told and counted -----------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_r44_a_handler_goes_on(
    listener: Listener, database: Database, new_inbox: type[Any_], way: str, concurrency: int
) -> None:
    """It is not called; on_error gets the error and the text; the others come in their order."""
    inbox, told = new_inbox(), Told()
    on_error = told if way == "plain" else told.later
    subscription = await listener.listen(MODELS, inbox, on_error=on_error, concurrency=concurrency)
    await database.notify("orders", '{"id":1}', BAD, "", "[" * 7_999, '{"id":2}', '{"id":3}')
    assert [(await inbox.next()).payload.id for _ in range(3)] == [1, 2, 3]
    assert told.payloads == [BAD, "", "[" * 7_999]
    assert all(isinstance(error.__cause__, pydantic.ValidationError) for error, _ in told)
    stats = subscription.stats()
    assert (stats.decode_errors, stats.delivered, stats.handler_errors) == (3, 3, 0)
    totals = listener.stats()
    assert (totals.decode_errors, totals.delivered, totals.received) == (3, 3, 6)
    assert subscription.active


@ways
@pytest.mark.parametrize("taking", [take, taken_in_batches])
async def test_r44_a_stream_goes_on(
    listener: Listener,
    database: Database,
    way: str,
    taking: Callable[[Stream[Notification[Any]], int], Awaitable[list[Any]]],
) -> None:
    """It yields the others in their order; on_error gets the error and the text."""
    told = Told()
    on_error = told if way == "plain" else told.later
    async with listener.stream(MODELS, on_error=on_error) as stream:
        await database.notify("orders", BAD, '{"id":1}', BAD, "", '{"id":2}', BAD, '{"id":3}')
        assert [payload.id for payload in await taking(stream, 3)] == [1, 2, 3]
        await database.notify("orders", '{"id":4}')
        assert [payload.id for payload in await taking(stream, 1)] == [4]
        assert told.payloads == [BAD, BAD, "", BAD]
        stats = stream.stats()
        assert stats is not None
        assert (stats.decode_errors, stats.delivered, stats.backlog) == (4, 4, 0)
    assert (listener.stats().decode_errors, listener.stats().delivered) == (4, 4)


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, GeneratorExit, StopIteration, MemoryError]
)
async def test_r44_whatever_a_decoder_raises_is_an_error_of_that_payload(
    listener: Listener, database: Database, new_inbox: type[Any_], error: type[BaseException]
) -> None:
    """Also what would end a task or a generator, had it been meant for one."""

    def decode(text: str) -> str:
        if text == "bad":
            raise error
        return text

    orders, told, inbox, several = (
        Channel("orders", encode=str, decode=decode),
        Told(),
        new_inbox(),
        new_inbox(),
    )
    await listener.listen(orders, inbox, on_error=told)
    await listener.listen(orders, several, on_error=told, concurrency=2)
    async with (
        listener.stream(orders, on_error=told) as stream,
        listener.stream(orders, on_error=told) as batched,
    ):
        await database.notify("orders", "1", "bad", "2")
        assert [(await inbox.next()).payload for _ in range(2)] == ["1", "2"]
        assert [(await several.next()).payload for _ in range(2)] == ["1", "2"]
        assert await take(stream, 2) == ["1", "2"]
        assert await taken_in_batches(batched, 2) == ["1", "2"]
        await database.notify("orders", "3")
        assert await taken_in_batches(batched, 1) == ["3"]
    assert [type(cause.__cause__) for cause, _ in told] == [error] * 4
    assert listener.stats().reconnects == 0


@pytest.mark.parametrize("consumer", ["handler1", "handler3", "stream", "batches"])
@pytest.mark.parametrize(
    ("error", "codes"),
    [("SystemExit", {7}), ("KeyboardInterrupt", {-signal.SIGINT, 128 + signal.SIGINT})],
)
def test_r25_exit_and_interrupt_end_the_program(
    factory: ListenerFactory, error: str, codes: set[int], consumer: str
) -> None:
    """SystemExit and KeyboardInterrupt of a decoder end the program as they should."""
    if factory.connected_by != "dsn" and consumer in {"handler3", "batches"}:
        pytest.skip(
            "decoding does not know how the listener connects: half of the programs will do"
        )
    check_exit(codes, EXITS, factory.dsn, factory.connected_by, error, consumer)


# -- the log --------------------------------------------------------------------------------------


async def test_r43_the_log_tells_of_it_and_nothing_of_the_payload(
    listener: Listener, database: Database, caplog: pytest.LogCaptureFixture, new_inbox: type[Any_]
) -> None:
    """One line a subscription, with channel and backend; neither the text nor what quotes it."""
    inbox = new_inbox()
    await listener.listen(MODELS, inbox)
    async with listener.stream(MODELS) as stream, listener.stream(MODELS) as batched:
        await database.notify("orders", *[BAD] * 50, '{"id":1}')
        await inbox.next()
        await take(stream, 1)
        await taken_in_batches(batched, 1)
    messages = logged(caplog)
    assert len(messages) == 3
    pid = database.pid
    for message in messages:
        assert "'orders'" in message
        assert f"backend {pid}" in message
    assert listener.stats().decode_errors == 150
    for record in caplog.records:
        if record.name.startswith("asyncnotify") and record.levelno > logging.DEBUG:
            assert SECRET not in all_of(record)
            assert "valid integer" not in all_of(record)  # as pydantic says


@pytest.mark.parametrize("way", ["plain", "async"])
@pytest.mark.parametrize("taking", [take, taken_in_batches])
async def test_an_on_error_that_raises_is_logged(
    listener: Listener,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    way: str,
    taking: Callable[[Stream[Notification[Any]], int], Awaitable[list[Any]]],
) -> None:
    """Handlers and streams go on, also if it cancels itself."""
    errors: list[BaseException] = [OSError("no"), asyncio.CancelledError(), GeneratorExit()]

    def fail(error: BaseException, item: object) -> None:
        raise errors[listener.stats().decode_errors % 3]

    async def fail_later(error: BaseException, item: object) -> None:
        await asyncio.sleep(0)
        fail(error, item)

    handled: asyncio.Queue[int] = asyncio.Queue()
    on_error = fail if way == "plain" else fail_later
    await listener.listen(NUMBERS, lambda n: handled.put_nowait(n.payload), on_error=on_error)
    async with listener.stream(NUMBERS, on_error=on_error) as stream:
        await database.notify("orders", "1", "bad", "bad", "bad", "2")
        assert [await handled.get(), await handled.get()] == [1, 2]
        assert await taking(stream, 2) == [1, 2]
        await database.notify("orders", "3")
        assert await taking(stream, 1) == [3]
    assert len([m for m in logged(caplog) if "on_error of 'orders' raised" in m]) == 6


async def test_who_takes_one_does_not_wait_for_the_on_error_of_another(
    listener: Listener, database: Database
) -> None:
    """Of two that take from one stream, one is in on_error; the other gets what comes next."""
    called, done = asyncio.Event(), asyncio.Event()

    async def on_error(error: BaseException, item: object) -> None:
        called.set()
        await done.wait()

    async with listener.stream(NUMBERS, on_error=on_error) as stream:
        await database.notify("orders", "1", "bad", "2", "3")
        await database.fence(listener)
        batches = stream.batches(2)
        assert [item.payload for item in await anext(batches)] == [1]
        batch = asyncio.ensure_future(anext(batches))
        await called.wait()
        assert (await anext(stream)).payload == 2
        done.set()
        assert [item.payload for item in await batch] == [3]


async def test_r44_errors_of_lists_do_not_wait_for_the_garbage_collector(
    listener: Listener, database: Database
) -> None:
    """Their tracebacks lead to our frames; if those led back to them, both would pile up."""
    gc.collect()
    before = errors_alive()
    gc.disable()
    try:
        async with listener.stream(NUMBERS) as stream:
            await database.notify("orders", *(f"bad {number}" for number in range(1_000)), "1")
            assert [item.payload for item in await anext(stream.batches())] == [1]
        left = errors_alive() - before
    finally:
        gc.enable()
    assert left < 10


def errors_alive() -> int:
    """Return how many decode errors there are, those of other tests included."""
    return sum(type(thing) is PayloadDecodeError for thing in gc.get_objects())


async def test_r43_an_on_error_that_raises_the_error_again_tells_nothing_of_the_payload(
    listener: Listener, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The error that we made, and whose cause quotes the payload, is not logged with its cause."""

    def fail(error: BaseException, item: object) -> None:
        raise error

    async with listener.stream(MODELS, on_error=fail) as stream:
        await database.notify("orders", BAD, '{"id":1}')
        await take(stream, 1)
    assert len(logged(caplog)) == 2
    assert not [r for r in caplog.records if SECRET in all_of(r)]


# -- its place among others -----------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
async def test_gaps_keep_their_places(
    listener: Listener, database: Database, *, batched: bool
) -> None:
    """What cannot be decoded before and after a loss moves no Gap, and is one in its place."""
    told = Told()
    async with listener.stream(NUMBERS, gaps=True, on_error=told) as stream:
        await database.notify("orders", "bad", "1", "bad")
        await database.fence(listener)
        await database.interrupt(listener)
        await database.notify("orders", "bad", "2", "bad", "3")
        await database.fence(listener)
        items = (
            await anext(stream.batches()) if batched else [await anext(stream) for _ in range(9)]
        )
        shown = [str(item.reason) if isinstance(item, Gap) else item.payload for item in items]
        bad = "undecodable"
        assert shown == ["start", bad, 1, bad, "reconnect", bad, 2, bad, 3]
        stats = stream.stats()
        assert stats is not None
        assert (stats.decode_errors, stats.delivered, stats.gaps) == (4, 3, 6)


async def test_r46_resync_is_called_for_what_cannot_be_decoded(
    listener: Listener, database: Database, inbox: Inbox[Notification[int]]
) -> None:
    """Once for those that arrive together, after ``on_error`` and before what follows them."""
    order: list[object] = []

    def resync(gap: Gap) -> None:
        order.append(str(gap.reason))

    def on_error(error: BaseException, _: object) -> None:
        order.append(type(error).__name__)

    def handle(notification: Notification[int]) -> None:
        order.append(notification.payload)
        inbox(notification)

    subscription = await listener.listen(NUMBERS, handle, resync=resync, on_error=on_error)
    await database.notify("orders", "", "bad", "1", "2")
    assert [(await inbox.next()).payload for _ in range(2)] == [1, 2]
    assert (order[:2], order[-3:]) == (["start", "PayloadDecodeError"], ["undecodable", 1, 2])
    assert order.count("PayloadDecodeError") == 2
    stats = subscription.stats()
    assert (stats.delivered, stats.decode_errors) == (2, 2)
    assert stats.gaps == 1 + order.count("undecodable")


async def test_an_overflow_counts_them_like_others(listener: Listener, database: Database) -> None:
    """overflow="fail": the good ones of the buffer come first, then the error."""
    async with listener.stream(NUMBERS, buffer=4, overflow="fail") as stream:
        async with database.transaction():
            await database.notify("orders", "1", "bad", "2", "worse", "3", "4")
        await database.fence(listener)
        assert await take(stream, 2) == [1, 2]
        with pytest.raises(BufferOverflowError) as caught:
            await anext(stream)
        assert (caught.value.limit, caught.value.dropped) == (4, 2)
    assert listener.channels == frozenset()


@ways
async def test_r30_cancelled_waiting_loses_nothing_between_bad_ones(
    listener: Listener, database: Database, way: str
) -> None:
    """However often anext() is cancelled, on_error's turn included, each good one comes once."""
    source, told = random.Random(30), Told()
    on_error = told if way == "plain" else told.later
    received: list[int] = []
    cancelled = 0
    async with listener.stream(NUMBERS, on_error=on_error) as stream:
        texts = [f"bad {n}" if n % 3 else str(n) for n in range(1_500)]
        sending = asyncio.create_task(database.notify("orders", *texts))
        while len(received) < 500:
            waiting = asyncio.ensure_future(anext(stream))
            for _ in range(source.randrange(6)):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                received.append((await waiting).payload)
            except asyncio.CancelledError:
                cancelled += 1
        await sending
        stats = stream.stats()
    assert received == list(range(0, 1_500, 3))
    assert cancelled > 50
    assert stats is not None
    assert stats.decode_errors >= 998  # the last two may not have been taken
    assert stats.delivered == 500
    if way == "plain":
        assert len(told) == stats.decode_errors


async def test_a_subscription_ends_while_its_on_error_waits(
    listener: Listener, database: Database, new_inbox: type[Any_]
) -> None:
    """Ending a handler or a stream from elsewhere in that moment starts nothing later."""
    inbox, begun, released = new_inbox(), new_inbox(), asyncio.Event()

    async def wait(error: BaseException, item: object) -> None:
        begun(item)
        await released.wait()

    subscription: Subscription = await listener.listen(NUMBERS, inbox, on_error=wait)
    stream = await listener.stream(NUMBERS, on_error=wait).__aenter__()
    reading = asyncio.ensure_future(anext(stream, None))
    await database.notify("orders", "bad", "1")
    await begun.next()
    await begun.next()
    await subscription.cancel()
    await stream.aclose()
    released.set()
    assert await reading is None
    await database.fence(listener)
    assert len(inbox) == 0
    assert listener.channels == frozenset()


async def test_on_error_hears_of_what_a_batch_has_found_though_no_other_follows(
    listener: Listener, database: Database
) -> None:
    """After a batch, anext() and the end of the stream report every undecodable payload."""
    told = Told()
    async with listener.stream(NUMBERS, on_error=told) as stream:
        await database.notify("orders", "1", "bad")
        await database.fence(listener)
        assert [n.payload for n in await anext(stream.batches())] == [1]
        await database.notify("orders", "2")
        assert await take(stream, 1) == [2]
    assert told.payloads == ["bad"]
