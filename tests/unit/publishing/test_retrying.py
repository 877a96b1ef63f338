from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

import pytest

from asyncnotify import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    NotifyTimeoutError,
    PayloadError,
    PoolerError,
)
from asyncnotify._publishing.retrying import Retrying
from tests.unit.fake_publishing import FakePublishingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAY = 1.0


def delays() -> Iterator[float]:
    """Make the first attempt at once, and then one each second."""
    return itertools.chain([0.0], itertools.repeat(DELAY))


class Attempts:
    """Raises the errors that the test says, one at each attempt, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.retrying = Retrying(FakePublishingServer(), delays)

    async def attempt(self) -> None:
        """Fail, or succeed."""
        self.times.append(self.loop.time() - self.began)
        if self.errors:
            raise self.errors.pop(0)


async def test_it_is_tried_until_it_succeeds() -> None:
    """The first time at once, then after each delay."""
    attempts = Attempts(ConnectError("no"), ConnectionLostError("lost"))
    await attempts.retrying.until_success(attempts.attempt, 10, what="start()")
    assert attempts.times == [0.0, DELAY, 2 * DELAY]


async def test_at_the_deadline_the_last_error_is_raised() -> None:
    """No attempt is begun that would come after it."""
    errors = [ConnectError(str(number)) for number in range(10)]
    attempts = Attempts(*errors)
    with pytest.raises(ConnectError) as raised:
        await attempts.retrying.until_success(attempts.attempt, 3.5, what="start()")
    assert attempts.times == [0.0, 1.0, 2.0, 3.0]
    assert raised.value is errors[3]


async def test_without_a_deadline_it_is_tried_for_ever() -> None:
    """As long as the server may come up."""
    attempts = Attempts(*(ConnectError("no") for _ in range(1_000)))
    await attempts.retrying.until_success(attempts.attempt, None, what="start()")
    assert attempts.times[-1] == 1_000 * DELAY


@pytest.mark.parametrize("error", [ConfigurationError("wrong"), PayloadError("orders", "is wrong")])
async def test_what_no_attempt_can_mend_is_raised_at_once(error: Exception) -> None:
    """A mistake of the program, or of the caller."""
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        await attempts.retrying.until_success(attempts.attempt, 10, what="start()")
    assert attempts.times == [0.0]


async def test_a_cause_that_is_permanent_is_raised_where_the_caller_says_so() -> None:
    """By `unless`; otherwise it is tried again, for somebody may mend it."""
    error = ConnectError("refused")
    error.__cause__ = PermissionError()

    def is_permanent(cause: BaseException) -> bool:
        return isinstance(cause, PermissionError)

    attempts = Attempts(error)
    with pytest.raises(ConnectError):
        await attempts.retrying.until_success(
            attempts.attempt, 10, what="start()", unless=is_permanent
        )
    attempts = Attempts(error)
    await attempts.retrying.until_success(attempts.attempt, 10, what="notify()")


async def test_each_cause_is_logged_once_with_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Who keeps trying what, and for how long; not at each attempt."""
    caplog.set_level(logging.WARNING)
    attempts = Attempts(*(ConnectError("no server") for _ in range(5)), ConnectError("full"))
    await attempts.retrying.until_success(attempts.attempt, 10, what="start()")
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert texts[0].startswith("the fake server: ")
    assert texts[0].endswith("no server; start() keeps trying for 10 s")
    assert "full" in texts[1]


async def test_a_notification_is_published_once_an_attempt_succeeds() -> None:
    """As often as the time allows."""
    attempts = Attempts(ConnectError("no"), ConnectError("no"))
    await attempts.retrying.publish(attempts.attempt, 5)
    assert len(attempts.times) == 3


@pytest.mark.parametrize(
    "last",
    [
        ConnectError("no"),
        NotifyTimeoutError("late"),
        ClosedError("the notifier is closed"),
        ConfigurationError("the new host is none"),
        LookupError("the server has refused it"),
    ],
)
async def test_r47_not_sent_is_said_only_if_it_holds_of_each_attempt(last: Exception) -> None:
    """An attempt died in flight, and the last one failed otherwise: it may have been sent."""
    attempts = Attempts(ConnectError("no"), last)
    with pytest.raises(type(last)):
        await attempts.retrying.publish(attempts.attempt, 0.5 + DELAY)
    attempts = Attempts(ConnectionLostError("lost"), last)
    with pytest.raises(
        ConnectionLostError, match="an earlier attempt may have been sent"
    ) as caught:
        await attempts.retrying.publish(attempts.attempt, 0.5 + DELAY)
    assert caught.value.__cause__ is last


async def test_what_may_pass_is_the_callers_to_say() -> None:
    """Of other errors, and of a pooler in between, there is no second attempt."""
    attempts = Attempts(KeyError("a"), ConnectError("no"))
    with pytest.raises(ConnectError):
        await attempts.retrying.until_success(
            attempts.attempt, 10, what="start()", passing=(KeyError,)
        )
    attempts = Attempts(PoolerError("a pooler is in between"))
    with pytest.raises(PoolerError):
        await attempts.retrying.until_success(attempts.attempt, 10, what="start()")
