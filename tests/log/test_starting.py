"""start() of a log that has handlers, while the server cannot be reached, or refuses."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import ClosedError, ConnectError
from asyncnotify.log import Event, Log, NotInstalledError
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from asyncnotify.testing.server import PostgresServer

pytestmark = pytest.mark.needs_server("a server that restarts")

NOWHERE = "postgresql://127.0.0.1:1/nowhere"


class Warned(logging.Handler):
    """Sets an event when a WARNING is logged, and keeps them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.texts.append(record.getMessage())
        self.event.set()


@pytest.fixture
def warned() -> Iterator[Warned]:
    """What is warned of from here on."""
    handler = Warned()
    logger = logging.getLogger("asyncnotify")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def with_handlers(*args: Any, **options: Any) -> tuple[Log, asyncio.Queue[str]]:
    """Return a log with two handlers, and what they are called with."""
    log = Log("orders", *args, backoff=lambda: iter(lambda: 0.05, 1.0), **options)
    handled: asyncio.Queue[str] = asyncio.Queue()
    for name in ("one", "two"):

        @log.on(name)
        def handle(event: Event[str]) -> None:
            handled.put_nowait(event.payload)

    return log, handled


async def test_start_keeps_trying_while_the_server_restarts(
    own_server: PostgresServer, warned: Warned
) -> None:
    """With a WARNING that says so; when the server is back, start() returns and handlers run."""
    log, handled = with_handlers(own_server.dsn, start_timeout=600)
    await log.install()
    await log.append("things", "1")
    await log.aclose()
    await asyncio.to_thread(own_server.stop)
    starting = asyncio.ensure_future(log.start())
    await warned.event.wait()
    assert not starting.done()
    assert "start() keeps trying for 600 s" in warned.texts[0]
    await asyncio.to_thread(own_server.start)
    await starting
    assert [await handled.get() for _ in range(2)] == ["1", "1"]
    await log.aclose()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_call_during_another_returns_when_the_log_runs(
    own_server: PostgresServer, warned: Warned, *, is_cancelled: bool
) -> None:
    """It waits for the first one; if that is cancelled, it tries by itself."""
    log, handled = with_handlers(own_server.dsn)
    await log.install()
    await log.append("things", "1")
    await log.aclose()
    await asyncio.to_thread(own_server.stop)
    first = asyncio.ensure_future(log.start())
    second = asyncio.ensure_future(log.start())
    await warned.event.wait()
    if is_cancelled:
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert not second.done()
    await asyncio.to_thread(own_server.start)
    await asyncio.gather(second, first, return_exceptions=True)
    await second
    assert [await handled.get() for _ in range(2)] == ["1", "1"]
    await log.aclose()


async def test_start_gives_up_after_its_timeout() -> None:
    """With the last error; the log can be started again."""
    log, _ = with_handlers(NOWHERE, start_timeout=scaled(0.2))
    for _ in range(2):
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectError):
            await log.start()
        assert asyncio.get_running_loop().time() - began > 0.1
    await log.aclose()


async def test_start_ends_when_the_log_is_closed(warned: Warned) -> None:
    """By a ClosedError, also with start_timeout=None."""
    log, _ = with_handlers(NOWHERE, start_timeout=None)
    starting = asyncio.ensure_future(log.start())
    await warned.event.wait()
    assert warned.texts[0].endswith("start() keeps trying")
    await log.aclose()
    with pytest.raises(ClosedError):
        await starting


async def test_what_no_attempt_can_mend_is_raised_at_once(
    dsn: str, admin: asyncpg.Connection[Any], warned: Warned
) -> None:
    """A database or a log that is not there."""
    for start_dsn, error in ((dsn + "_not_there", ConnectError), (dsn, NotInstalledError)):
        log, _ = with_handlers(start_dsn)
        with pytest.raises(error):
            await log.start()
        await log.aclose()
    assert warned.texts == []
