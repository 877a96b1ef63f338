"""In whose context handlers run: that of their registration, each call in a fresh copy."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._model import Gap, Notification
from asyncnotify._subscriptions.worker import HandlerWorker, serving_worker
from tests.unit.fake_sources import TrimmingSource

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST: ContextVar[str] = ContextVar("request", default="nobody's")


def context_with(request: str) -> Context:
    """Return a context in which a request is being served."""
    context = Context()
    context.run(REQUEST.set, request)
    return context


async def serve(
    handler: Callable[[Notification[str]], Any],
    count: int,
    *,
    context: Context,
    concurrency: int = 1,
    resync: Callable[[Gap], Any] | None = None,
) -> None:
    """Let a worker hand over so many notifications, as the roster does."""
    box = BoundedMailbox(100, "drop_oldest", channel="a", source=TrimmingSource())
    subscriber = Subscriber(["a"], box)
    worker = HandlerWorker(
        subscriber,
        handler,
        resync=resync,
        on_error=None,
        concurrency=concurrency,
        context=context,
    )
    task = asyncio.get_running_loop().create_task(worker.run(), context=worker.context)
    subscriber.begin()
    for number in range(count):
        box.put(Notification("a", str(number), 7))
    await asyncio.sleep(10)
    box.end(discard=False)
    await task


def noting(seen: list[str], *, is_async: bool) -> Callable[[Notification[str]], Any]:
    """Return a handler that notes what it finds set, and sets it for itself."""

    def note(notification: Notification[str]) -> None:
        seen.append(REQUEST.get())
        REQUEST.set(f"of call {notification.payload}")

    async def note_later(notification: Notification[str]) -> None:
        seen.append(REQUEST.get())
        await asyncio.sleep(0.1)
        note(notification)

    return note_later if is_async else note


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_r50_each_call_finds_the_context_of_the_registration(
    concurrency: int, *, is_async: bool
) -> None:
    """Never what another call has set, however it is called."""
    seen: list[str] = []
    handler = noting(seen, is_async=is_async)
    await serve(handler, 5, context=context_with("registered"), concurrency=concurrency)
    assert set(seen) == {"registered"}
    assert len(seen) == (10 if is_async else 5)


async def test_r50_a_call_never_finds_what_resync_has_set() -> None:
    """resync runs in a copy of its own as well."""
    seen: list[str] = []

    def resync(_gap: Gap) -> None:
        seen.append(REQUEST.get())
        REQUEST.set("of resync")

    handler = noting(seen, is_async=False)
    await serve(handler, 2, context=context_with("registered"), resync=resync)
    assert seen == ["registered"] * 3


async def test_r50_what_a_call_sets_does_not_get_into_the_registration() -> None:
    """The context that was copied is left as it was."""
    context = context_with("registered")
    await serve(noting([], is_async=True), 2, context=context)
    assert context.run(REQUEST.get) == "registered"


async def test_r50_a_variable_that_is_set_back_costs_no_new_task() -> None:
    """As tracing does for each span: the calls go on in one task."""
    tasks: set[object] = set()

    def handler(_notification: Notification[str]) -> None:
        token = REQUEST.set("a span's")
        tasks.add(asyncio.current_task())
        REQUEST.reset(token)

    await serve(handler, 5, context=context_with("registered"))
    assert len(tasks) == 1


async def test_a_cancelled_worker_cancels_the_call_that_goes_on_in_another_context() -> None:
    """Also after a call that set a variable: nothing is left running."""
    ends: list[str] = []

    async def handler(notification: Notification[str]) -> None:
        REQUEST.set("changed")
        if notification.payload == "1":
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ends.append("ended")

    serving = asyncio.create_task(serve(handler, 2, context=Context()))
    await asyncio.sleep(5)
    (worker,) = (task for task in asyncio.all_tasks() if "run" in str(task.get_coro()))
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ends == ["ended"]


async def test_a_task_of_a_handler_is_known_as_its_worker_s() -> None:
    """So that a close from inside it does not wait for it; other tasks are not the worker's."""
    found: list[HandlerWorker | None] = []

    async def look() -> None:
        found.append(serving_worker())

    async def handler(_notification: Notification[str]) -> None:
        await look()
        await asyncio.create_task(look())
        async with asyncio.TaskGroup() as group:
            group.create_task(look())

    await serve(handler, 1, context=copy_context())
    assert len(found) == 3
    assert len({id(worker) for worker in found}) == 1
    assert found[0] is not None
    assert serving_worker() is None
