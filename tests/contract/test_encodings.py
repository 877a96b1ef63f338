"""A database whose encoding cannot hold every name: that is one channel's matter, no other's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import ChannelNameError, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncnotify import Listener, Notification
    from tests.contract.conftest import ListenerFactory

    Inbox: TypeAlias = "asyncio.Queue[Notification[str]]"

pytestmark = pytest.mark.needs_server("encoding")

UNTRANSLATABLE = "日本"
TRANSLATABLE = "café"


@pytest_asyncio.fixture
async def latin1(factory: ListenerFactory) -> AsyncIterator[Listener]:
    """A listener on a database that is encoded in LATIN1, however it connects."""
    admin = await asyncpg.connect(factory.dsn)
    name = "asyncnotify_test_latin1"
    await admin.execute(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    dsn = factory.dsn.rpartition("/")[0] + f"/{name}"
    try:
        async with factory.listener(dsn) as listener:
            yield listener
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def test_a_name_that_the_server_cannot_hold_is_refused(latin1: Listener) -> None:
    """listen() and stream() say so at once; the connection and all others go on."""
    inbox: Inbox = asyncio.Queue()
    await latin1.listen(TRANSLATABLE, inbox.put)
    with pytest.raises(ChannelNameError, match="is refused by the server"):
        await latin1.listen(UNTRANSLATABLE, print)
    with pytest.raises(ChannelNameError, match="is refused by the server"):
        await latin1.stream("orders", UNTRANSLATABLE).__aenter__()
    assert latin1.channels == {TRANSLATABLE}
    await latin1.notify(TRANSLATABLE, "é")
    assert (await inbox.get()).payload == "é"
    assert (latin1.state, latin1.stats().reconnects) == (State.CONNECTED, 0)


async def test_calls_that_meet_one_that_is_refused_succeed(latin1: Listener) -> None:
    """They were sent together, and are sent again one by one."""
    inbox: Inbox = asyncio.Queue()
    names = ["orders", UNTRANSLATABLE, "people", TRANSLATABLE]
    calls = (latin1.listen(name, inbox.put) for name in names)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(outcome, ChannelNameError) for outcome in outcomes] == [
        False,
        True,
        False,
        False,
    ]
    for name in ("orders", "people", TRANSLATABLE):
        await latin1.notify(name)
        assert (await inbox.get()).channel == name
