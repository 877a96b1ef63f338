from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.buffering import Buffering
from asyncnotify._delivery.router import Router
from asyncnotify._model import Gap, GapReason, Notification
from asyncnotify._subscriptions.registration import Registration
from tests.unit.fake_sources import NO_LOOP

REQUEST: ContextVar[str] = ContextVar("request", default="none")
BUFFERING = Buffering(buffer=3, overflow="drop_oldest", latest=False)


def ignore(_: object) -> None:
    """Do nothing."""


def registration(**changes: Any) -> Registration:
    """Return a registration of a handler that does nothing."""
    fields: dict[str, Any] = {
        "channel": Channel("orders"),
        "handler": ignore,
        "resync": None,
        "buffering": BUFFERING,
        "concurrency": 1,
        "on_error": None,
    }
    return Registration(**{**fields, **changes})


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("concurrency", 0, ValueError),
        ("concurrency", 1.5, ValueError),
        ("handler", None, TypeError),
        ("handler", "print", TypeError),
        ("handler", lambda: None, TypeError),
        ("resync", 7, TypeError),
        ("resync", lambda: None, TypeError),
        ("on_error", 7, TypeError),
    ],
)
def test_r45_a_wrong_argument_is_refused_where_it_is_given(
    field: str, value: object, error: type[Exception]
) -> None:
    """The error names the argument, before any connection is made."""
    with pytest.raises(error, match=field):
        registration(**{field: value})


def test_a_worker_begins_with_an_empty_mailbox_of_its_own() -> None:
    """Each run of a listener has new workers: they share neither buffer nor counters."""
    router, given = Router(NO_LOOP), registration()
    first, second = given.new_worker(router), given.new_worker(router)
    first.subscriber.begin()
    first.subscriber.mailbox.put(Notification("orders", "1", 7))
    assert first.subscriber.stats().backlog == 1
    assert second.subscriber.stats().backlog == 0
    assert second.subscriber.channels == ("orders",)


def test_gaps_are_put_only_where_resync_takes_them() -> None:
    """Without resync no Gap is put into the mailbox when LISTEN is in force."""
    router = Router(NO_LOOP)
    for resync, expected in ((None, None), (ignore, Gap("orders", GapReason.START))):
        subscriber = registration(resync=resync).new_worker(router).subscriber
        subscriber.begin()
        assert subscriber.mailbox.take() == expected


def test_two_registrations_of_one_function_are_equal_wherever_they_were_made() -> None:
    """The context is no part of the comparison, so that the same registration is found again."""
    channel = Channel("orders")
    here = registration(channel=channel)
    token = REQUEST.set("another")
    there = registration(channel=channel)
    REQUEST.reset(token)
    assert here == there
    assert hash(here) == hash(there)


async def test_the_handler_runs_in_the_context_of_its_registration() -> None:
    """Not in that of the task that starts the listener."""
    seen: list[str] = []
    token = REQUEST.set("registering")

    def handle(_: object) -> None:
        seen.append(REQUEST.get())

    given = registration(handler=handle)
    REQUEST.reset(token)
    worker = given.new_worker(Router(asyncio.get_running_loop()))
    worker.subscriber.begin()
    worker.subscriber.mailbox.put(Notification("orders", "1", 7))
    worker.subscriber.mailbox.end(discard=False)
    await asyncio.create_task(worker.run(), context=worker.context)
    assert seen == ["registering"]
