"""Host names are looked up one at a time, on threads that no application can fill."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from asyncnotify._asyncpg.lookups import Address, Lookups, is_address

NAME = "db.example"
FOUND = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::2", 0, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
]


class NameService:
    """Answers when the test says so, and counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.error: OSError | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.begun = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)

    def look_up(self, host: str, *args: object, **options: object) -> object:
        """Answer for the name; addresses are nobody's business."""
        if host != NAME:
            return self._real(host, *args, **options)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self.asked.append(host)
        self.begun.set()
        self.answers.wait(10)
        if self.error is not None:
            raise self.error
        return FOUND


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> NameService:
    """A name service in the hands of the test."""
    return NameService(monkeypatch)


async def resolve(lookups: Lookups, timeout: float = 5.0) -> list[str]:
    """Return the addresses of the name."""
    return [str(address) for address in await lookups.resolve(NAME, 5432, timeout=timeout)]


def test_the_families_are_tried_by_turns(service: NameService) -> None:
    """As RFC 8305 has it: one family that is dead delays by one address, not by all of its own."""
    expected = ["[::1]:5432", "127.0.0.1:5432", "[::2]:5432"]
    assert asyncio.run(resolve(Lookups())) == expected


def test_calls_that_meet_share_a_lookup(service: NameService) -> None:
    """However many attempts wait for one name, one thread asks."""

    async def meet() -> list[list[str]]:
        lookups = Lookups()
        service.answers.clear()
        calls = [asyncio.create_task(resolve(lookups)) for _ in range(5)]
        await asyncio.to_thread(service.begun.wait, 10)
        service.answers.set()
        return await asyncio.gather(*calls)

    assert len({tuple(found) for found in asyncio.run(meet())}) == 1
    assert service.asked == [NAME]


def test_r10_a_call_that_is_cancelled_leaves_its_lookup_to_the_next(service: NameService) -> None:
    """The name service is not asked once more."""

    async def cancel() -> list[str]:
        lookups = Lookups()
        service.answers.clear()
        first = asyncio.create_task(resolve(lookups))
        await asyncio.to_thread(service.begun.wait, 10)
        first.cancel()
        await asyncio.wait({first})
        service.answers.set()
        return await resolve(lookups)

    assert asyncio.run(cancel())
    assert service.asked == [NAME]


def test_r53_a_failure_is_an_error_of_its_own_for_each(service: NameService) -> None:
    """Two who waited get two objects."""
    service.error = socket.gaierror(socket.EAI_NONAME, "no such name")

    async def fail() -> list[object]:
        lookups = Lookups()
        calls = (resolve(lookups), resolve(lookups))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    one, other = asyncio.run(fail())
    assert isinstance(one, socket.gaierror)
    assert isinstance(other, socket.gaierror)
    assert one is not other


def test_r52_the_last_answer_serves_while_the_name_service_fails(service: NameService) -> None:
    """What was found once is used, also where no answer comes at all."""

    async def find() -> tuple[list[str], list[str], list[str]]:
        lookups = Lookups()
        first = await resolve(lookups)
        service.error = socket.gaierror(socket.EAI_AGAIN, "try again")
        failing = await resolve(lookups)
        service.answers.clear()
        silent = await resolve(lookups, timeout=0.1)
        service.answers.set()
        return first, failing, silent

    first, failing, silent = asyncio.run(find())
    assert first == failing == silent


def test_r52_a_lookup_without_an_answer_ends_at_its_deadline(service: NameService) -> None:
    """The first time there is nothing to fall back on."""
    service.answers.clear()
    with pytest.raises(TimeoutError, match=r"the name db\.example was not resolved within 0\.05 s"):
        asyncio.run(resolve(Lookups(), timeout=0.05))
    service.answers.set()


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), (NAME, False)])
def test_addresses_are_known_from_names(host: str, *, expected: bool) -> None:
    """An address needs no name service."""
    assert is_address(host) is expected


def test_an_address_is_not_looked_up(service: NameService) -> None:
    """It is taken as it is, with its port."""
    found = asyncio.run(Lookups().resolve("127.0.0.1", 5433, timeout=1))
    assert found == [Address(socket.AF_INET, ("127.0.0.1", 5433))]
    assert service.asked == []
