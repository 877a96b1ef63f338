from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify import ConnectError, PayloadTooLargeError
from asyncnotify._publishing.many import publish_many
from tests.unit.fake_publishing import FakePublishingServer, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSED = ConnectionRefusedError("no server")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakePublishingServer]:
    """A server whose publisher runs; which is ended."""
    made = FakePublishingServer()
    made.begin()
    yield made
    await made.end()


def numbers(count: int) -> list[tuple[str, str]]:
    """Return pairs of a channel and a number."""
    return [("orders", str(number)) for number in range(count)]


async def test_each_transaction_holds_a_thousand(server: FakePublishingServer) -> None:
    """All arrive, in their order."""
    assert await publish_many(server.publisher, numbers(2_500)) == 2_500
    assert server.committed == numbers(2_500)
    assert server.sizes == [1_000, 1_000, 500]


async def test_the_next_ones_are_taken_while_the_server_works(server: FakePublishingServer) -> None:
    """No more than two transactions are held at once."""
    committed_at: list[int] = []

    async def pairs() -> AsyncIterator[tuple[str, str]]:
        for number in range(3_000):
            if number in {1_999, 2_999}:
                committed_at.append(len(server.committed))
            yield "orders", str(number)

    assert await publish_many(server.publisher, pairs()) == 3_000
    assert committed_at == [0, 1_000]


async def test_the_first_failure_ends_it_and_says_how_many_were_sent(
    server: FakePublishingServer,
) -> None:
    """By a note on the exception; the transactions before it have been committed."""
    pairs = numbers(1_500)
    pairs[1_200] = ("orders", "p" * 8_000)
    with pytest.raises(PayloadTooLargeError) as raised:
        await publish_many(server.publisher, pairs)
    assert any(note.startswith("1000 ") for note in raised.value.__notes__)
    assert len(server.committed) == 1_000


async def test_r47_what_is_lost_in_flight_may_have_been_sent(server: FakePublishingServer) -> None:
    """Also where something else ends the call: who goes on at the number would double the rest."""

    async def pairs() -> AsyncIterator[tuple[str, str]]:
        for pair in numbers(2_000):
            yield pair
        await turns()  # until the next one is sent
        assert len(server.statements) == 2
        server.sessions[-1].terminate()
        raise LookupError

    with pytest.raises(LookupError) as raised:
        await publish_many(server.publisher, pairs())
    [note] = raised.value.__notes__
    assert note == "1000 notifications before it have been sent, and up to 1000 more may have been"


async def test_without_a_connection_nothing_is_sent(server: FakePublishingServer) -> None:
    """Not even encoded: who has many to send learns early that it is of no use."""
    server.open_errors = [REFUSED]
    with pytest.raises(ConnectError) as raised:
        await publish_many(server.publisher, numbers(10))
    assert any(note.startswith("0 ") for note in raised.value.__notes__)


async def test_cancelled_it_sends_no_further_transaction(server: FakePublishingServer) -> None:
    """What was in flight may have been sent; what comes after it is not."""
    sending = asyncio.create_task(publish_many(server.publisher, numbers(5_000)))
    await asyncio.sleep(1.5)
    sending.cancel()
    await asyncio.wait({sending})
    with pytest.raises(asyncio.CancelledError) as raised:
        await sending
    [note] = raised.value.__notes__
    assert note == "1000 notifications before it have been sent, and up to 1000 more may have been"
    await asyncio.sleep(100)
    assert len(server.committed) <= 2_000
