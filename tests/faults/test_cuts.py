"""The network cut in the middle of a call: before the server has heard of it, and after."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify import (
    Closed,
    ConnectError,
    ConnectionLost,
    ConnectionLostError,
    ExponentialBackoff,
    Notification,
    Reconnected,
)
from asyncnotify.testing.proxy import ProxiedConnection
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing.proxy import Direction
    from tests.faults.conftest import ProxiedDatabase

    Cut = Callable[[ProxiedConnection], None]

LIMITS = {"heartbeat": 0.2, "heartbeat_timeout": scaled(0.2), "operation_timeout": scaled(0.3)}
AT_ONCE = ExponentialBackoff(initial=0.001, cap=0.001)
TERMINATE = b"X\0\0\0\4"
WAIT_LIMIT = scaled(10.0)

by_dsn_and_by_connect = pytest.mark.parametrize("connects_by", ["dsn", "connect"])
in_every_way = pytest.mark.parametrize(
    "cut", [ProxiedConnection.reset, ProxiedConnection.fin, ProxiedConnection.pause]
)
in_both_ways = pytest.mark.parametrize("cut", [ProxiedConnection.reset, ProxiedConnection.pause])


def before_or_after(answer: bytes) -> pytest.MarkDecorator:
    """Cut before the server has received the statement, or when it has answered."""
    return pytest.mark.parametrize("answer", [None, answer], ids=["unheard", "unanswered"])


@by_dsn_and_by_connect
@in_both_ways
@before_or_after(b"LISTEN\0")
async def test_p3_listen_survives_a_cut(
    database: ProxiedDatabase, cut: Cut, answer: bytes | None
) -> None:
    """listen() whose connection dies under it returns once the next one listens."""
    received: asyncio.Queue[Notification[str]] = asyncio.Queue()
    async with database.running(**LIMITS) as subject:
        made = database.proxy.cut_on(b'LISTEN "orders"', then=cut, answer=answer)
        async with asyncio.timeout(WAIT_LIMIT):
            await subject.listener.listen("orders", received.put_nowait)
        assert made.detected
        await database.notify("orders", "heard")
        async with asyncio.timeout(WAIT_LIMIT):
            assert (await received.get()).payload == "heard"
        await subject.comes_back()
        assert subject.count(ConnectionLost) == 1
        await only_one_is_left(database)
        await database.check_agreement(subject, ["orders"])


async def only_one_is_left(database: ProxiedDatabase) -> None:
    """Let the network deliver to the server what it had held, so that a dead session ends there."""
    database.proxy.resume()
    await database.until_backends(1)


@by_dsn_and_by_connect
@in_both_ways
@before_or_after(b"LISTEN\0")
async def test_r23_unlisten_survives_a_cut(
    database: ProxiedDatabase, cut: Cut, answer: bytes | None
) -> None:
    """unlisten() whose connection dies under it returns, and nothing arrives after it."""
    received: list[Notification[str]] = []
    async with database.running(**LIMITS) as subject:
        await subject.listener.listen("orders", received.append)
        made = database.proxy.cut_on(b'UNLISTEN "orders"', then=cut, answer=answer)
        async with asyncio.timeout(WAIT_LIMIT):
            await subject.listener.unlisten("orders")
        assert made.detected
        await database.notify("orders", "late")
        await subject.comes_back()
        await only_one_is_left(database)
        await database.check_agreement(subject, ["orders"])
        assert received == []
        assert subject.listener.channels == {"fence"}


@in_every_way
@before_or_after(b"SELECT 1\0")
async def test_a_notify_that_is_cut_says_so(
    database: ProxiedDatabase, cut: Cut, answer: bytes | None
) -> None:
    """notify() whose connection dies under it raises; it is never sent twice; listening goes on."""
    async with database.running(**LIMITS) as subject, subject.listener.stream("orders") as stream:
        made = database.proxy.cut_on(b"perhaps", then=cut, answer=answer)
        with pytest.raises(ConnectionLostError):
            await subject.listener.notify("orders", "perhaps")
        assert made.detected
        await subject.listener.notify("orders", "surely")
        async with asyncio.timeout(WAIT_LIMIT):
            arrived = [(await anext(stream)).payload]
            while arrived[-1] != "surely":
                arrived.append((await anext(stream)).payload)
        assert arrived == (["perhaps"] if answer else []) + ["surely"]
        assert subject.count(ConnectionLost) == 0


async def test_a_notify_that_finds_no_connection_says_that_it_was_not_sent(
    database: ProxiedDatabase,
) -> None:
    """Where no connection can be made for it, notify() raises another error."""
    async with database.running(connect_timeout=scaled(0.1)) as subject:
        for fault in (
            database.proxy.refuse,
            database.proxy.drop_new,
            database.proxy.silent,
            database.proxy.garbage,
        ):
            fault()
            with pytest.raises(ConnectError):
                await subject.listener.notify("orders")
        database.proxy.heal()
        await subject.listener.notify("orders")
        assert subject.count(ConnectionLost) == 0


@in_every_way
async def test_r31_aclose_survives_a_cut(database: ProxiedDatabase, cut: Cut) -> None:
    """aclose() whose goodbye is cut returns all the same, and leaves nothing."""
    async with database.running(**LIMITS) as subject:
        made = database.proxy.cut_on(TERMINATE, then=cut)
        began = time.monotonic()
        await subject.listener.aclose(timeout=0.5)
        assert time.monotonic() - began < 0.5 + scaled(0.5)
        await made.wait()
        assert subject.count(Closed) == 1
        database.proxy.resume()
        await database.until_backends(0)


@by_dsn_and_by_connect
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_r14_a_cut_at_any_byte_of_a_reconnect_is_outlasted(
    database: ProxiedDatabase, direction: Direction
) -> None:
    """Wherever the conversation breaks off while connecting and listening, the next is whole."""
    channels = ["a", "b", "c"]
    async with database.running(backoff=AT_ONCE) as subject, subject.listener.stream(*channels):
        for size in range(0, 700, 23):
            database.proxy.cut_after(size, direction, "reset" if size % 2 else "fin")
            database.proxy.reset()
            await subject.until(ConnectionLost)
            await subject.until(Reconnected)
            database.proxy.heal()
        await database.check_agreement(subject, channels)
        await database.until_backends(1)
