"""The first address that answers is connected to; what is known of the others is kept."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from asyncnotify._asyncpg.failures import Step, step_of
from asyncnotify._asyncpg.lookups import Address
from asyncnotify._asyncpg.racing import DialLoop, Race


def listening(stack: ExitStack) -> Address:
    """Return an address at which connections are accepted."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return Address(socket.AF_INET, server.getsockname())


def refusing() -> Address:
    """Return an address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Address(socket.AF_INET, server.getsockname())


def test_r52_an_address_that_refuses_is_followed_by_the_next_at_once() -> None:
    """It is noted with its error; the one that answers wins, the rest is untried."""
    with ExitStack() as stack:
        dead, live, spare = refusing(), listening(stack), listening(stack)

        async def connect() -> Race:
            race = Race([dead, live, spare], timeout=5)
            (await race.connect()).close()
            return race

        race = asyncio.run(connect())
    assert race.winner == live
    assert isinstance(race.failures[dead], ConnectionRefusedError)
    assert race.untried == [spare]


def test_where_all_refuse_the_last_error_is_raised() -> None:
    """Marked as one of the network, which may pass."""
    addresses = [refusing(), refusing()]

    async def connect() -> Race:
        race = Race(addresses, timeout=5)
        with pytest.raises(ConnectionRefusedError) as raised:
            await race.connect()
        assert step_of(raised.value) is Step.NETWORK
        return race

    race = asyncio.run(connect())
    assert race.failures.keys() == set(addresses)
    assert (race.winner, race.untried) == (None, [])


def test_called_again_it_connects_to_the_same_address() -> None:
    """The driver connects twice where the server has no TLS and it was preferred."""
    with ExitStack() as stack:
        addresses = [listening(stack), listening(stack)]

        async def connect() -> list[object]:
            race = Race(addresses, timeout=5)
            peers: list[object] = []
            for _ in range(3):
                with await race.connect() as sock:
                    peers.append(sock.getpeername())
            return peers

        assert len(set(asyncio.run(connect()))) == 1


def test_cancelled_it_leaves_no_socket() -> None:
    """Whatever is under way: no ResourceWarning follows."""
    with ExitStack() as stack:
        address = listening(stack)

        async def cancel() -> None:
            race = Race([address], timeout=5)
            connecting = asyncio.create_task(race.connect())
            await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait({connecting})
            assert connecting.cancelled()

        asyncio.run(cancel())


def test_the_driver_s_loop_is_the_loop_in_all_but_connecting() -> None:
    """What it names is the host, for the certificate; what it gets is the address that answers."""
    with ExitStack() as stack:
        live = listening(stack)

        async def connect() -> object:
            loop = DialLoop(Race([live], timeout=5))
            assert loop.time() == pytest.approx(asyncio.get_running_loop().time(), abs=1)
            transport, _ = await loop.create_connection(asyncio.Protocol, "db.example", 5432)
            peer = transport.get_extra_info("peername")
            transport.abort()
            await asyncio.sleep(0)
            return peer

        assert asyncio.run(connect()) == live.place
