"""That `Raises:` tells when a listener or notifier refuses a call for what it is doing."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

import pytest

import asyncnotify
from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    ClosedError,
    Listener,
    Notifier,
    NotStartedError,
    WrongLoopError,
)
from tests.support.docstrings import raised_by

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[Any], Any]

CALLS: Final[dict[str, Call]] = {
    "Listener.aclose": lambda it: it.aclose(),
    "Listener.events": lambda it: it.events(),
    "Listener.health": lambda it: it.health(),
    "Listener.listen": lambda it: it.listen("orders", print),
    "Listener.notify": lambda it: it.notify("orders"),
    "Listener.notify_many": lambda it: it.notify_many([("orders", "1")]),
    "Listener.on": lambda it: it.on("orders")(print),
    "Listener.stats": lambda it: it.stats(),
    "Listener.stream": lambda it: it.stream("orders"),
    "Listener.unlisten": lambda it: it.unlisten("orders"),
    "Listener.wait_connected": lambda it: it.wait_connected(),
    "Notifier.aclose": lambda it: it.aclose(),
    "Notifier.notify": lambda it: it.notify("orders"),
    "Notifier.notify_many": lambda it: it.notify_many([("orders", "1")]),
    "Stream.__aenter__": lambda it: it.stream("orders").__aenter__(),
    "Stream.__anext__": lambda it: it.stream("orders").__anext__(),
}
BLOCKING: Final[dict[str, Call]] = {
    **{f"Blocking{n}".replace("aclose", "close"): CALLS[n] for n in CALLS if "_" not in n},
    "BlockingListener.close": lambda it: it.close(),
    "BlockingListener.notify_many": lambda it: it.notify_many([("orders", "1")]),
    "BlockingListener.wait_connected": lambda it: it.wait_connected(),
    "BlockingNotifier.close": lambda it: it.close(),
    "BlockingNotifier.notify_many": lambda it: it.notify_many([("orders", "1")]),
    "BlockingStream.__enter__": lambda it: it.stream("orders").__enter__(),
    "BlockingStream.__next__": lambda it: it.stream("orders").__next__(),
    "BlockingStream.get": lambda it: it.stream("orders").get(),
}


def function_of(name: str) -> Any:
    """Return a method by the names of its class and of its own."""
    cls, _, method = name.partition(".")
    return inspect.getattr_static(getattr(asyncnotify, cls), method)


def listing(calls: dict[str, Call], error: type[BaseException], faces: str) -> set[str]:
    """Return the calls of these classes whose docstrings list an exception."""
    of_faces = {name for name in calls if name.startswith(tuple(faces.split()))}
    return {name for name in of_faces if error in raised_by(function_of(name))}


async def raising(
    calls: dict[str, Call], error: type[BaseException], faces: str, subject: object
) -> set[str]:
    """Return the calls that raise this exception; no other may come out of any."""
    found: set[str] = set()
    for name, call in calls.items():
        if not name.startswith(tuple(faces.split())):
            continue
        try:
            blocks = name.startswith("Blocking")
            result = await asyncio.to_thread(call, subject) if blocks else call(subject)
            if inspect.isawaitable(result):
                await result
        except error:
            found.add(name)
    return found


async def test_r48_what_has_not_been_started_says_so(dsn: str) -> None:
    """NotStartedError is listed by those that raise it then, and by no other."""
    faces = "Listener Stream"
    expected = listing(CALLS, NotStartedError, faces)
    assert await raising(CALLS, NotStartedError, faces, Listener(dsn)) == expected
    faces = "BlockingListener BlockingStream"
    expected = listing(BLOCKING, NotStartedError, faces)
    assert await raising(BLOCKING, NotStartedError, faces, BlockingListener(dsn)) == expected


async def test_r48_what_has_been_closed_says_so(dsn: str) -> None:
    """ClosedError is listed by those that raise it then; on() raises it while it is closing."""
    async with Listener(dsn) as listener, Notifier(dsn) as notifier:
        pass
    faces = "Listener Stream"
    expected = listing(CALLS, ClosedError, faces) - {"Listener.on"}
    assert await raising(CALLS, ClosedError, faces, listener) == expected
    expected = listing(CALLS, ClosedError, "Notifier")
    assert await raising(CALLS, ClosedError, "Notifier", notifier) == expected


def test_r48_what_has_been_closed_says_so_to_threads(dsn: str) -> None:
    """ClosedError is listed by those that raise it then; on() raises it while it is closing."""
    with BlockingListener(dsn) as listener, BlockingNotifier(dsn) as notifier:
        pass
    faces = "BlockingListener BlockingStream"
    expected = listing(BLOCKING, ClosedError, faces) - {"BlockingListener.on"}
    assert asyncio.run(raising(BLOCKING, ClosedError, faces, listener)) == expected
    expected = listing(BLOCKING, ClosedError, "BlockingNotifier")
    assert asyncio.run(raising(BLOCKING, ClosedError, "BlockingNotifier", notifier)) == expected


async def test_r48_a_foreign_event_loop_is_told_so(dsn: str) -> None:
    """WrongLoopError is listed by those that raise it then, start() included."""
    calls: dict[str, Call] = {
        **CALLS,
        "Listener.start": lambda it: it.start(),
        "Notifier.start": lambda it: it.start(),
        "Stream.aclose": lambda it: stream.aclose(),
        "Stream.__anext__": lambda it: stream.__anext__(),
        "Subscription.cancel": lambda it: subscription.cancel(),
    }
    async with (
        Listener(dsn) as listener,
        Notifier(dsn) as notifier,
        listener.stream("orders") as stream,
    ):
        subscription = await listener.listen("orders", print)
        for subject, faces in ((listener, "Listener Stream Subscription"), (notifier, "Notifier")):
            found = raising(calls, WrongLoopError, faces, subject)
            expected = listing(calls, WrongLoopError, faces)
            assert await asyncio.to_thread(asyncio.run, found) == expected


@pytest.mark.parametrize("face", [Listener, Notifier])
@pytest.mark.parametrize(
    "pairs",
    [
        [5],
        ["ab"],
        [()],
        [("", "x")],
        [("x" * 64, "x")],
        [("orders", b"x")],
        [("orders", "\0")],
        [("orders", "x" * 8000)],
    ],
)
async def test_r48_a_wrong_pair_is_refused_by_what_is_listed(
    dsn: str,
    face: Any,
    pairs: Any,
) -> None:
    """As soon as notify_many() comes to it, and with a note on what has been sent before."""
    async with face(dsn) as sender:
        with pytest.raises((TypeError, ValueError)) as caught:
            await sender.notify_many([("orders", "first"), *pairs])
    assert isinstance(caught.value, raised_by(face.notify_many))
    assert caught.value.__notes__ == ["0 notifications before it have been sent"]
