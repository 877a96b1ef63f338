"""notify_many(): in order, in whole transactions, and with a true account of what was sent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify import (
    Channel,
    ChannelNameError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    Listener,
    Notification,
    Notifier,
    PayloadTooLargeError,
)
from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator

    from tests.contract.conftest import Database, Inbox

    Text = Inbox[Notification[str]]
    Pair = tuple[str, str]


@pytest_asyncio.fixture
async def notifier(proxy: FaultProxy, dsn: str) -> AsyncIterator[Notifier]:
    """A running notifier, behind the proxy."""
    async with Notifier(proxy.proxied_dsn(dsn)) as notifier:
        yield notifier


@pytest_asyncio.fixture
async def listener(dsn: str, inbox: Text) -> AsyncIterator[Listener]:
    """A listener on orders, past the proxy."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", inbox)
        yield listener


def numbers(count: int) -> Iterator[Pair]:
    """Yield so many pairs."""
    return (("orders", str(n)) for n in range(count))


async def slowly(pairs: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield them with a turn of the loop before each."""
    for pair in pairs:
        await asyncio.sleep(0)
        yield pair


def note(error: BaseException) -> str:
    """Return what was noted on an exception."""
    [text] = error.__notes__
    return str(text)


@pytest.mark.parametrize("form", [list, iter, slowly], ids=["list", "iterator", "async"])
async def test_ten_thousand_arrive_in_order(
    listener: Listener, notifier: Notifier, inbox: Text, form: Callable[[Any], Any]
) -> None:
    """From a list, a generator or an asynchronous one; the call says how many there were."""
    assert await notifier.notify_many(form(numbers(10_000))) == 10_000
    assert await inbox.payloads(10_000) == [str(n) for n in range(10_000)]


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_000])
async def test_the_edges_of_a_transaction(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text, count: int
) -> None:
    """None, one, a whole one, and one more."""
    assert await notifier.notify_many(numbers(count)) == count
    await database.fence(listener)
    assert [n.payload for n in inbox.taken()] == [str(n) for n in range(count)]


async def test_equal_ones_fold_unless_they_are_unique(
    notifier: Notifier, dsn: str, database: Database
) -> None:
    """What PostgreSQL does within a transaction, and the way around it."""
    unique = Channel("unique", int, unique=True)
    async with (
        Listener(dsn) as listener,
        listener.stream("folded") as folded,
        listener.stream(unique) as each,
    ):
        assert await notifier.notify_many([("folded", "7")] * 5 + [(unique, 7)] * 5) == 10
        await notifier.notify("folded", "end")
        await notifier.notify(unique, 0)
        assert [(await anext(folded)).payload for _ in range(2)] == ["7", "end"]
        assert [(await anext(each)).payload for _ in range(6)] == [7] * 5 + [0]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (("", "p"), ChannelNameError),
        (("orders", "p" * 8_000), PayloadTooLargeError),
        ("no pair", TypeError),
        (("orders",), TypeError),
    ],
    ids=["channel", "payload", "no pair", "too short"],
)
async def test_what_is_wrong_ends_it_and_says_what_was_sent(
    listener: Listener,
    notifier: Notifier,
    database: Database,
    inbox: Text,
    *,
    bad: Any,
    error: type[Exception],
) -> None:
    """The whole transactions before a bad pair arrive; nothing of its own, nothing after it."""
    pairs = [*numbers(2_500), bad, *numbers(10)]
    with pytest.raises(error) as caught:
        await notifier.notify_many(pairs)
    assert note(caught.value).startswith("2000 ")
    await database.fence(listener)
    assert [n.payload for n in inbox.taken()] == [str(n) for n in range(2_000)]
    assert await notifier.notify_many(numbers(1)) == 1


async def test_what_the_pairs_raise_passes(notifier: Notifier) -> None:
    """An iterator's own error ends it, with the same note."""

    def failing() -> Iterator[Pair]:
        yield from numbers(1_000)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await notifier.notify_many(failing())
    assert note(caught.value).startswith("1000 ")


async def test_a_connection_that_dies_leaves_doubt_on_one_transaction(
    listener: Listener, notifier: Notifier, proxy: FaultProxy, database: Database, inbox: Text
) -> None:
    """The note counts what is certain; the rest is not repeated, and the next call works."""
    proxy.cut_on(b"2345", then=ProxiedConnection.reset, answer=b"SELECT 1")
    with pytest.raises(ConnectionLostError, match="may or may not") as caught:
        await notifier.notify_many(numbers(5_000))
    assert note(caught.value).startswith("2000 ")
    assert await notifier.notify_many(numbers(2)) == 2
    await database.fence(listener)
    payloads = [n.payload for n in inbox.taken()]
    assert payloads == [*map(str, range(3_000)), "0", "1"]


async def test_without_a_connection_nothing_was_sent(proxy: FaultProxy, dsn: str) -> None:
    """The error says why, and that it was none."""
    proxy.refuse()
    notifier = Notifier(proxy.proxied_dsn(dsn))
    with pytest.raises(ConnectError) as caught:
        await notifier.notify_many(numbers(5))
    assert note(caught.value).startswith("0 ")
    await notifier.aclose()


async def test_closed_in_the_middle_it_says_what_was_sent(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text
) -> None:
    """The transaction that came after aclose() is refused, and not counted."""

    async def pairs() -> AsyncIterator[Pair]:
        for pair in numbers(1_000):
            yield pair
        await notifier.aclose()
        for pair in numbers(1_000):
            yield pair

    with pytest.raises(ClosedError) as caught:
        await notifier.notify_many(pairs())
    assert note(caught.value).startswith("1000 ")
    await database.fence(listener)
    assert len(inbox) == 1_000


async def test_the_next_ones_are_taken_while_the_server_works(
    notifier: Notifier, proxy: FaultProxy
) -> None:
    """The second thousand is asked for though the first has not been answered."""
    asked = asyncio.Event()

    async def pairs() -> AsyncIterator[Pair]:
        for pair in numbers(1_000):
            yield pair
        asked.set()
        yield "orders", "last"

    await notifier.notify("orders", "warm")
    proxy.black_hole("to_client")
    sending = asyncio.create_task(notifier.notify_many(pairs()))
    await asked.wait()
    assert not sending.done()
    proxy.heal()
    assert await sending == 1_001


async def test_single_calls_pass_between_the_transactions(
    listener: Listener, notifier: Notifier, inbox: Text
) -> None:
    """While many are being sent others need not wait for the end, and all keep their order."""
    many = asyncio.create_task(notifier.notify_many(numbers(20_000)))
    await inbox.next()
    await notifier.notify("orders", "single")
    assert not many.done()
    await many
    payloads = await inbox.payloads(20_000)
    place = payloads.index("single")
    assert place < 19_000
    assert payloads[:place] + payloads[place + 1 :] == [str(n) for n in range(1, 20_000)]


@pytest.mark.parametrize("moment", ["in flight", "waiting for pairs"])
async def test_cancelled_it_leaves_nothing_unfinished(
    notifier: Notifier, proxy: FaultProxy, moment: str
) -> None:
    """The iterator is closed, nobody's failure goes unseen, and the notifier works."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
    stuck, ended = asyncio.Event(), asyncio.Event()

    async def pairs() -> AsyncGenerator[Pair]:
        try:
            for pair in numbers(1_000 if moment == "waiting for pairs" else 3_000):
                yield pair
            stuck.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    await notifier.notify("orders", "warm")
    async with contextlib.aclosing(pairs()) as source:
        held = proxy.cut_on(b"999", then="black_hole")
        sending = asyncio.create_task(notifier.notify_many(source))
        await held.wait()
        if moment == "waiting for pairs":
            await stuck.wait()
        sending.cancel()
        await asyncio.wait({sending})
        assert sending.cancelled()
        del sending
    assert ended.is_set()
    proxy.reset()  # what was in flight fails now, and nobody waits for it
    proxy.heal()
    assert await notifier.notify_many(numbers(3)) == 3
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)
    assert complaints == []
