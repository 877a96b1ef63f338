"""A Notifier as its users know it: what arrives, in which order, and what each caller is told."""

from __future__ import annotations

import asyncio
import re
from itertools import repeat
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    Channel,
    ChannelNameError,
    ClosedError,
    ConnectError,
    Listener,
    Notification,
    Notifier,
    PayloadError,
    PayloadTooLargeError,
)
from asyncnotify.testing.server import PostgresServer
from tests.contract.round_trips import round_trips
from tests.support.machine import scaled
from tests.support.server_features import needs_small_queue, small_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify.testing.fake import FakeServer
    from asyncnotify.testing.proxy import FaultProxy
    from tests.contract.conftest import Database, Inbox

    Text = Inbox[Notification[str]]

BAD = [
    ("", "p", ChannelNameError),
    ("c" * 64, "p", ChannelNameError),
    (7, "p", ChannelNameError),
    ("c", "p" * 8_000, PayloadTooLargeError),
    ("c", "a\0b", PayloadError),
    ("c", None, PayloadError),
    (Channel("c", int), "text", PayloadError),
]


@pytest_asyncio.fixture
async def listener(dsn: str, inbox: Text) -> AsyncIterator[Listener]:
    """A listener on orders, so that all that is sent there can be looked at."""
    async with Listener(dsn) as listener:
        await listener.listen("orders", inbox)
        yield listener


@pytest_asyncio.fixture
async def notifier(dsn: str) -> AsyncIterator[Notifier]:
    """A running notifier."""
    async with Notifier(dsn) as notifier:
        yield notifier


# -- what arrives ---------------------------------------------------------------------------------


async def test_each_callers_notifications_keep_their_order(
    listener: Listener, notifier: Notifier, inbox: Text
) -> None:
    """Of fifty tasks that send without a pause each finds its own in its own order, once."""

    async def send(name: int) -> None:
        for n in range(20):
            await notifier.notify("orders", f"{name} {n}")

    await asyncio.gather(*(send(name) for name in range(50)))
    payloads = await inbox.payloads(1_000)
    assert len(set(payloads)) == 1_000
    for name in range(50):
        mine = [payload for payload in payloads if payload.startswith(f"{name} ")]
        assert mine == [f"{name} {n}" for n in range(20)]


async def test_equal_notifications_of_several_callers_each_arrive(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text
) -> None:
    """PostgreSQL folds equal ones in a transaction; two hundred callers are two hundred."""
    await asyncio.gather(*(notifier.notify("orders", "same") for _ in range(200)))
    await database.fence(listener)
    assert [n.payload for n in inbox.taken()] == ["same"] * 200


async def test_equal_notifications_keep_no_other_caller_waiting(
    listener: Listener, notifier: Notifier, database: Database, inbox: Text
) -> None:
    """Of 1,000 equal ones one goes out in each transaction, and the others go beside them."""
    same = [asyncio.create_task(notifier.notify("orders", "same")) for _ in range(1_000)]
    other = asyncio.create_task(notifier.notify("orders", "other"))
    await asyncio.gather(*same, other)
    await database.fence(listener)
    payloads = [n.payload for n in inbox.taken()]
    assert payloads.count("same") == 1_000
    assert payloads.index("other") < 20


async def test_channels_encode_and_names_do_not(listener: Listener, notifier: Notifier) -> None:
    """A Channel makes text of a payload; a name takes text, or nothing."""
    counts = Channel("counts", dict[str, int])
    async with listener.stream(counts) as typed, listener.stream("plain") as plain:
        await notifier.notify(counts, {"id": 1})
        await notifier.notify("plain")
        assert (await anext(typed)).payload == {"id": 1}
        assert (await anext(plain)).payload == ""


# -- statements -----------------------------------------------------------------------------------


async def test_a_call_that_is_alone_is_one_statement(
    proxy: FaultProxy, fake: FakeServer | None, dsn: str
) -> None:
    """Each of twenty calls, one after another, is a single round trip."""
    async with Notifier(proxy.proxied_dsn(dsn)) as notifier:
        await notifier.notify("orders", "first")  # which the driver prepares
        with round_trips(proxy, fake) as trips:
            for n in range(20):
                await notifier.notify("orders", str(n))
    assert trips.count == 20


def sent_alone() -> int:
    """Return how many of many calls go out before the others are made: none of eager tasks."""
    return 1 if asyncio.get_running_loop().get_task_factory() is None else 0


async def test_calls_that_meet_are_few_statements(
    proxy: FaultProxy, fake: FakeServer | None, dsn: str
) -> None:
    """Two thousand calls at once, and a hundred tasks that send on and on, share statements."""
    async with Notifier(proxy.proxied_dsn(dsn)) as notifier:

        async def send(name: int) -> None:
            for n in range(20):
                await notifier.notify("orders", f"{name} {n}")

        with round_trips(proxy, fake) as at_once:
            await asyncio.gather(*(notifier.notify("orders", str(n)) for n in range(2_000)))
        with round_trips(proxy, fake) as in_turns:
            await asyncio.gather(*(send(name) for name in range(100)))
    assert 2 + sent_alone() <= at_once.count < 30  # a thousand in each
    assert in_turns.count < 100


async def test_statements_are_bounded(
    proxy: FaultProxy, fake: FakeServer | None, dsn: str, listener: Listener, inbox: Text
) -> None:
    """Two megabytes go out in several statements, a thousand short ones in more than one."""
    payloads = [f"{n:07999}" for n in range(250)]
    async with Notifier(proxy.proxied_dsn(dsn)) as notifier:
        with round_trips(proxy, fake) as large:
            await asyncio.gather(*(notifier.notify("orders", payload) for payload in payloads))
        with round_trips(proxy, fake) as small:
            await notifier.notify_many(("other", str(n)) for n in range(3_001))
    assert 2 + sent_alone() <= large.count < 20  # a million characters in each
    assert 4 <= small.count <= 8  # three whole, one single, and preparing them
    assert await inbox.payloads(250) == payloads


# -- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "payload", "error"), BAD)
async def test_r40_what_cannot_be_sent_is_refused_before_any_io(
    database: Database, dsn: str, channel: object, payload: object, error: type[Exception]
) -> None:
    """A wrong name or payload raises at once, and no connection has been made for it."""
    notifier = Notifier(dsn)
    notify: Any = notifier.notify  # of which a type checker would say so too
    for retry in (False, True):
        with pytest.raises(error):
            await notify(channel, payload, retry=retry)
    assert await database.backends() == []
    await notifier.aclose()


async def test_a_wrong_call_fails_alone(
    listener: Listener, notifier: Notifier, inbox: Text
) -> None:
    """Among calls that meet, each bad one gets its own error, and the good ones arrive."""
    calls = [(channel, payload) for channel, payload, _ in BAD for _ in range(3)]
    good = [("orders", str(n)) for n in range(len(calls))]
    mixed: list[tuple[Any, Any]] = [
        pair for pairs in zip(good, calls, strict=True) for pair in pairs
    ]
    results = await asyncio.gather(
        *(notifier.notify(*pair) for pair in mixed), return_exceptions=True
    )
    assert results[::2] == [None] * len(good)
    assert [type(error) for error in results[1::2]] == [e for _, _, e in BAD for _ in range(3)]
    assert await inbox.payloads(len(good)) == [payload for _, payload in good]


async def test_r40_what_the_server_refuses_surfaces_unchanged(database: Database) -> None:
    """A role that may not notify gets the server's error, one for each call, without retries."""
    async with database.guest() as guest, Notifier(**guest.arguments) as notifier:
        [backend] = await database.until_backends(1)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await notifier.notify("orders", "alone", retry=True)
        results = await asyncio.gather(
            *(notifier.notify("orders", str(n)) for n in range(5)), return_exceptions=True
        )
        assert {type(error) for error in results} == {asyncpg.InsufficientPrivilegeError}
        assert len({id(error) for error in results}) == 5
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await notifier.notify_many([("orders", "1"), ("orders", "2")])
        assert [b["pid"] for b in await database.backends()] == [backend["pid"]]
        await guest.be_allowed()
        await notifier.notify("orders", "now")


async def test_r40_a_full_queue_is_each_callers_error(template: PostgresServer) -> None:
    """The server takes what fits: each caller is told of its own, and what was told is true."""
    needs_small_queue(template)
    with PostgresServer(template=template, settings=small_queue(template)) as server:
        laggard = await asyncpg.connect(server.dsn)
        await laggard.execute("LISTEN orders")
        await laggard.execute("BEGIN; SELECT 1")
        heard: list[str] = []

        def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            heard.append(str(payload)[:4])

        await laggard.add_listener("orders", hear)
        async with Notifier(server.dsn) as notifier:
            results = await asyncio.gather(
                *(notifier.notify("orders", f"{n:04}".ljust(7_999)) for n in range(100)),
                return_exceptions=True,
            )
            kinds = {type(result) for result in results}
            assert kinds == {type(None), asyncpg.ProgramLimitExceededError}
            await laggard.execute("COMMIT")
            await laggard.execute("SELECT 1")
        accepted = [f"{n:04}" for n, result in enumerate(results) if result is None]
        assert heard == accepted
        await laggard.close()


# -- lifetime -------------------------------------------------------------------------------------


async def test_it_need_not_be_started(dsn: str, database: Database, inbox: Text) -> None:
    """The first notification connects; nothing is opened before, and nothing is left."""
    notifier = Notifier(dsn)
    assert await database.backends() == []
    async with Listener(dsn) as listener:
        await listener.listen("orders", inbox)
        await asyncio.gather(*(notifier.notify("orders", str(n)) for n in range(3)))
        await database.until_backends(2)
        assert await inbox.payloads(3) == ["0", "1", "2"]
        await notifier.aclose()
        await database.until_backends(1)


async def test_start_connects_once(dsn: str, database: Database) -> None:
    """Started as often as one likes, it has one connection, in no transaction."""
    notifier = Notifier(dsn)
    await asyncio.gather(*(notifier.start() for _ in range(5)))
    await notifier.start()
    [backend] = await database.backends()
    assert (backend["state"], backend["xact_start"]) == ("idle", None)
    await notifier.aclose()


async def test_aclose_sends_what_was_accepted_and_says_what_was_not(
    dsn: str, listener: Listener, database: Database, inbox: Text
) -> None:
    """Exactly the calls that succeed have arrived; those beyond the queue are refused."""
    notifier = Notifier(dsn, queue=100)
    await notifier.start()
    calls = [asyncio.create_task(notifier.notify("orders", str(n))) for n in range(300)]
    await asyncio.sleep(0)
    await notifier.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), ClosedError}
    sent = [str(n) for n, result in enumerate(results) if result is None]
    assert len(sent) >= 100
    await database.fence(listener)
    assert [n.payload for n in inbox.taken()] == sent


async def test_aclose_is_idempotent_and_for_any_task(dsn: str, database: Database) -> None:
    """Five tasks close it at once, and once more; afterwards calls are refused."""
    notifier = Notifier(dsn)
    await notifier.aclose()
    await notifier.start()
    calls = [asyncio.create_task(notifier.notify("orders", str(n))) for n in range(10)]
    await asyncio.gather(*(asyncio.create_task(notifier.aclose()) for _ in range(5)))
    await notifier.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), ClosedError}
    for refused in (notifier.notify("orders"), notifier.notify_many([("orders", "")])):
        with pytest.raises(ClosedError):
            await refused
    await database.until_backends(0)


async def test_start_after_aclose_begins_anew(
    dsn: str, listener: Listener, database: Database, inbox: Text
) -> None:
    """Closed and started again, twice, it sends."""
    notifier = Notifier(dsn)
    for n in range(3):
        async with notifier:
            await notifier.notify("orders", str(n))
        with pytest.raises(ClosedError):
            await notifier.notify("orders", "closed")
    assert await inbox.payloads(3) == ["0", "1", "2"]
    await database.until_backends(1)


async def test_leaving_with_an_exception_still_sends_what_was_accepted(
    dsn: str, listener: Listener, inbox: Text
) -> None:
    """The exception passes, and the accepted calls have been committed."""
    calls: list[asyncio.Task[None]] = []

    async def leave() -> None:
        async with Notifier(dsn) as notifier:
            calls.extend(asyncio.create_task(notifier.notify("orders", str(n))) for n in range(5))
            await asyncio.sleep(0)
            raise LookupError

    with pytest.raises(LookupError):
        await leave()
    await asyncio.gather(*calls)
    assert await inbox.payloads(5) == ["0", "1", "2", "3", "4"]


async def test_r53_a_start_that_is_cancelled_leaves_the_calls_of_others(
    dsn: str, proxy: FaultProxy
) -> None:
    """They go on to wait, or to try again, and succeed when the server is back."""
    notifier = Notifier(proxy.proxied_dsn(dsn), connect_timeout=30)
    proxy.pause()
    starting = asyncio.create_task(notifier.start())
    await proxy.wait_for_connections(1)
    calls = [
        asyncio.create_task(notifier.notify("orders", "1", retry=retry)) for retry in (False, True)
    ]
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    proxy.resume()
    await asyncio.gather(*calls)
    await notifier.aclose()


@pytest.mark.needs_server("driver")
async def test_r53_a_start_that_fails_leaves_another_that_waits_to_try_again(dsn: str) -> None:
    """Which succeeds once the server is there, and has sent nothing by then."""
    refused: asyncio.Queue[None] = asyncio.Queue()
    is_there = asyncio.Event()

    async def connect() -> asyncpg.Connection[Any]:
        if not is_there.is_set():
            refused.put_nowait(None)
            raise ConnectionRefusedError
        return await asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})

    notifier = Notifier(connect=connect, backoff=lambda: repeat(0.3))
    failing, other = (asyncio.create_task(notifier.start()) for _ in range(2))
    await refused.get()
    for _ in range(20):  # all attempts that met have failed: now both wait
        await asyncio.sleep(0)
    failing.cancel()
    await asyncio.wait({failing})
    is_there.set()
    await other
    await notifier.notify("orders")
    await notifier.aclose()


async def test_a_start_that_fails_leaves_nothing_and_may_be_repeated(
    dsn: str, proxy: FaultProxy, database: Database
) -> None:
    """The error names the target and its cause; when the server is back start() succeeds."""
    notifier = Notifier(proxy.proxied_dsn(dsn), start_timeout=scaled(0.5))
    proxy.refuse()
    target = re.escape(repr(notifier).removeprefix("<Notifier ").removesuffix(">"))
    with pytest.raises(ConnectError, match=target) as caught:
        await notifier.start()
    assert isinstance(caught.value.__cause__, OSError)
    assert not [task for task in asyncio.all_tasks() if "asyncnotify" in task.get_name()]
    with pytest.raises(ConnectError):
        await notifier.notify("orders", "1")
    proxy.accept()
    async with notifier:
        await notifier.notify("orders", "1")
    await database.until_backends(0)


async def test_r12_a_start_that_no_retry_can_help_is_refused_at_once(database: Database) -> None:
    """A database that is not there: start() does not wait for its timeout."""
    notifier = Notifier(database.dsn_of_none(), start_timeout=3_600)
    async with asyncio.timeout(scaled(10)):
        with pytest.raises(ConnectError):
            await notifier.start()


async def test_losing_a_running_notifier_is_warned_of(dsn: str) -> None:
    """Its connection stays open: who has no reference cannot close it. A closed one may be lost."""
    held = [Notifier(dsn) for _ in range(3)]
    await asyncio.gather(*(notifier.notify("orders", "1") for notifier in held[:2]))
    await held[1].aclose()
    run = held[0]._run  # noqa: SLF001 - to end it
    with pytest.warns(ResourceWarning, match=r"<Notifier .*> was not closed") as warned:
        held.clear()
    assert len(warned) == 1
    assert run is not None
    await run.end(0)
