"""Host names are looked up one at a time, in threads that the tests do without."""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from asyncnotify._asyncpg.lookups import Lookups

if TYPE_CHECKING:
    from collections.abc import Callable


class Resolver:
    """Stands for the threads of the loop: looks up what it is asked when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.get_running_loop()
        self.asked: list[str] = []
        self.answers: list[asyncio.Future[Any]] = []
        monkeypatch.setattr(self.loop, "run_in_executor", self.begin)

    def begin(
        self, _executor: None, function: Callable[..., object], host: str, _port: None
    ) -> asyncio.Future[Any]:
        """Begin a lookup."""
        assert function is socket.getaddrinfo
        self.asked.append(host)
        self.answers.append(self.loop.create_future())
        return self.answers[-1]


@pytest_asyncio.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """A name service that answers when the test says so."""
    return Resolver(monkeypatch)


async def begun(*calls: asyncio.Task[None]) -> None:
    """Return once the calls wait."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls)


@pytest.mark.parametrize("host", ["", "/var/run/postgresql", "127.0.0.1", "::1"])
async def test_what_is_no_name_is_not_looked_up(resolver: Resolver, host: str) -> None:
    """Addresses and the directories of Unix sockets are known already."""
    await Lookups().resolve(host)
    assert resolver.asked == []


async def test_calls_that_meet_share_a_lookup(resolver: Resolver) -> None:
    """Of the same name: another name has one of its own."""
    lookups = Lookups()
    calls = [asyncio.create_task(lookups.resolve(name)) for name in ("db", "db", "other")]
    await begun(*calls)
    assert resolver.asked == ["db", "other"]
    for answer in resolver.answers:
        answer.set_result([])
    await asyncio.gather(*calls)


async def test_r10_a_call_that_is_cancelled_leaves_its_lookup_to_the_next(
    resolver: Resolver,
) -> None:
    """Attempts that give up on a name service that hangs do not use up the threads."""
    lookups = Lookups()
    for _ in range(3):
        call = asyncio.create_task(lookups.resolve("db"))
        await begun(call)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
    assert resolver.asked == ["db"]
    call = asyncio.create_task(lookups.resolve("db"))
    await begun(call)
    resolver.answers[0].set_result([])
    await call


async def test_an_answer_serves_those_who_waited_for_it_only(resolver: Resolver) -> None:
    """Whoever comes later asks anew: the name may lead to another server by then."""
    lookups = Lookups()
    for number in range(1, 3):
        call = asyncio.create_task(lookups.resolve("db"))
        await begun(call)
        assert len(resolver.asked) == number
        resolver.answers[-1].set_result([])
        await call
        answer = weakref.ref(resolver.answers.pop())
        assert answer() is None, "it is kept, as would be those of all other names"


async def test_a_name_that_cannot_be_resolved_is_told_to_all_who_wait(resolver: Resolver) -> None:
    """The error is the name service's own."""
    lookups = Lookups()
    calls = [asyncio.create_task(lookups.resolve("db")) for _ in range(2)]
    await begun(*calls)
    resolver.answers[0].set_exception(socket.gaierror("unknown name"))
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, socket.gaierror)
