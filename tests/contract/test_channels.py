"""Typed channels: every consumer gets the value that was sent, whatever the type and its coding."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pydantic
import pytest

from asyncnotify import (
    Channel,
    ChannelDirectionError,
    ChannelNameError,
    Gap,
    GapReason,
    Listener,
    Notification,
    Notifier,
    PayloadError,
    PayloadTooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import Stream
    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Any_ = Inbox[Notification[Any]]

KEY: Final = b"0123456789abcdef"


@dataclass
class Order:
    """A type of nobody's."""

    id: int
    tags: list[str] = field(default_factory=list)


class Struct(msgspec.Struct):
    """A type of msgspec's."""

    id: int
    note: str = ""


class Model(pydantic.BaseModel):
    """A type of pydantic's."""

    id: int
    note: str = ""


@dataclass
class Celsius:
    """A type with functions of its own."""

    degrees: float


def write_celsius(temperature: Celsius) -> str:
    """Return a temperature as text."""
    return f"{temperature.degrees} °C"


def read_celsius(text: str) -> Celsius:
    """Return the temperature that a text stands for."""
    return Celsius(float(text.removesuffix(" °C")))


LAYERS: Final[dict[str, Any]] = {"unique": True, "compress": True, "keys": [KEY]}
CASES: Final[list[tuple[Channel[Any], list[object]]]] = [
    (Channel("orders"), ["", "é 😀"]),
    (Channel("orders", dict), [{"id": 1, "note": "é"}, {}]),
    (Channel("orders", object), [None, [1.5, "x"]]),
    (Channel("orders", None), [None, None]),
    (Channel("orders", Order), [Order(1, ["a", "é"]), Order(2)]),
    (Channel("orders", Struct), [Struct(1, "é"), Struct(2)]),
    (Channel("orders", Model), [Model(id=1, note="é"), Model(id=2)]),
    (Channel("orders", Order | None), [Order(1), None]),
    (Channel("orders", list[Model | Order]), [[Model(id=1)], []]),
    (Channel("orders", encode=write_celsius, decode=read_celsius), [Celsius(21.5), Celsius(-3)]),
    (Channel("orders", Order, **LAYERS), [Order(1, ["long " * 1_000]), Order(2)]),
    (Channel("orders", **LAYERS), ["\x01 and long " * 500, ""]),
]
TEXT: Final = Channel("orders")
ORDERS: Final = Channel("orders", Order)


class Counted:
    """A decoder that counts its calls."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls = 0
        self.seconds = seconds
        self.channel = Channel("orders", encode=str, decode=self)

    def __call__(self, text: str) -> int:
        """Decode a number, in the time it takes."""
        self.calls += 1
        time.sleep(self.seconds)  # stands for a slow decoder
        return int(text)


async def payloads(stream: Stream[Notification[Any]], count: int) -> list[Any]:
    """Return the next so many payloads."""
    return [(await anext(stream)).payload for _ in range(count)]


# -- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0]))
async def test_every_consumer_gets_the_value_that_was_sent(
    listener: Listener, new_inbox: type[Any_], case: tuple[Channel[Any], list[object]]
) -> None:
    """By async and plain handlers, latest, concurrency, streams and batches: equal, of its type."""
    channel, values = case
    plain, later, newest, several = inboxes = [new_inbox() for _ in range(4)]

    async def handle(notification: Notification[Any]) -> None:
        await asyncio.sleep(0)
        later(notification)

    await listener.listen(channel, plain)
    await listener.listen(channel, handle)
    await listener.listen(channel, newest, latest=True)
    await listener.listen(channel, several, concurrency=3)
    async with listener.stream(channel) as stream, listener.stream(channel) as batched:
        for value in values:
            await listener.notify(channel, value)
            received = [await inbox.next() for inbox in inboxes]
            received += [await anext(stream), *(await anext(batched.batches()))]
            assert [n.payload for n in received] == [value] * 6
            assert {type(n.payload) for n in received} == {type(value)}
            assert {(type(n), n.channel) for n in received} == {(Notification, "orders")}
    assert listener.stats().decode_errors == 0


async def test_a_notifier_and_a_listener_need_share_the_channel_only(
    factory: ListenerFactory, listener: Listener
) -> None:
    """What notify() and notify_many() of a Notifier encode is what streams decode, in order."""
    totals = Channel("totals", int)
    notifier = Notifier(factory.dsn)
    async with notifier, listener.stream(ORDERS, totals) as stream:
        await notifier.notify(ORDERS, Order(1))
        assert (
            await notifier.notify_many(
                [(ORDERS, Order(2)), (totals, 3), ("orders", '{"id":4,"tags":["x"]}')]
            )
            == 3
        )
        assert await payloads(stream, 4) == [Order(1), Order(2), 3, Order(4, ["x"])]


async def test_a_decorated_handler_gets_values(
    factory: ListenerFactory, new_inbox: type[Any_]
) -> None:
    """on() takes a Channel, before the start and after it."""
    inbox = new_inbox()
    listener = factory.listener()
    decorated = listener.on(ORDERS)(inbox)
    assert decorated is inbox
    assert listener.channels == {"orders"}
    async with listener:
        listener.on(Channel("totals", int), latest=True)(inbox)
        await listener.notify(ORDERS, Order(1))
        assert (await inbox.next()).payload == Order(1)
        await listener.unlisten("fence")  # the server has confirmed what was asked for before
        await listener.notify("totals", "7")
        assert (await inbox.next()).payload == 7


@pytest.mark.needs_server("sql")
async def test_fields_of_sql_arrive_as_values(listener: Listener, database: Database) -> None:
    """What PostgreSQL makes of a row is as good as what we have encoded."""
    async with listener.stream(ORDERS) as stream:
        await database.connection.execute(
            "SELECT pg_notify('orders', row_to_json(o)::text)"
            " FROM (VALUES (7, ARRAY['a', E'\\u00e9'])) o (id, tags)"
        )
        assert await payloads(stream, 1) == [Order(7, ["a", "é"])]


# -- one way only, and bytes ----------------------------------------------------------------------


async def test_functions_that_code_bytes_need_nothing_around_them(listener: Listener) -> None:
    """What libraries offer for JSON is given as it is."""
    channel: Channel[Any] = Channel(
        "orders", encode=msgspec.json.encode, decode=msgspec.json.decode
    )
    async with listener.stream(channel) as stream:
        await listener.notify(channel, {"é": [1]})
        assert await payloads(stream, 1) == [{"é": [1]}]


async def test_r48_a_channel_of_one_function_is_used_in_its_direction(
    factory: ListenerFactory, listener: Listener, database: Database, new_inbox: type[Any_]
) -> None:
    """What a trigger sends is received; what is sent, others receive; no more is asked for."""
    receiving = Channel("sizes", decode=int)
    sending = Channel("sizes", encode=str, unique=True)
    inbox = new_inbox()
    await listener.listen(receiving, inbox)
    await database.notify("sizes", "7")
    assert (await inbox.next()).payload == 7
    async with listener.stream(Channel("sizes", decode=int, unique=True)) as stream:
        await listener.notify(sending, 8)
        assert await payloads(stream, 1) == [8]


async def test_r48_the_other_direction_is_refused_before_any_io(factory: ListenerFactory) -> None:
    """By every call that would send or listen, also of what has not been started."""
    receiving, sending = Channel("sizes", decode=int), Channel("sizes", encode=str)
    listener, notifier = factory.listener(), Notifier(factory.dsn)
    listen: list[Callable[[], Any]] = [
        lambda: listener.stream(sending),
        lambda: listener.stream("orders", sending),
        lambda: listener.on(sending),
        lambda: listener.listen(sending, print).send(None),
    ]
    notify: list[Callable[[], Any]] = [
        lambda: listener.notify(receiving, 7).send(None),
        lambda: notifier.notify(receiving, 7).send(None),
    ]
    for calls, missing in ((listen, "decode"), (notify, "encode")):
        for call in calls:
            with pytest.raises(ChannelDirectionError, match=f"without {missing}="):
                call()
    async with notifier:
        with pytest.raises(ChannelDirectionError):
            await notifier.notify_many([("orders", "1"), (receiving, 7)])
    assert listener.channels == frozenset()


# -- side by side ---------------------------------------------------------------------------------


async def test_each_subscription_of_a_channel_has_its_own_form(
    listener: Listener, new_inbox: type[Any_]
) -> None:
    """One LISTEN serves a name and three Channels of that name; each decodes for itself."""
    forms: list[tuple[str | Channel[Any], object]] = [
        ("orders", '{"id":1,"tags":[]}'),
        (TEXT, '{"id":1,"tags":[]}'),
        (ORDERS, Order(1)),
        (Channel("orders", dict), {"id": 1, "tags": []}),
    ]
    inboxes = [new_inbox() for _ in forms]
    for inbox, (channel, _) in zip(inboxes, forms, strict=True):
        await listener.listen(channel, inbox)
    async with (
        listener.stream(ORDERS) as stream,
        listener.stream(Channel("orders", Struct)) as other,
        listener.stream("orders") as plain,
    ):
        assert listener.channels == {"orders"}
        await listener.notify(ORDERS, Order(1))
        for inbox, (_, value) in zip(inboxes, forms, strict=True):
            assert (await inbox.next()).payload == value
        assert await payloads(stream, 1) == [Order(1)]
        assert await payloads(other, 1) == [Struct(1)]
        assert await payloads(plain, 1) == ['{"id":1,"tags":[]}']


async def test_channels_and_names_share_a_stream(listener: Listener, database: Database) -> None:
    """In a stream of several each channel is decoded as it says, and the order is the server's."""
    totals = Channel("totals", int)
    async with listener.stream(ORDERS, "events", totals) as stream:
        for n in range(5):
            await database.notify("orders", f'{{"id":{n}}}')
            await database.notify("events", str(n))
            await database.notify("totals", str(n))
        assert await payloads(stream, 15) == [
            value for n in range(5) for value in (Order(n), str(n), n)
        ]
        await listener.unlisten(ORDERS)
        assert listener.channels == {"events", "totals"}
        await database.notify("orders", '{"id":5}')
        await database.notify("totals", "5")
        assert await payloads(stream, 1) == [5]


async def test_a_channel_ends_what_its_name_began(listener: Listener, database: Database) -> None:
    """unlisten() takes either, whichever listen() was given."""
    await listener.listen("orders", print)
    await listener.listen(Channel("events", dict), print)
    await listener.unlisten(Channel("orders", int))
    await listener.unlisten("events")
    assert listener.channels == frozenset()
    assert await database.server_channels(listener) == set()


# -- when and where -------------------------------------------------------------------------------


async def test_nothing_is_decoded_before_it_is_taken(
    listener: Listener, database: Database
) -> None:
    """What has arrived waits as text; what is dropped or replaced is never decoded."""
    kept, dropped, replaced = Counted(), Counted(), Counted()
    async with (
        listener.stream(kept.channel) as waiting,
        listener.stream(dropped.channel, buffer=5, gaps=True) as small,
        listener.stream(replaced.channel, latest=True) as newest,
    ):
        await database.flood("orders", 1_000)
        await database.fence(listener)
        assert (kept.calls, dropped.calls, replaced.calls) == (0, 0, 0)
        assert await payloads(waiting, 10) == list(range(1, 11))
        assert await payloads(newest, 1) == [1_000]
        first, second = await anext(small), await anext(small)
        assert isinstance(first, Gap)
        assert isinstance(second, Gap)
        assert (second.reason, second.dropped) == (GapReason.OVERFLOW, 995)
        rest = [await anext(small) for _ in range(5)]
        assert [n.payload for n in rest if isinstance(n, Notification)] == list(range(996, 1_001))
        assert (kept.calls, dropped.calls, replaced.calls) == (10, 5, 1)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_slow_decoder_delays_its_own_subscription_only(
    listener: Listener, database: Database, new_inbox: type[Any_], concurrency: int
) -> None:
    """Others, of the same channel as well, get what came later while it is still decoding."""
    slow, inbox, calls = Counted(seconds=0.02), new_inbox(), list[int]()

    def look(_: Notification[str]) -> None:
        calls.append(slow.calls)

    await listener.listen(slow.channel, inbox, concurrency=concurrency)
    await listener.listen("orders", look)
    await listener.listen("events", look)
    async with database.transaction():
        await database.flood("orders", 30)
        await database.notify("events", "")
    assert [(await inbox.next()).payload for _ in range(30)] == list(range(1, 31))
    assert len(calls) == 31
    assert max(calls) < 15


async def test_typed_handlers_have_gaps_and_errors_like_others(
    listener: Listener, database: Database, new_inbox: type[Inbox[Any]]
) -> None:
    """resync comes first; on_error gets what the handler raised, and the value it was given."""
    gaps, errors = new_inbox(), new_inbox()

    def fail(notification: Notification[Order]) -> None:
        raise LookupError(notification.payload.id)

    def tell(error: BaseException, item: object) -> None:
        errors((error, item))

    subscription = await listener.listen(ORDERS, fail, resync=gaps, on_error=tell)
    await listener.notify(ORDERS, Order(1))
    assert (await gaps.next()).reason is GapReason.START
    error, item = await errors.next()
    assert isinstance(error, LookupError)
    assert item.payload == Order(1)
    await database.interrupt(listener)
    assert (await gaps.next()).reason is GapReason.RECONNECT
    stats = subscription.stats()
    assert (stats.handler_errors, stats.decode_errors, stats.delivered) == (1, 0, 1)


# -- refused early --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "payload", "error"),
    [
        (ORDERS, {"id": 1}, PayloadError),
        (ORDERS, Order("1"), PayloadError),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (ORDERS, "", PayloadError),
        (TEXT, b"", PayloadError),
        (ORDERS, Order(1, ["x" * 8_000]), PayloadTooLargeError),
        (Channel("orders", encode=write_celsius, decode=read_celsius), 5, PayloadError),
    ],
    ids=lambda thing: f"{thing!r:.30}",
)
async def test_r40_what_a_channel_cannot_encode_is_refused_before_anything_is_sent(
    channel: Channel[Any], payload: object, error: type[Exception]
) -> None:
    """notify() raises at once, though nothing runs that could send."""
    listener = Listener("postgresql://nowhere.invalid/db")
    notifier = Notifier("postgresql://nowhere.invalid/db")
    with pytest.raises(error):
        await listener.notify(channel, payload)
    with pytest.raises(error):
        await notifier.notify(channel, payload)


NO_CHANNELS: Final = [None, 5, b"orders", ("orders",), Channel, Order, "", "a" * 64]


@pytest.mark.parametrize("channel", NO_CHANNELS, ids=lambda thing: f"{thing!r:.20}")
async def test_what_is_no_channel_is_refused_before_anything_is_sent(channel: Any) -> None:
    """Every call that takes a channel says what is wrong with it, though nothing runs."""
    listener = Listener("postgresql://nowhere.invalid/db")
    calls: list[Callable[[], object]] = [
        lambda: listener.on(channel),
        lambda: listener.stream(channel),
        lambda: listener.stream(ORDERS, channel),
    ]
    for call in calls:
        with pytest.raises(ChannelNameError):
            call()
    for coroutine in (
        listener.listen(channel, print),
        listener.unlisten(channel),
        listener.notify(channel, ""),
    ):
        with pytest.raises(ChannelNameError):
            await coroutine


@pytest.mark.parametrize(
    "channels", [(ORDERS, Channel("orders", dict)), ("orders", ORDERS)], ids=["two", "name"]
)
def test_two_forms_of_one_channel_do_not_share_a_stream(channels: Any) -> None:
    """A stream that would decode one channel in two ways is refused; the same one twice is not."""
    listener = Listener("postgresql://nowhere.invalid/db")
    listener.stream(ORDERS, ORDERS)
    with pytest.raises((TypeError, ValueError)):
        listener.stream(*channels)


def test_an_on_error_that_cannot_be_called_is_refused() -> None:
    """A stream refuses it when it is made, as a handler's registration does."""
    listener = Listener("postgresql://nowhere.invalid/db")
    wrong: Any = "print"
    with pytest.raises(TypeError, match="on_error"):
        listener.stream(ORDERS, on_error=wrong)
