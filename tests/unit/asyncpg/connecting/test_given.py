"""What ``connect=`` returns is judged by what it is, and given back where it is refused."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from wrapt import ObjectProxy

from asyncnotify._asyncpg._connecting.given import checked, discard, give_back
from asyncnotify._errors import ConfigurationError
from tests.unit.fake_connection import FakeConnection


class Closable:
    """Somebody's own class, which can be closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self.error = error

    async def close(self) -> None:
        """Note it, or fail."""
        self.closed += 1
        if self.error is not None:
            raise self.error


async def test_a_wrapper_is_looked_through() -> None:
    """Also one around another: what they stand for is what counts."""
    connection = FakeConnection()
    wrapped: Any = ObjectProxy(ObjectProxy(connection))
    assert await checked(wrapped) is connection


@pytest.mark.parametrize("flaw", ["transaction", "encoding"])
async def test_r53_a_connection_that_could_not_deliver_is_dropped(flaw: str) -> None:
    """In a transaction, or of another encoding: refused by name, and terminated."""
    connection = FakeConnection(encoding="LATIN1" if flaw == "encoding" else "UTF8")
    connection.in_transaction = flaw == "transaction"
    with pytest.raises(ConfigurationError, match=flaw):
        await checked(connection)
    assert connection.terminated


@pytest.mark.parametrize("error", [None, OSError("already gone")])
async def test_r53_what_is_no_connection_is_closed(error: Exception | None) -> None:
    """If it can be; that it fails to close is nobody's concern."""
    thing = Closable(error)
    with pytest.raises(
        ConfigurationError, match=r"returned an object of type tests\.Closable, not"
    ):
        await checked(thing)
    assert thing.closed == 1


@pytest.mark.parametrize("answer", [None, True])
async def test_r53_what_is_closed_by_a_plain_method_is_closed_too(
    caplog: pytest.LogCaptureFixture, *, answer: bool | None
) -> None:
    """Nothing is to be awaited of it, whatever it returns; terminate() comes before close()."""
    caplog.set_level(logging.DEBUG)
    called: list[str] = []

    class Plain:
        def terminate(self) -> bool | None:
            called.append("terminate")
            return answer

        def close(self) -> None:
            called.append("close")

    with pytest.raises(ConfigurationError, match="not a fresh"):
        await checked(Plain())
    assert called == ["terminate"]
    assert "was not closed" not in caplog.text


@pytest.mark.parametrize("thing", [None, 5, object(), Closable])
async def test_what_cannot_be_closed_is_refused_all_the_same(thing: object) -> None:
    """A class is not closed either: it was not made by this call."""
    with pytest.raises(ConfigurationError, match=r"not a fresh asyncpg\.Connection"):
        await checked(thing)


async def test_r53_what_comes_too_late_is_discarded() -> None:
    """A connection at once, other things by a task."""
    connection, thing = FakeConnection(), Closable()
    assert discard(connection) is None
    assert connection.terminated
    task = discard(thing)
    assert task is not None
    await task
    assert thing.closed == 1
    await give_back(connection)


class Stubborn(Closable):
    """Somebody's own class, which does not stop closing when it is told to."""

    async def close(self) -> None:
        """Note each time it is told to."""
        while True:
            # Kept: what waits for a future that nobody keeps is garbage, and may be collected
            self.waits_for = asyncio.get_running_loop().create_future()
            with suppress(asyncio.CancelledError):
                await self.waits_for
                return
            self.closed += 1
            if self.closed > 1:
                return


async def test_giving_back_takes_two_seconds_whatever_happens() -> None:
    """Also with a class that ignores cancellation, which is left to its own task."""
    thing = Stubborn()
    began = asyncio.get_running_loop().time()
    await give_back(thing)
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.3)
    assert thing.closed == 1
    (left,) = asyncio.all_tasks() - {asyncio.current_task()}
    left.cancel()
    await asyncio.wait({left})
