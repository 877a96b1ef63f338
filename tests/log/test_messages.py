"""What is read after a mistake with a log: the problem, what was given, and what to do instead."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify.log import Log, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET = "hunter2"
URL = f"postgresql://user:{SECRET}@localhost/db"


async def yielding(event: object) -> AsyncIterator[object]:
    """Have a body that a call does not run."""
    yield event


class Order:
    """What is taken for a handler."""

    def __init__(self, event: object) -> None:
        self.event = event


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a DSN for a name": (lambda _: Log(URL), "a URL.*a-z.*DSN is the second"),
    "no text for a name": (lambda _: Log(5), "type int.*a-z"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "on without brackets": (lambda log: log.on(print), "type builtin.*function.*after"),
    "a generator": (lambda log: log.on("h")(yielding), "`yield`.*remove the `yield`"),
    "a class": (lambda log: log.on("h")(Order), "class Order.*give a function"),
    "no retry": (lambda log: log.on("h", on_error=None), "on_error.*Retry.*NoneType"),
    "a function as retry": (lambda log: log.on("h", on_error=print), "on_error.*Retry"),
    "the class of it": (lambda log: log.on("h", on_error=Retry), "on_error.*the class Retry"),
    "one role": (lambda log: log.grants(append="web"), "append.*list of names.*'web'"),
    "a number as role": (lambda log: log.grants(consume=[1]), "consume.*list of names"),
    "an empty role": (lambda log: log.grants(append=[""]), "append.*empty"),
    "no letter": (lambda log: log.retry(None), "letter must be a DeadLetter.*NoneType"),
    "an id of one": (lambda log: log.discard("x"), "letter must be a DeadLetter.*str"),
    "a paused number": (lambda log: log.pause(5), "consumer.*type int.*printable"),
    "a resumed number": (lambda log: log.resume(5), "consumer.*type int.*printable"),
    "a dropped None": (lambda log: log.drop(None), "consumer.*NoneType.*printable"),
    "a sought number": (lambda log: log.seek(5, "start"), "consumer.*type int.*printable"),
    "letters of a number": (lambda log: log.dead_letters(5), "consumer.*type int.*printable"),
}


async def made(mistake: Callable[[Any], Any], log: Log) -> None:
    """Make a mistake, and wait for it if it takes time."""
    outcome = mistake(log)
    if inspect.isawaitable(outcome):
        await outcome


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_is_told_before_anything_is_sent(name: str) -> None:
    """By a log that has no server; and no message repeats a password."""
    mistake, pattern = MISTAKES[name]
    log = Log("orders", "postgresql://127.0.0.1:1/nowhere")
    with pytest.raises((TypeError, ValueError)) as raised:
        await made(mistake, log)
    message = str(raised.value)
    assert re.search(pattern, message), message
    assert SECRET not in message
