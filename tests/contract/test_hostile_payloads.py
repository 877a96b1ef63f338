"""Every client may send any payload: no other notification is lost by that."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import itertools
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pydantic
import pytest

from asyncnotify import Channel, Notifier, PayloadDecodeError, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from asyncnotify import Notification, Stream
    from tests.contract.conftest import ListenerFactory

TOTAL: Final = 100_000
GOOD_EVERY: Final = 100
GOOD: Final = TOTAL // GOOD_EVERY
BAD: Final = TOTAL - GOOD
LONG_EVERY: Final = 40  # of the bad ones, so that there are some of the largest size
LONGEST_TURN: Final = 0.25  # seconds of our own doing, between two turns of another task
BUFFER: Final = 2 * TOTAL
EXPECTED: Final = list(range(0, TOTAL + 1, GOOD_EVERY))  # the last one ends it

KEY: Final = b"0123456789abcdef"
OTHER_KEY: Final = b"fedcba9876543210"


@dataclass
class Order:
    """What is meant to come, signed and compressed."""

    id: int
    note: str = ""


class Struct(msgspec.Struct):
    """What is meant to come, by msgspec."""

    id: int
    note: str = ""


class Model(pydantic.BaseModel):
    """What is meant to come, by pydantic."""

    id: int
    note: str = ""


ROWS: Final = Channel("rows", dict)
STRUCTS: Final = Channel("structs", Struct)
MODELS: Final = Channel("models", Model)
SEALED: Final = Channel("sealed", Order, unique=True, compress=True, keys=[KEY])
CHANNELS: Final[tuple[Channel[Any], ...]] = (ROWS, STRUCTS, MODELS, SEALED)

signed: Final = Channel("sealed", keys=[KEY]).encode
"""Signs what our own key holders would never have sent."""


def packed(data: bytes) -> str:
    """Return an envelope of compressed data."""
    return "\x01z" + base64.b64encode(zlib.compress(data, 9)).rstrip(b"=").decode()


def altered(text: str) -> str:
    """Return the text with another first character."""
    return ("B" if text.startswith("A") else "A") + text[1:]


BOMB: Final = packed(b"[" * 5_000_000)
FORGED: Final = Channel("sealed", Order, keys=[OTHER_KEY])
MISPLACED: Final = Channel("rows", Order, keys=[KEY])

ANY_JSON: Final[list[Callable[[int], str]]] = [
    lambda n: f"{n} " + "[" * 150,
    lambda n: "[" * 150 + f"{n}",
    lambda n: '{"id":' * 100 + f"{n}",
    lambda n: f'{{"id":{n}',
    lambda n: f'{{"id":NaN,"note":"{n}"}}',
    lambda n: f'{{"id":-Infinity,"note":"{n}"}}',
    lambda n: f'{{"id":{n},"note":"\\ud800"}}',
    lambda n: f'{{"id":{n},"note":"\\udfff\\ud83d"}}',
    lambda n: f"\ufeff{{}}{n}",
    lambda n: f"[{n}]",
    lambda n: f'"{n}"',
    lambda n: f"\x01u\x02\x7f{n}",
    lambda n: f"{n}; DROP TABLE orders; --",
    lambda n: f"é😀{n}" * 20,
    lambda n: f"cos\nsystem\n(S'{n}'\ntR.",
]
LONG_JSON: Final[list[Callable[[int], str]]] = [
    lambda n: f"[{n}," + "[" * 7_900,
    lambda n: '{"id":' * 1_200 + f"{n}",
    lambda n: f'{{"id":{n}' + "9" * 7_900 + "}",
    lambda n: f'{{"id":{n},"note":' + "-" * 7_900,
    lambda n: f'{{"id":{n},"note":"' + "\\ud800" * 1_300 + '"}',
]
FORGERIES: Final[list[Callable[[int], str]]] = [
    lambda n: f'{{"id":{n}}}',
    lambda n: FORGED.encode(Order(n)),
    lambda n: MISPLACED.encode(Order(n)),
    lambda n: SEALED.encode(Order(n))[:-1],
    lambda n: altered(SEALED.encode(Order(n))),
    lambda n: SEALED.encode(Order(n)).swapcase(),
    lambda n: "é" * 43 + f"{n}",
    lambda n: signed(f'{{"id":"{n}"}}'),
    lambda n: signed(f"\x01q{n}"),
    lambda n: signed(f"\x01z{n}"),
    lambda n: signed(packed(b"[" * 10_000 + str(n).encode())),
    lambda n: signed(packed(b"\xff\xfe" * 100 + str(n).encode())),
]
LONG_FORGERIES: Final[list[Callable[[int], str]]] = [
    lambda n: signed(packed(b"[" * 250_000 + str(n).encode())),
    lambda n: f"{n:043}" + "x" * 7_900,
    lambda n: signed(BOMB + f"{n:08}"),  # the end of it is never looked at
]


def bad_ones(channel: Channel[Any]) -> Iterator[str]:
    """Yield texts that the channel refuses, no two alike, without end."""
    ours = channel is SEALED
    short = itertools.cycle(FORGERIES if ours else ANY_JSON)
    long = itertools.cycle(LONG_FORGERIES if ours else LONG_JSON)
    for n in itertools.count():
        yield next(long if n % LONG_EVERY == 0 else short)(n)


def good_one(channel: Channel[Any], number: int) -> str:
    """Return the text of a payload that the channel takes."""
    kinds: dict[Channel[Any], Callable[..., object]] = {
        ROWS: dict,
        STRUCTS: Struct,
        MODELS: Model,
        SEALED: Order,
    }
    return channel.encode(kinds[channel](id=number, note="é"))


def mixture() -> Iterator[tuple[str, str]]:
    """Yield all that is sent: every hundredth good, with its number."""
    sources = [(channel, bad_ones(channel)) for channel in CHANNELS]
    turns = itertools.cycle(sources)
    for n in range(TOTAL):
        channel, bad = next(turns)
        if n % GOOD_EVERY == 0:
            yield channel.name, good_one(channel, n)
            next(turns)  # the next one comes on another channel
        else:
            yield channel.name, next(bad)


def number_of(notification: Notification[Any]) -> int:
    """Return the number of a good one."""
    payload = notification.payload
    return int(payload["id"] if isinstance(payload, dict) else payload.id)


class Pulse:
    """Another task of the application, and how long it was kept from its turn."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.turns = 0

    async def beat(self) -> None:
        """Want a turn every millisecond. What other processes take of the processor is not ours."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)  # wants its turn at these times
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            self.turns += 1
            before = now


@contextlib.asynccontextmanager
async def beating() -> AsyncGenerator[Pulse]:
    """Let another task run beside."""
    pulse = Pulse()
    gc.collect()
    gc.freeze()  # nor is it our doing when the collector looks at all that other tests have left
    task = asyncio.create_task(pulse.beat())
    try:
        yield pulse
    finally:
        task.cancel()
        await asyncio.wait({task})
        gc.unfreeze()


CASES: Final = [
    *((channel, make) for channel in CHANNELS[:3] for make in (*ANY_JSON, *LONG_JSON)),
    *((SEALED, make) for make in (*FORGERIES, *LONG_FORGERIES, *ANY_JSON, *LONG_JSON)),
]


def test_r44_each_of_them_is_refused() -> None:
    """By decode(), as a PayloadDecodeError and in a moment; the good ones are taken."""
    for channel, make in CASES:
        before = time.thread_time()
        with pytest.raises(PayloadDecodeError):
            channel.decode(make(1_234))
        assert time.thread_time() - before < LONGEST_TURN
    for channel in CHANNELS:
        value = channel.decode(good_one(channel, 7))
        assert (value["id"] if isinstance(value, dict) else value.id) == 7


class Handled:
    """A handler that keeps the numbers, and an on_error that counts."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.complete = asyncio.Event()
        self.errors = 0

    def __call__(self, notification: Notification[Any]) -> None:
        """Keep a number."""
        self.numbers.append(number_of(notification))
        if len(self.numbers) == len(EXPECTED):
            self.complete.set()

    def tell(self, error: BaseException, item: object) -> None:
        """Count an error."""
        self.errors += isinstance(error, PayloadDecodeError)


async def step_through(stream: Stream[Notification[Any]]) -> list[int]:
    """Return the numbers, taken one by one."""
    found: list[int] = []
    async for notification in stream:
        found.append(number_of(notification))
        if found[-1] == TOTAL:
            break
    return found


async def take_lists(stream: Stream[Notification[Any]]) -> list[int]:
    """Return the numbers, taken by lists."""
    found: list[int] = []
    async for batch in stream.batches():
        found += map(number_of, batch)
        if found[-1] == TOTAL:
            break
    return found


@pytest.mark.load
async def test_r44_good_ones_arrive_whatever_else_is_sent(factory: ListenerFactory) -> None:
    """
    Of 100,000, one in a hundred good, handlers, a stream and lists get every good one in order.

    The others are counted exactly, nothing ends, and other tasks get their turns.
    """
    handled = Handled()
    async with (
        factory.listener() as listener,
        Notifier(factory.dsn) as notifier,
        listener.stream(*CHANNELS, buffer=BUFFER, on_error=handled.tell) as stream,
        listener.stream(*CHANNELS, buffer=BUFFER) as batched,
        beating() as pulse,
    ):
        for channel in CHANNELS:
            await listener.listen(channel, handled, buffer=BUFFER)
        stepping = asyncio.create_task(step_through(stream))
        listing = asyncio.create_task(take_lists(batched))
        assert await notifier.notify_many(mixture()) == TOTAL
        await notifier.notify(ROWS, {"id": TOTAL})
        assert await stepping == EXPECTED
        assert await listing == EXPECTED
        await handled.complete.wait()
        assert sorted(handled.numbers) == EXPECTED  # of four channels, each with its handler
        stats = listener.stats()
        assert (stats.received, stats.decode_errors) == (TOTAL + 1, 3 * BAD)
        assert (stats.delivered, stats.dropped, stats.gaps) == (3 * len(EXPECTED), 0, 6)
        assert (stats.handler_errors, stats.reconnects, stats.state) == (0, 0, State.CONNECTED)
        assert [s.backlog for s in stats.subscriptions] == [0] * 6
        assert handled.errors == BAD
    assert pulse.turns > 100
    assert pulse.longest <= LONGEST_TURN
