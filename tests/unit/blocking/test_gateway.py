from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import ClosedError, NotStartedError, WrongLoopError
from asyncnotify._blocking.call import Call
from asyncnotify._blocking.gateway import Gateway, awaitable
from asyncnotify._blocking.threads import in_worker_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 20.0


class Owner:
    """What runs in the loop of a gateway: records the seconds that its end was given."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.error: Exception | None = None
        self.gateway = Gateway(self._end, close_timeout=5.0)

    async def _end(self, seconds: float) -> None:
        self.ends.append(seconds)
        if self.error is not None:
            raise self.error


@pytest.fixture
def owner() -> Iterator[Owner]:
    """An owner whose loop has ended when the test has."""
    made = Owner()
    yield made
    made.gateway.close(0)


async def here() -> int:
    """Return the thread that this runs in."""
    return threading.get_ident()


async def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that this runs in."""
    return asyncio.get_running_loop()


def test_before_the_start_and_after_the_end_calls_are_refused(owner: Owner) -> None:
    """By an error that says which of the two."""
    with pytest.raises(NotStartedError):
        owner.gateway.call(here)
    owner.gateway.open()
    owner.gateway.close()
    with pytest.raises(ClosedError):
        owner.gateway.call(here)


def test_one_loop_serves_until_it_is_closed(owner: Owner) -> None:
    """open() returns it; after the close it makes another."""
    first = owner.gateway.open()
    assert owner.gateway.open() is first
    owner.gateway.close()
    assert not owner.gateway.is_open
    assert owner.gateway.open() is not first


class ClosedOnTheWay(Gateway):
    """A gateway that another thread closes just before a call."""

    def call(self, *arguments: Any, **options: Any) -> Any:
        """Call when it is closed."""
        self.close()
        return super().call(*arguments, **options)


def test_a_call_or_another_is_made_whenever_it_is_closed(owner: Owner) -> None:
    """Before, after and in between; an error of the function's own is raised."""

    async def fail() -> int:
        msg = "of its own"
        raise ClosedError(msg)

    own = threading.get_ident()
    assert owner.gateway.call_or(here, lambda: own) == own
    owner.gateway.open()
    assert owner.gateway.call_or(here, lambda: own) != own
    with pytest.raises(ClosedError, match="of its own"):
        owner.gateway.call_or(fail, lambda: own)
    closed_on_the_way = ClosedOnTheWay(end_nothing, close_timeout=5.0)
    closed_on_the_way.open()
    assert closed_on_the_way.call_or(here, lambda: own) == own


async def end_nothing(_: float) -> None:
    """End nothing."""


def test_what_runs_is_kept_until_it_is_closed() -> None:
    """Also when nobody has a reference to it: at the end of the program it is closed."""
    lost = Owner()
    portal, gateway = lost.gateway.open(), weakref.ref(lost.gateway)
    del lost
    gc.collect()
    kept = gateway()
    assert kept is not None
    kept.close()
    del kept
    gc.collect()
    assert gateway() is None
    assert not portal.is_open


def test_a_loop_begins_when_the_one_before_has_ended(owner: Owner) -> None:
    """What the earlier loop ran belongs to it, until its last task has been cancelled."""
    begun, released = threading.Event(), threading.Event()
    order: list[str] = []

    async def outlive() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            released.wait(TIMEOUT)
            order.append("earlier loop")

    earlier = owner.gateway.open()
    outliving = earlier.begin(Call(outlive))
    assert begun.wait(TIMEOUT)
    earlier.begin(Call(earlier.stop)).outcome.result(TIMEOUT)
    later = owner.gateway.open().begin(Call(awaitable(lambda: order.append("later loop"))))
    with pytest.raises(TimeoutError):
        later.outcome.result(0.1)
    released.set()
    later.outcome.result(TIMEOUT)
    assert order == ["earlier loop", "later loop"]
    assert isinstance(outliving.outcome.exception(), ClosedError)


def test_calls_run_in_the_thread_of_the_loop(owner: Owner) -> None:
    """And return what the function returns."""
    owner.gateway.open()
    thread = owner.gateway.call(here)
    assert thread != threading.get_ident()
    assert owner.gateway.look(threading.get_ident) == thread


def test_look_needs_no_loop(owner: Owner) -> None:
    """Before the start and after the end it looks in the caller's thread."""
    assert owner.gateway.look(threading.get_ident) == threading.get_ident()
    owner.gateway.open()
    owner.gateway.close()
    assert owner.gateway.look(threading.get_ident) == threading.get_ident()


def test_close_gives_the_owner_its_timeout(owner: Owner) -> None:
    """That of the gateway unless another is given; a second close has nothing to end."""
    owner.gateway.open()
    owner.gateway.close()
    owner.gateway.close()
    owner.gateway.open()
    owner.gateway.close(1.5)
    assert owner.ends == [5.0, 1.5]


def test_close_of_what_was_never_opened_returns(owner: Owner) -> None:
    """Its timeout is checked all the same."""
    owner.gateway.close()
    assert owner.ends == []
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            owner.gateway.close(wrong)


def test_the_loop_ends_though_the_owner_fails(owner: Owner) -> None:
    """An error of the owner's end leaves no thread."""
    owner.error = OSError("disk full")
    owner.gateway.open()
    owner.gateway.close()
    assert not owner.gateway.is_open


def test_p8_close_returns_though_the_owner_does_not_end() -> None:
    """Within its timeout and half a second; the loop ends when the owner has."""
    released = asyncio.Event()

    async def end(_: float) -> None:
        await released.wait()

    gateway = Gateway(end, close_timeout=0.0)
    portal = gateway.open()
    loop = gateway.call(running_loop)
    began = time.monotonic()
    gateway.close(0.0)
    assert time.monotonic() - began < TIMEOUT / 2
    assert gateway.is_open
    loop.call_soon_threadsafe(released.set)
    portal.join(TIMEOUT)
    assert not gateway.is_open


def test_waiting_for_the_own_thread_is_refused(owner: Owner) -> None:
    """In the loop's thread a call would wait for itself."""
    owner.gateway.open()

    async def call() -> None:
        owner.gateway.call(here)

    with pytest.raises(WrongLoopError):
        owner.gateway.call(call)
    owner.gateway.check_owner()


def test_close_from_a_function_of_the_owners_only_begins_it() -> None:
    """That function would be waited for by what it waits for."""
    closed = threading.Event()

    async def end_after_the_function(_: float) -> None:
        await asyncio.to_thread(closed.wait, TIMEOUT)

    def close(_: object) -> None:
        gateway.close()
        closed.set()

    gateway = Gateway(end_after_the_function, close_timeout=10 * TIMEOUT)
    handler = in_worker_thread("handler", close, gateway)
    assert handler is not None
    portal = gateway.open()
    portal.begin(Call(lambda: handler("a notification")))
    assert closed.wait(TIMEOUT / 2)
    portal.join(TIMEOUT)
    assert not gateway.is_open


async def test_awaitable_makes_a_plain_function_awaitable() -> None:
    """It is called when it is awaited, not before."""
    calls: list[str] = []
    waiting = awaitable(lambda: calls.append("called"))()
    assert calls == []
    await waiting
    assert calls == ["called"]


def test_close_in_the_loops_own_thread_begins_it(owner: Owner) -> None:
    """There a ``__del__`` may run, whenever the garbage collector does."""
    portal = owner.gateway.open()
    owner.gateway.call(awaitable(owner.gateway.close))
    portal.join(TIMEOUT)
    assert not owner.gateway.is_open
    assert owner.ends == [5.0]


def test_in_the_thread_of_a_loop_ending_only_begins(owner: Owner) -> None:
    """Of the loop itself and of any other; elsewhere it is waited for."""
    ended: list[int] = []

    async def end() -> None:
        ended.append(threading.get_ident())

    with pytest.raises(NotStartedError):
        owner.gateway.end(end)
    portal = owner.gateway.open()
    owner.gateway.end(end)
    assert len(ended) == 1
    owner.gateway.call(awaitable(lambda: owner.gateway.end(end)))
    owner.gateway.call(here)
    assert len(ended) == 2

    async def end_from_another_loop() -> None:
        owner.gateway.end(end)

    asyncio.run(end_from_another_loop())
    owner.gateway.call(here)
    assert ended == [ended[0]] * 3
    owner.gateway.close()
    portal.join(TIMEOUT)
    with pytest.raises(ClosedError):
        owner.gateway.end(end)


def test_calls_that_would_block_a_running_loop_are_refused(owner: Owner) -> None:
    """By an error that names what to use; close() only begins."""
    portal = owner.gateway.open()

    async def call_all() -> None:
        for call in (
            owner.gateway.open,
            owner.gateway.check_owner,
            lambda: owner.gateway.start(here),
            lambda: owner.gateway.call(here),
        ):
            with pytest.raises(WrongLoopError, match="use Listener, Notifier and Log"):
                call()
        assert owner.gateway.look(threading.get_ident) != threading.get_ident()
        owner.gateway.close()

    asyncio.run(call_all())
    portal.join(TIMEOUT)
    assert owner.ends == [5.0]
