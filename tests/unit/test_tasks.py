from __future__ import annotations

import asyncio
import contextlib
import gc
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._tasks import CANCEL_GRACE, GivenUp, cancel, retrieve, sealed, start

if TYPE_CHECKING:
    from collections.abc import Coroutine

REQUEST: ContextVar[str] = ContextVar("request", default="none")


async def test_p12_a_task_of_ours_has_an_empty_context() -> None:
    """It sees no variable of the task that started it."""

    async def look() -> str:
        return REQUEST.get()

    token = REQUEST.set("a request")
    task = start(look(), name="asyncnotify test")
    REQUEST.reset(token)
    assert await task == "none"
    assert task.get_name() == "asyncnotify test"


@pytest.mark.parametrize("fails", [False, True])
async def test_r50_whoever_replaces_create_task_finds_no_caller(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """A tracing agent would give the trace of the current context or task to the new task."""
    loop, found = asyncio.get_running_loop(), list[object]()
    create = loop.create_task

    def replacement(*args: Any, **kwargs: Any) -> Any:
        found.extend([REQUEST.get(), asyncio.current_task()])
        if fails:
            raise MemoryError
        return create(*args, **kwargs)

    async def nothing() -> None:
        pass

    caller, coroutine = asyncio.current_task(), nothing()
    token = REQUEST.set("a request")
    with monkeypatch.context() as patch, contextlib.closing(coroutine):
        patch.setattr(loop, "create_task", replacement)
        with contextlib.suppress(MemoryError):
            await start(coroutine, name="asyncnotify test")
    assert found == ["none", None]
    assert asyncio.current_task() is caller
    assert REQUEST.get() == "a request"
    REQUEST.reset(token)


async def test_a_task_can_be_started_where_none_runs() -> None:
    """In a callback of the event loop."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[asyncio.Task[None]] = loop.create_future()
    loop.call_soon(lambda: started.set_result(start(asyncio.sleep(0), name="asyncnotify test")))
    await (await started)


async def test_cancel_returns_once_the_tasks_have_ended() -> None:
    """Their clean-up has run by then."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(CANCEL_GRACE / 2)
            ended.append("work")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await cancel([task])
    assert ended == ["work"]


async def test_cancel_waits_no_longer_than_the_grace_period() -> None:
    """A task that ignores its cancellation is left to itself."""

    async def ignore() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(100)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(ignore())
    await asyncio.sleep(0)
    began = loop.time()
    await cancel([task])
    assert loop.time() - began == pytest.approx(CANCEL_GRACE)
    assert not task.done()
    await task


async def test_cancel_of_nothing_returns_at_once() -> None:
    """asyncio.wait() would refuse an empty set."""
    await cancel([])


@pytest.mark.parametrize("retrieved", [True, False])
async def test_the_error_of_a_cancelled_task_is_not_reported(*, retrieved: bool) -> None:
    """Without retrieve() asyncio reports an exception that nobody retrieved."""
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def fail() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            message = "clean-up failed"
            raise OSError(message)

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    if retrieved:
        await cancel([task])
    else:
        task.cancel()
        await asyncio.wait({task})
    del task
    gc.collect()
    assert len(reported) == (0 if retrieved else 1)


async def test_retrieve_accepts_a_cancelled_task() -> None:
    """Asking a cancelled task for its exception would raise."""
    task = asyncio.create_task(asyncio.sleep(100))
    await cancel([task])
    retrieve(task)


# -- what nobody is to see ------------------------------------------------------------------------


async def test_a_sealed_call_shows_nothing_of_its_outcome() -> None:
    """Neither what it returned nor what it raised: debug mode logs the repr of its task."""

    async def call(error: Exception | None = None) -> str:
        if error is not None:
            raise error
        return "secret"

    succeeded = asyncio.create_task(sealed(call))
    own = LookupError("secret")
    failed = asyncio.create_task(sealed(lambda: call(own)))
    await asyncio.wait({succeeded, failed})
    assert "secret" not in f"{succeeded!r} {failed!r} {succeeded.result()!r} {failed.result()!r}"
    assert succeeded.result().open() == "secret"
    with pytest.raises(LookupError) as raised:
        failed.result().open()
    assert raised.value is own
    assert (succeeded.result().has_failed, failed.result().has_failed) == (False, True)


async def test_a_sealed_call_that_is_cancelled_before_it_begins_leaves_no_coroutine() -> None:
    """No call is made, so that none is left which nobody awaits."""
    calls: list[str] = []

    async def call() -> None:
        calls.append("")

    def made() -> Coroutine[Any, Any, None]:
        calls.append("made")
        return call()

    if asyncio.get_running_loop().get_task_factory() is not None:
        pytest.skip("an eager task has begun when it is there to be cancelled")
    task = asyncio.create_task(sealed(made))
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), calls) == (True, [])


async def test_a_sealed_call_can_be_cancelled() -> None:
    """The task is cancelled, as any."""
    task = asyncio.create_task(sealed(lambda: asyncio.sleep(3600)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_what_was_given_up_is_waited_for_but_not_for_ever() -> None:
    """A task that closes something ends first; one that does not end costs the grace."""
    loop, given_up, closed = asyncio.get_running_loop(), GivenUp(), list[str]()

    async def close(seconds: float) -> None:
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(seconds)
            closed.append(f"after {seconds}")

    await given_up.ended()
    began = loop.time()
    tasks = [loop.create_task(close(seconds)) for seconds in (0.1, 3.0)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
        given_up.add(task)
    await given_up.ended()
    assert closed == ["after 0.1"]
    assert loop.time() - began == pytest.approx(CANCEL_GRACE)
    await asyncio.wait(tasks)
    await given_up.ended()
    assert loop.time() - began == pytest.approx(3.0)
