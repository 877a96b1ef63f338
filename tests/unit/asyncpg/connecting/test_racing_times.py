"""The addresses of one host: each a little later than the one before, the first to answer wins."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from asyncnotify._asyncpg._connecting.lookups import Address
from asyncnotify._asyncpg._connecting.racing import DialLoop, Race
from asyncnotify._asyncpg.failures import Step, step_of
from asyncnotify.testing.clock import START

SILENT = object()
TIMEOUT = 10.0


def address(number: int) -> Address:
    """Return one of some addresses."""
    return Address(socket.AF_INET, (f"192.0.2.{number}", 5432))


class Network:
    """Stands for the network: connects, refuses or is silent, as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> None:
        self.behaviour = {f"192.0.2.{name[1:]}": how for name, how in behaviour.items()}
        self.tried: list[tuple[str, float]] = []
        self.loop = asyncio.get_running_loop()
        monkeypatch.setattr(self.loop, "sock_connect", self.connect)

    async def connect(self, _: socket.socket, place: tuple[str, int]) -> None:
        """Connect a socket."""
        self.tried.append((place[0][-1], round(self.loop.time() - START, 2)))
        how = self.behaviour[place[0]]
        if how is SILENT:
            await self.loop.create_future()
        if isinstance(how, Exception):
            raise how
        await asyncio.sleep(how)


async def test_r52_the_next_address_is_tried_after_a_quarter_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside the one that is silent, which has its whole time."""
    network = Network(monkeypatch, a1=SILENT, a2=SILENT, a3=0.1)
    race = Race([address(1), address(2), address(3)], timeout=TIMEOUT)
    (await race.connect()).close()
    assert race.winner == address(3)
    assert network.tried == [("1", 0.0), ("2", 0.25), ("3", 0.5)]
    assert race.untried == [address(1), address(2)]


async def test_r52_one_that_refuses_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is noted, with the step that failed."""
    refusal = ConnectionRefusedError("refused")
    network = Network(monkeypatch, a1=refusal, a2=0.0)
    race = Race([address(1), address(2)], timeout=TIMEOUT)
    (await race.connect()).close()
    assert network.tried == [("1", 0.0), ("2", 0.0)]
    assert race.failures == {address(1): refusal}
    assert step_of(refusal) is Step.NETWORK
    assert race.untried == []


async def test_r52_a_slow_one_wins_over_those_that_came_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trying the next one does not end the attempt before."""
    Network(monkeypatch, a1=0.4, a2=SILENT)
    race = Race([address(1), address(2)], timeout=TIMEOUT)
    (await race.connect()).close()
    assert race.winner == address(1)
    assert race.deadline == START + TIMEOUT


async def test_r52_each_address_has_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """If none answers, the last one's is the end; all of them are told of."""
    network = Network(monkeypatch, a1=SILENT, a2=SILENT)
    race = Race([address(1), address(2)], timeout=TIMEOUT)
    with pytest.raises(TimeoutError, match=r"no answer from 192\.0\.2\.2:5432 within 10 s"):
        await race.connect()
    assert network.loop.time() - START == pytest.approx(TIMEOUT + 0.25)
    assert set(race.failures) == {address(1), address(2)}
    assert race.deadline == pytest.approx(START + 0.25 + TIMEOUT)


async def test_the_second_connection_leads_to_the_same_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver makes one without TLS where the server has none: it must be the same server."""
    network = Network(monkeypatch, a1=SILENT, a2=0.0)
    race = Race([address(1), address(2)], timeout=TIMEOUT)
    (await race.connect()).close()
    (await race.connect()).close()
    assert [name for name, _ in network.tried] == ["1", "2", "2"]


async def test_r32_a_race_that_is_cancelled_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor a task: those that have lost are closed, too."""
    made: list[socket.socket] = []
    real = socket.socket

    def note(*args: Any) -> socket.socket:
        made.append(real(*args))
        return made[-1]

    Network(monkeypatch, a1=SILENT, a2=SILENT)
    monkeypatch.setattr(socket, "socket", note)
    racing = asyncio.create_task(Race([address(1), address(2)], timeout=TIMEOUT).connect())
    await asyncio.sleep(1)
    racing.cancel()
    await asyncio.wait({racing})
    assert len(made) == 2
    assert all(sock.fileno() == -1 for sock in made)


async def test_r54_each_step_marks_what_fails_in_it() -> None:
    """TLS by the handshake, a Unix socket by connecting; all else is the loop's own."""
    race = Race([], timeout=TIMEOUT)
    loop = DialLoop(race)
    assert loop.time() == asyncio.get_running_loop().time()
    with pytest.raises(FileNotFoundError) as missing:
        await loop.create_unix_connection(asyncio.Protocol, "/nowhere/.s.PGSQL.5432")
    assert step_of(missing.value) is Step.NETWORK
    assert race.begun
    with pytest.raises(TypeError) as refused:
        await loop.start_tls(None, None, cast("Any", None), server_hostname="db")
    assert step_of(refused.value) is Step.TLS
