from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING

import pytest

from asyncnotify._blocking.threads import InWorkerThread, in_worker_thread, is_served_here
from tests.unit.blocking.conftest import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncnotify._blocking.portal import Portal

OWNER = object()


def served(function: Callable[..., object], *, shielded: bool = False) -> InWorkerThread:
    """Return the async function that calls this one."""
    made = in_worker_thread("handler", function, OWNER, shielded=shielded)
    assert made is not None
    return made


def test_none_stays_none() -> None:
    """An option that was not given needs no thread."""
    assert in_worker_thread("resync", None, OWNER) is None


async def async_handler(_: object) -> None:
    """A handler for an event loop."""


@pytest.mark.parametrize(
    ("function", "error"), [(7, "handler"), (lambda: None, "handler"), (async_handler, "async")]
)
def test_r45_what_cannot_be_called_in_a_thread_is_refused_at_once(
    function: object, error: str
) -> None:
    """Not when the first notification comes."""
    with pytest.raises(TypeError, match=error):
        in_worker_thread("handler", function, OWNER)


def test_the_function_runs_in_another_thread_for_its_owner(portal: Portal) -> None:
    """is_served_here() says so during the call, and to nobody else."""
    seen: list[tuple[int, bool, bool]] = []

    def handle(_: object) -> None:
        seen.append((threading.get_ident(), is_served_here(OWNER), is_served_here(object())))

    portal.call(lambda: served(handle)("item"))
    ((thread, for_owner, for_another),) = seen
    assert thread != threading.get_ident()
    assert (for_owner, for_another) == (True, False)
    assert not is_served_here(OWNER)


def test_what_it_raises_is_raised_where_it_is_awaited(portal: Portal) -> None:
    """The error itself, not a copy."""
    error = ValueError("no good")

    def fail(_: object) -> None:
        raise error

    with pytest.raises(ValueError, match="no good") as raised:
        portal.call(lambda: served(fail)("item"))
    assert raised.value is error


def generates(item: object) -> Iterator[object]:
    """Have a body that a call does not run."""
    yield item


async def generates_async(item: object) -> AsyncIterator[object]:
    """Have a body that a call does not run."""
    yield item


def hiding(function: Callable[[object], object]) -> Callable[[object], object]:
    """Return a function of which nobody can see what it is."""
    return lambda item: function(item)  # noqa: PLW0108 - as said


@pytest.mark.parametrize("function", [generates, generates_async, async_handler])
def test_r48_what_it_returns_without_having_run_is_an_error(
    portal: Portal, function: Callable[[object], object]
) -> None:
    """Behind a wrapper, where no check at the beginning sees it."""
    with pytest.raises(TypeError, match="the function returned a"):
        portal.call(lambda: served(hiding(function))("item"))


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_a_thread_cannot_end_the_program(portal: Portal, fatal: type[BaseException]) -> None:
    """An interrupt raised there becomes an error of the function."""

    def fail(_: object) -> None:
        raise fatal

    with pytest.raises(RuntimeError, match=fatal.__name__) as raised:
        portal.call(lambda: served(fail)("item"))
    assert isinstance(raised.value.__cause__, fatal)


def test_an_awaitable_result_is_refused(portal: Portal) -> None:
    """Nobody would await it; a coroutine is closed, so that nothing is reported of it."""

    def handle(item: object) -> object:
        return async_handler(item)

    with pytest.raises(TypeError, match="event loop"):
        portal.call(lambda: served(handle)("item"))
    with pytest.raises(TypeError, match="event loop"):
        portal.call(lambda: served(awaitable)("item"))


class Awaitable:
    """Something to be awaited that is no coroutine, and cannot be closed."""

    def __await__(self) -> Iterator[None]:
        yield


def awaitable(_: object) -> Awaitable:
    """Return it: a plain function, as far as can be seen."""
    return Awaitable()


def test_calls_at_once_each_have_a_thread(portal: Portal) -> None:
    """Sixty-four that wait for each other all come to their end: no pool limits them."""
    count = 64
    meeting = threading.Barrier(count, timeout=TIMEOUT)

    def handle(_: object) -> None:
        meeting.wait()

    handler = served(handle)

    async def call_all() -> None:
        await asyncio.gather(*(handler("item") for _ in range(count)))

    portal.call(call_all)


def test_cancelling_leaves_the_thread_to_itself(portal: Portal) -> None:
    """Its call ends in its own time; the task has ended before."""
    began, released, ended = threading.Event(), threading.Event(), threading.Event()

    def handle(_: object) -> None:
        began.set()
        released.wait(TIMEOUT)
        ended.set()

    async def cancel() -> None:
        task = asyncio.ensure_future(served(handle)("item"))
        await asyncio.to_thread(began.wait, TIMEOUT)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    portal.call(cancel)
    assert not ended.is_set()
    released.set()
    assert ended.wait(TIMEOUT)


def test_a_call_that_is_cancelled_before_its_thread_runs_is_not_made(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread, which begins late, finds that nobody wants the call."""
    begins: list[Callable[[], object]] = []
    made, begun = list[object](), asyncio.Event()

    async def run_late(function: Callable[..., object], *args: object, **_: object) -> object:
        begins.append(functools.partial(function, *args))
        begun.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("anyio.to_thread.run_sync", run_late)

    async def cancel() -> None:
        task = asyncio.ensure_future(served(made.append)("item"))
        await begun.wait()
        task.cancel()
        await asyncio.wait({task})

    portal.call(cancel)
    begins[0]()
    assert made == []


@pytest.mark.parametrize("shielded", [False, True])
def test_a_shielded_call_is_made_though_it_is_cancelled(portal: Portal, *, shielded: bool) -> None:
    """Cancelled before a thread has it, any other call is not made."""
    called = threading.Event()

    def handle(_: object) -> None:
        called.set()

    async def cancel() -> None:
        task = asyncio.ensure_future(served(handle, shielded=shielded)("item"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        if shielded:
            await asyncio.to_thread(called.wait, TIMEOUT)

    portal.call(cancel)
    assert called.is_set() is shielded


def test_a_call_that_is_cancelled_before_it_begins_is_not_made(portal: Portal) -> None:
    """And does not count: the next one is made."""
    made: list[object] = []
    handler = in_worker_thread("handler", made.append, OWNER, limit=1)
    assert handler is not None

    async def cancel_one() -> None:
        for turns in range(4):
            call = asyncio.ensure_future(handler(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
        await handler("last")

    portal.call(cancel_one)
    assert made[-1] == "last"
    assert 0 not in made
