"""What is read after a mistake with a log: the problem, what was given, and what to do instead."""

from __future__ import annotations

import inspect
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify.log import BlockingLog, Log, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.needs_server("drivers")

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
    "a list of channels to read": (
        lambda log: log.read(["a", "b"]),
        r"type list.*by itself, as read\('orders', 'prices'\)",
    ),
    "a list of channels to consume": (
        lambda log: log.consumer("h", ["a", "b"]),
        r"type list.*by itself, as consumer\(",
    ),
    "a list of channels to handle": (lambda log: log.on("h", ("a",)), r"type tuple.*@log\.on\("),
    "a list to append to": (lambda log: log.append(["a"], "x"), "type list.*has one channel"),
    "a word for start": (lambda log: log.consumer("h", start="begin"), '^start must be "start"'),
    "a number for start": (lambda log: log.on("h", start=5), "^start must be.*type int"),
    "a naive start": (
        lambda log: log.on("h", start=datetime(2026, 1, 1)),  # noqa: DTZ001 - the mistake
        "^start must be an aware",
    ),
    "a word for to": (lambda log: log.seek("h", "begin"), '^to must be "start"'),
    "a word for after": (lambda log: log.read(after="begin"), '^after must be "start"'),
    "a number as key": (lambda log: log.append("a", "x", key=5), r"key.*type int.*str\(key\)"),
    "a number as header": (
        lambda log: log.append("a", "x", headers={"a": 5}),
        "headers.*value of type int.*texts",
    ),
    "a number as the name of one": (
        lambda log: log.append("a", "x", headers={5: "a"}),
        "headers.*name of type int.*texts",
    ),
    "no header": (lambda log: log.append("a", "x", headers={"a": None}), "value of type NoneType"),
    "an event of one": (lambda log: log.append_many([("a",)]), "tuple of channel.*tuple of 1$"),
    "an event as a list": (lambda log: log.append_many([["a", "x"]]), "tuple.*not a list of 2$"),
    "a text for since": (lambda log: log.statements(since="1"), "since must be.*0 to.*'1'"),
    "a version to come": (lambda log: log.statements(since=99), "since must be.*0 to.*99"),
    "a negative version": (lambda log: log.statements(since=-1), "since must be.*0 to.*-1"),
    "a bool for since": (lambda log: log.statements(since=True), "since must be.*True"),
    "a mapping of events": (
        lambda log: log.append_many({"a": "x"}),
        "events is of type dict, which has no tuples.*items",
    ),
    "a text of events": (lambda log: log.append_many("a"), "events is of type str.*a list of"),
    "a function to read": (lambda log: log.read("a", print), r"type builtin.*@log\.on\(name\)"),
    "an option misspelled": (lambda _: Log("orders", operation_timout=5), "mean operation_timeout"),
    "another one": (lambda _: Log("orders", polls=5), "mean poll="),
    "one of the blocking log": (lambda _: BlockingLog("orders", wakee="poll"), "mean wake="),
    "a pool for a DSN": (
        lambda _: Log("orders", asyncpg.create_pool()),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        "a pool is given as pool=",
    ),
    "a pool and a host": (
        lambda _: Log("orders", pool=asyncpg.create_pool(), host="h"),
        "host would go unused: pool=",
    ),
    "no time to be slow": (lambda log: log.on("h", slow_after=0), "slow_after.*or None, not 0"),
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


async def test_why_nothing_was_appended_is_told_with_the_drivers_error(
    dsn: str, admin: asyncpg.Connection[Any]
) -> None:
    """No log in the database, a transaction that has failed, and a closed connection."""
    log = Log("orders", dsn)
    transaction = admin.transaction()
    await transaction.start()
    with pytest.raises(asyncpg.PostgresError) as raised:
        await log.append("things", "x", connection=admin)
    assert "nothing was appended: the database has no log 'orders'" in notes(raised.value)
    with pytest.raises(asyncpg.InFailedSQLTransactionError) as aborted:
        await log.append("things", "x", connection=admin)
    assert "nothing was appended: roll the transaction" in notes(aborted.value)
    await transaction.rollback()
    other = await asyncpg.connect(dsn)
    await other.close()
    with pytest.raises(asyncpg.InterfaceError) as closed:
        await log.append("things", "x", connection=other)
    assert "nothing was appended: connection= was closed" in notes(closed.value)


def notes(error: BaseException) -> str:
    """Return what has been added to an error."""
    return "; ".join(getattr(error, "__notes__", ()))
