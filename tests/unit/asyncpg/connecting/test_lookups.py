from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify._asyncpg._connecting.lookups import Address, Lookups, is_address

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

TIMEOUT = 10.0
LONGEST_WAIT = 1.0
ONE = Address(socket.AF_INET, ("192.0.2.1", 0))
OTHER = Address(socket.AF_INET, ("192.0.2.2", 0))
ONE_AT_PORT = Address(socket.AF_INET, ("192.0.2.1", 5432))


class NameService:
    """Stands for the threads of lookups: answers when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.lookups: list[Future[list[Address]]] = []
        self.error: RuntimeError | None = None
        monkeypatch.setattr("asyncnotify._asyncpg._connecting.lookups.Thread", self._thread)

    def _thread(
        self, *, target: Callable[..., object], args: tuple[Any, str], name: str, daemon: bool
    ) -> NameService:
        assert daemon
        lookup, host = args
        self.asked.append(host)
        self.lookups.append(lookup)
        return self

    def start(self) -> None:
        """Begin the lookup; it may be that no thread can be had."""
        if self.error is not None:
            raise self.error

    def answer(self, *addresses: Address) -> None:
        """Answer the oldest question."""
        self.lookups.pop(0).set_result(list(addresses))

    def fail(self) -> None:
        """Answer that there is no such name."""
        self.lookups.pop(0).set_exception(socket.gaierror("unknown name"))


@pytest_asyncio.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> NameService:
    """A name service that answers when the test says so."""
    return NameService(monkeypatch)


def begin(lookups: Lookups, host: str = "db") -> asyncio.Task[list[Address]]:
    """Begin a call."""
    return asyncio.create_task(lookups.resolve(host, 5432, timeout=TIMEOUT))


async def turns() -> None:
    """Let the calls begin."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_is_not_looked_up(service: NameService, host: str) -> None:
    """It comes back with the port."""
    (address,) = await Lookups().resolve(host, 5433, timeout=TIMEOUT)
    assert address.place[:2] == (host, 5433)
    assert service.asked == []
    assert is_address(host)
    assert not is_address("db.example")


async def test_calls_that_meet_share_a_lookup(service: NameService) -> None:
    """Of the same name: another name has one of its own."""
    lookups = Lookups()
    calls = [begin(lookups), begin(lookups), begin(lookups, "other")]
    await turns()
    assert service.asked == ["db", "other"]
    service.answer(ONE)
    service.answer(OTHER)
    assert (await calls[0])[0] == (await calls[1])[0] == ONE_AT_PORT


async def test_r10_a_call_that_is_cancelled_leaves_its_lookup_to_the_next(
    service: NameService,
) -> None:
    """Attempts that give up on a name service that hangs do not use up threads."""
    lookups = Lookups()
    for _ in range(3):
        call = begin(lookups)
        await turns()
        call.cancel()
        await asyncio.wait({call})
    assert service.asked == ["db"]
    call = begin(lookups)
    await turns()
    service.answer(ONE)
    assert await call == [ONE_AT_PORT]


async def test_a_name_is_looked_up_anew_by_each_later_call(service: NameService) -> None:
    """It may lead to another server by then."""
    lookups = Lookups()
    for address in (ONE, OTHER):
        call = begin(lookups)
        await turns()
        service.answer(address)
        assert (await call)[0].place[0] == address.place[0]


async def test_an_error_is_raised_for_each_who_waits_by_an_object_of_its_own(
    service: NameService,
) -> None:
    """One object would gather the tracebacks of all."""
    lookups = Lookups()
    calls = [begin(lookups) for _ in range(2)]
    await turns()
    service.fail()
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, socket.gaierror)
    assert str(first) == str(second) == "unknown name"
    assert first is not second


@pytest.mark.parametrize("hangs", [False, True])
async def test_the_last_addresses_serve_while_the_name_service_does_not(
    service: NameService, *, hangs: bool
) -> None:
    """At once where it fails; after a second where it hangs."""
    lookups = Lookups()
    call = begin(lookups)
    await turns()
    service.answer(ONE)
    await call
    loop = asyncio.get_running_loop()
    began, call = loop.time(), begin(lookups)
    await turns()
    if not hangs:
        service.fail()
    assert await call == [ONE_AT_PORT]
    assert loop.time() - began == (LONGEST_WAIT if hangs else 0.0)


async def test_a_name_that_was_never_resolved_has_the_whole_timeout(service: NameService) -> None:
    """Then it is a TimeoutError, which names the host."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError, match="db was not resolved within 10 s"):
        await begin(Lookups())
    assert loop.time() - began == TIMEOUT


async def test_a_fork_waits_for_no_thread_of_its_parent(
    service: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins a lookup of its own."""
    lookups = Lookups()
    before = begin(lookups)
    await turns()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    after = begin(lookups)
    await turns()
    assert service.asked == ["db", "db"]
    service.answer(ONE)
    service.answer(ONE)
    await asyncio.gather(before, after)


async def test_without_a_thread_it_is_an_error_of_the_network(service: NameService) -> None:
    """Which may pass: the next attempt tries again."""
    service.error = RuntimeError("can't start new thread")
    with pytest.raises(OSError, match="can't start new thread"):
        await begin(Lookups())


async def test_families_come_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginning with that of the first address, so that one broken family costs little."""

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        v4 = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{n}", 0)) for n in range(1, 4)]
        v6 = [(socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0))]
        return [*v6, *v4, *v4]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = await Lookups().resolve("192.0.2.9", 1, timeout=TIMEOUT)
    assert [address.place[0] for address in found] == [
        "2001:db8::1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
    assert str(found[0]) == "[2001:db8::1]:1"
    assert str(found[1]) == "192.0.2.1:1"
