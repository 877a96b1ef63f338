from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest

from asyncnotify.testing.faults import block_loop, dns_fails, dns_hangs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAME = "db.invalid"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server that takes connections, on 127.0.0.1."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def dial(host: str, port: int) -> None:
    """Connect and hang up."""
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    await writer.wait_closed()


async def test_block_loop_stops_everything_else() -> None:
    """A timer that is due during the block runs only after it."""
    loop = asyncio.get_running_loop()
    fired: asyncio.Future[float] = loop.create_future()
    begin = time.monotonic()
    loop.call_later(0.01, lambda: fired.set_result(time.monotonic()))
    block_loop(0.1)
    assert await fired - begin >= 0.1


def test_block_loop_wants_a_loop_to_block() -> None:
    """Outside of a loop it would only waste time."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        block_loop(60)


async def test_dns_fails_as_the_resolver_does(port: int) -> None:
    """Connecting by name raises gaierror; afterwards it works again."""
    with dns_fails() as lookups:
        for _ in range(3):
            with pytest.raises(socket.gaierror):
                await dial("localhost", port)
        with pytest.raises(socket.gaierror):
            await asyncio.get_running_loop().getaddrinfo("localhost", port)
    assert (lookups.started, lookups.running, lookups.peak) == (4, 0, 1)
    await dial("localhost", port)
    assert lookups.started == 4


async def test_dns_faults_leave_addresses_and_other_names_alone(port: int) -> None:
    """Only lookups of the names that were given are hit."""
    with dns_fails(NAME) as lookups:
        await dial("127.0.0.1", port)
        await dial("localhost", port)
        with pytest.raises(socket.gaierror):
            await dial(NAME, port)
    assert lookups.started == 1


async def test_dns_hangs_until_the_time_is_over(port: int) -> None:
    """A lookup that hangs fails at the end; those at once are counted."""
    begin = time.monotonic()
    with dns_hangs(0.1, NAME) as lookups:
        results = await asyncio.gather(dial(NAME, port), dial(NAME, port), return_exceptions=True)
    assert [type(result) for result in results] == [socket.gaierror] * 2
    assert time.monotonic() - begin >= 0.1
    assert (lookups.started, lookups.peak) == (2, 2)


async def test_a_hanging_lookup_outlives_the_caller_who_gave_up(port: int) -> None:
    """Cancelling does not end the lookup, as in reality; leaving the context does."""
    with dns_hangs(3600) as lookups:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await dial(NAME, port)
        assert lookups.running == 1
    await asyncio.get_running_loop().shutdown_default_executor()
    assert lookups.running == 0
