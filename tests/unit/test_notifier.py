from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    Channel,
    ChannelNameError,
    ClosedError,
    ConnectError,
    Notifier,
    PayloadError,
    PayloadTooLargeError,
)
from asyncnotify._notifier import ListenersNotifier
from asyncnotify._publishing.limits import PublishingLimits
from tests.unit.fake_publishing import FakePublishingServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSED = ConnectionRefusedError("no server")
RETRY_DELAY, START_TIMEOUT, RETRY_TIMEOUT = 1.0, 10.0, 5.0


class NotifierHarness:
    """A notifier on a fake server, which answers each statement after a second."""

    def __init__(self, *, start_timeout: float | None = START_TIMEOUT) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.server = FakePublishingServer()
        limits = PublishingLimits(start_timeout=start_timeout, retry_timeout=RETRY_TIMEOUT)
        self.notifier = ListenersNotifier(
            self.server, limits, lambda: itertools.chain([0.0], itertools.repeat(RETRY_DELAY))
        )

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return self.loop.time() - self.began


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[NotifierHarness]:
    """A notifier that is closed in the end."""
    made = NotifierHarness()
    yield made
    await made.notifier.aclose(0)


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"operation_timeout": 0}, "operation_timeout"),
        ({"retry_timeout": None}, "retry_timeout"),
        ({"queue": 0}, "queue"),
        ({"backoff": 1.0}, "backoff"),
        ({"pool": 7}, "pool"),
        ({"connect": 7}, "connect"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_r45_a_wrong_argument_is_refused_by_the_constructor(
    options: dict[str, Any], name: str
) -> None:
    """The error names it; no event loop runs."""
    with pytest.raises((TypeError, ValueError), match=name):
        Notifier(**options)


@pytest.mark.parametrize("options", [{"dsn": "postgresql://db"}, {"host": "db"}])
def test_a_pool_excludes_what_says_how_to_connect(options: dict[str, Any]) -> None:
    """One of them would be ignored without a word."""
    options = {"pool": object(), **options}
    with pytest.raises(TypeError, match="pool"):
        Notifier(**options)


def test_the_repr_holds_no_password() -> None:
    """But where it leads to."""
    shown = repr(Notifier("postgresql://alice:secret@db.example/shop"))
    assert "alice@db.example" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("channel", "payload", "error"),
    [
        ("", "p", ChannelNameError),
        ("orders", "p" * 8_000, PayloadTooLargeError),
        ("orders", 7, PayloadError),
        (Channel("orders", int), "seven", PayloadError),
    ],
)
async def test_p10_wrong_input_is_refused_before_a_connection_is_made(
    harness: NotifierHarness,
    channel: Any,
    payload: Any,
    error: type[Exception],
) -> None:
    """By notify() and by notify_many()."""
    with pytest.raises(error):
        await harness.notifier.notify(channel, payload)
    assert harness.server.sessions == []
    with pytest.raises(error):
        await harness.notifier.notify_many([(channel, payload)])
    assert harness.server.committed == []


# -- lifetime -------------------------------------------------------------------------------------


async def test_the_first_call_connects(harness: NotifierHarness) -> None:
    """start() need not be called; the connection is kept for the next call."""
    await harness.notifier.notify("orders", "1")
    await harness.notifier.notify(Channel("numbers", int), 2)
    assert harness.server.committed == [("orders", "1"), ("numbers", "2")]
    assert len(harness.server.sessions) == 1


async def test_start_retries_until_its_timeout(harness: NotifierHarness) -> None:
    """Then it raises the last error, and nothing is left running."""
    harness.server.open_errors = [REFUSED] * 100
    with pytest.raises(ConnectError) as raised:
        await harness.notifier.start()
    assert raised.value.__cause__ is REFUSED
    assert harness.now == START_TIMEOUT
    assert 100 - len(harness.server.open_errors) == 1 + START_TIMEOUT / RETRY_DELAY


async def test_start_without_a_timeout_retries_for_ever() -> None:
    """As long as the server may come up."""
    harness = NotifierHarness(start_timeout=None)
    harness.server.open_errors = [REFUSED] * 500
    await harness.notifier.start()
    assert harness.now >= 500 * RETRY_DELAY
    await harness.notifier.aclose(0)


async def test_start_does_not_retry_what_is_permanent(harness: NotifierHarness) -> None:
    """A wrong password is raised at once."""
    harness.server.open_errors = [asyncpg.InvalidPasswordError("wrong password")]
    with pytest.raises(ConnectError, match="wrong password"):
        await harness.notifier.start()
    assert harness.now == 0.0


async def test_aclose_sends_what_was_accepted(harness: NotifierHarness) -> None:
    """Later calls are refused, until it is started anew."""
    await harness.notifier.start()
    calls = [asyncio.create_task(harness.notifier.notify("orders", str(n))) for n in range(3)]
    await asyncio.sleep(0)
    await harness.notifier.aclose()
    await asyncio.gather(*calls)
    assert harness.server.payloads == ["0", "1", "2"]
    with pytest.raises(ClosedError):
        await harness.notifier.notify("orders", "late")
    await harness.notifier.start()
    await harness.notifier.notify("orders", "again")
    assert harness.server.payloads == ["0", "1", "2", "again"]


async def test_p8_aclose_gives_up_at_its_timeout(harness: NotifierHarness) -> None:
    """Every waiting caller gets an error."""
    await harness.notifier.start()
    harness.server.answer_time = 100.0
    call = asyncio.create_task(harness.notifier.notify("orders", "1"))
    await asyncio.sleep(1)
    await harness.notifier.aclose(2.0)
    assert harness.now == pytest.approx(3, abs=0.5)
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    assert isinstance(outcome, Exception)


async def test_a_wrong_timeout_of_aclose_is_refused(harness: NotifierHarness) -> None:
    """Also of a notifier that was never used."""
    with pytest.raises(ValueError, match="timeout"):
        await harness.notifier.aclose(-1)


# -- retry ----------------------------------------------------------------------------------------


async def test_retry_tries_again_until_there_is_a_connection(harness: NotifierHarness) -> None:
    """Without it the first failure is raised."""
    harness.server.open_errors = [REFUSED] * 4
    with pytest.raises(ConnectError):
        await harness.notifier.notify("orders", "plain")
    await harness.notifier.notify("orders", "retried", retry=True)
    assert harness.server.payloads == ["retried"]


async def test_retry_does_not_go_with_a_connection_of_the_callers(
    harness: NotifierHarness,
) -> None:
    """A transaction is tried as a whole, by its owner."""
    with pytest.raises(TypeError, match="retry"):
        await harness.notifier.notify("orders", connection=object(), retry=True)


async def test_a_connection_must_be_of_a_known_kind(harness: NotifierHarness) -> None:
    """The error names the kinds that are taken."""
    with pytest.raises(TypeError, match=r"asyncpg Connection.*not of type object"):
        await harness.notifier.notify("orders", connection=object())


# -- many -----------------------------------------------------------------------------------------


async def test_notify_many_sends_in_order_and_returns_how_many(harness: NotifierHarness) -> None:
    """In transactions of up to a thousand."""
    pairs = [("orders", str(number)) for number in range(2_500)]
    assert await harness.notifier.notify_many(pairs) == 2_500
    assert harness.server.committed == pairs
    assert harness.server.sizes == [1_000, 1_000, 500]
    assert await harness.notifier.notify_many(()) == 0


async def test_notify_many_takes_an_asynchronous_iterable(harness: NotifierHarness) -> None:
    """As long as it is, it is never held whole."""

    async def pairs() -> AsyncIterator[tuple[str, str]]:
        for number in range(3):
            await asyncio.sleep(1)
            yield "orders", str(number)

    assert await harness.notifier.notify_many(pairs()) == 3
    assert harness.server.payloads == ["0", "1", "2"]
