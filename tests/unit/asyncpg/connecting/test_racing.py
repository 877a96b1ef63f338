from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify._asyncpg._connecting.lookups import Address
from asyncnotify._asyncpg._connecting.racing import DialLoop, Race
from asyncnotify._asyncpg.failures import Step, step_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

STAGGER, TIMEOUT = 0.25, 10.0
FIRST, SECOND, THIRD = (
    Address(socket.AF_INET, (f"192.0.2.{number}", 5432)) for number in range(1, 4)
)
REFUSED = ConnectionRefusedError("refused")


class Network:
    """Connects sockets of the loop after as many seconds as the test says, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.answers: dict[str, float | Exception] = {}
        self.tried: list[tuple[str, float]] = []
        self.sockets: list[socket.socket] = []
        monkeypatch.setattr(self.loop, "sock_connect", self._connect)

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return self.loop.time() - self.began

    async def _connect(self, sock: socket.socket, place: tuple[Any, ...]) -> None:
        self.sockets.append(sock)
        self.tried.append((place[0], self.now))
        answer = self.answers.get(place[0], 1_000.0)
        if isinstance(answer, Exception):
            raise answer
        await asyncio.sleep(answer)

    @property
    def open_sockets(self) -> int:
        """How many sockets have not been closed."""
        return sum(sock.fileno() >= 0 for sock in self.sockets)


@pytest_asyncio.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """A network whose sockets are all closed in the end."""
    made = Network(monkeypatch)
    yield made
    for sock in made.sockets:
        sock.close()


async def test_addresses_are_tried_a_little_later_one_after_another(network: Network) -> None:
    """The first that answers wins; the sockets of the others are closed."""
    network.answers = {"192.0.2.2": 0.3}
    race = Race([FIRST, SECOND, THIRD], timeout=TIMEOUT)
    sock = await race.connect()
    assert network.tried == [
        ("192.0.2.1", 0.0),
        ("192.0.2.2", pytest.approx(STAGGER)),
        ("192.0.2.3", pytest.approx(2 * STAGGER)),
    ]
    assert network.now == pytest.approx(STAGGER + 0.3)
    assert race.winner == SECOND
    assert race.untried == [FIRST, THIRD]
    assert network.open_sockets == 1
    sock.close()


async def test_an_address_that_fails_is_followed_at_once(network: Network) -> None:
    """Its error is noted, and no time is lost."""
    network.answers = {"192.0.2.1": REFUSED, "192.0.2.2": 0.0}
    race = Race([FIRST, SECOND], timeout=TIMEOUT)
    await race.connect()
    assert network.now == pytest.approx(0, abs=0.01)
    assert race.failures == {FIRST: REFUSED}
    assert race.untried == []


async def test_when_all_fail_the_last_error_is_raised(network: Network) -> None:
    """As one of the network, which may pass; no socket is left open."""
    network.answers = {"192.0.2.1": OSError("unreachable"), "192.0.2.2": REFUSED}
    race = Race([FIRST, SECOND], timeout=TIMEOUT)
    with pytest.raises(ConnectionRefusedError) as raised:
        await race.connect()
    assert step_of(raised.value) is Step.NETWORK
    assert list(race.failures) == [FIRST, SECOND]
    assert network.open_sockets == 0


async def test_an_address_that_the_system_gives_up_has_the_systems_error(network: Network) -> None:
    """Before our own deadline: the error does not tell of a time that has not passed."""
    network.answers = {"192.0.2.1": TimeoutError(110, "Connection timed out")}
    race = Race([FIRST], timeout=TIMEOUT)
    with pytest.raises(TimeoutError, match="Connection timed out"):
        await race.connect()
    assert network.now == pytest.approx(0, abs=0.01)


async def test_r32_of_two_that_answer_at_once_one_is_closed(network: Network) -> None:
    """The other one was connected before it could be told that it has lost."""
    network.answers = {"192.0.2.1": 2 * STAGGER, "192.0.2.2": STAGGER}
    race = Race([FIRST, SECOND], timeout=TIMEOUT)
    sock = await race.connect()
    assert network.now == pytest.approx(2 * STAGGER)
    assert len(network.sockets) == 2
    assert network.open_sockets == 1
    assert sock.fileno() >= 0
    sock.close()


async def test_an_address_that_does_not_answer_has_its_own_deadline(network: Network) -> None:
    """The error names it and the time."""
    race = Race([FIRST], timeout=TIMEOUT)
    with pytest.raises(TimeoutError, match=r"no answer from 192\.0\.2\.1:5432 within 10 s"):
        await race.connect()
    assert network.now == pytest.approx(TIMEOUT)


async def test_r32_a_race_that_is_cancelled_leaves_no_socket(network: Network) -> None:
    """Of however many addresses."""
    race = Race([FIRST, SECOND, THIRD], timeout=TIMEOUT)
    connecting = asyncio.create_task(race.connect())
    await asyncio.sleep(1)
    connecting.cancel()
    await asyncio.wait({connecting})
    assert connecting.cancelled()
    assert len(network.sockets) == 3
    assert network.open_sockets == 0


async def test_connecting_again_uses_the_winner(network: Network) -> None:
    """The driver does so when TLS was refused: it must reach the same server."""
    network.answers = {"192.0.2.1": REFUSED, "192.0.2.2": 0.0}
    race = Race([FIRST, SECOND], timeout=TIMEOUT)
    await race.connect()
    network.answers["192.0.2.1"] = 0.0
    await race.connect()
    assert race.winner == SECOND
    assert [host for host, _ in network.tried] == ["192.0.2.1", "192.0.2.2", "192.0.2.2"]


async def test_the_deadline_counts_from_the_winners_beginning(network: Network) -> None:
    """Until there is one, from that of the newest attempt."""
    network.answers = {"192.0.2.2": 0.3}
    race = Race([FIRST, SECOND], timeout=TIMEOUT)
    assert race.deadline - network.began == pytest.approx(TIMEOUT)
    await race.connect()
    assert race.deadline - network.began == pytest.approx(TIMEOUT + STAGGER)


async def test_the_driver_names_a_host_and_gets_the_address(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificate is verified against the name; all else is the event loop's own."""
    network.answers = {"192.0.2.1": 0.0}
    options: dict[str, Any] = {}

    async def create_connection(factory: Callable[[], Any], **given: Any) -> Any:
        options.update(given)
        return "transport", factory()

    monkeypatch.setattr(network.loop, "create_connection", create_connection)
    loop = DialLoop(Race([FIRST], timeout=TIMEOUT))
    made = await loop.create_connection(lambda: "protocol", "db.example", 5432, ssl=True)
    assert made == ("transport", "protocol")
    assert options["server_hostname"] == "db.example"
    assert options["sock"] is network.sockets[0]
    assert loop.time() == network.loop.time()


async def test_a_failed_handshake_is_known_as_one_and_leaves_no_socket(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS fails for other reasons than the network does."""
    network.answers = {"192.0.2.1": 0.0}

    async def create_connection(*_: object, **__: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(network.loop, "create_connection", create_connection)
    with pytest.raises(ConnectionResetError) as raised:
        await DialLoop(Race([FIRST], timeout=TIMEOUT)).create_connection(object, "db", 5432)
    assert step_of(raised.value) is Step.TLS
    assert network.open_sockets == 0
