"""Sending many notifications from a thread: the event loop asks the thread for the next pairs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncnotify._blocking.call import Call
from asyncnotify._publishing.batching import BATCH_COUNT
from asyncnotify._tasks import Sealed

if TYPE_CHECKING:
    from asyncnotify._blocking.portal import Portal

_Request: TypeAlias = "asyncio.Future[Sealed[list[Any]]]"

_Requests: TypeAlias = "queue.SimpleQueue[_Request | None]"


def send_pairs(
    portal: Portal,
    notify_many: Callable[[AsyncIterator[Any]], Awaitable[int]],
    pairs: Iterable[Any],
) -> int:
    """
    Call ``notify_many`` in the event loop, and iterate over the pairs in this thread meanwhile.

    Raises:
        TypeError: ``pairs`` cannot be iterated over.
        Exception: What ``notify_many``, or iterating, raised.
    """
    iterator = iter(pairs)
    requests: _Requests = queue.SimpleQueue()
    sending = Call(functools.partial(notify_many, _requested(requests)))
    sending.outcome.add_done_callback(lambda _: requests.put(None))
    try:
        portal.begin(sending)
        while (request := requests.get()) is not None:
            _answer(request, iterator)
        return sending.outcome.result()
    except BaseException:
        portal.abandon(sending)
        raise


async def _requested(requests: _Requests) -> AsyncIterator[Any]:
    """Yield what the thread answers to one request after another."""
    while True:
        portion: _Request = asyncio.get_running_loop().create_future()
        requests.put(portion)
        if not (pairs := (await portion).open()):
            return
        for pair in pairs:
            yield pair


def _answer(request: _Request, iterator: Iterator[Any]) -> None:
    try:
        pairs = Sealed(list(itertools.islice(iterator, BATCH_COUNT)))
    except Exception as error:  # noqa: BLE001 - notify_many() raises it, with a note
        pairs = Sealed(error=error)
    with contextlib.suppress(RuntimeError):  # the loop has been closed: the outcome is known
        request.get_loop().call_soon_threadsafe(_settle, request, pairs)


def _settle(request: _Request, pairs: Sealed[list[Any]]) -> None:
    if not request.done():
        request.set_result(pairs)
