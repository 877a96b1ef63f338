"""What to do with an event that a handler cannot handle."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import ExponentialBackoff
from asyncnotify.log import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_the_delays_begin_behind_the_first_call() -> None:
    """The first delay of a backoff is for the first attempt, which is made at once."""
    retry = Retry(3, backoff=lambda: iter([0.0, 1.0, 2.0]))
    assert list(islice(retry.delays(), 2)) == [1.0, 2.0]
    assert len(list(islice(Retry().delays(), 100))) == 100


def broken() -> Iterator[float]:
    """Give two delays, and raise."""
    yield 0.0
    yield 3.0
    raise RuntimeError


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (lambda: iter([0.0, 1.0, 2.0]), [1.0, 2.0, 2.0, 2.0]),
        (lambda: [0, 1, 2], [1.0, 2.0, 2.0, 2.0]),
        (lambda: iter([0.5]), [0.5, 0.5, 0.5, 0.5]),
        (lambda: iter([]), [1.0, 1.0, 1.0, 1.0]),
        (lambda: iter([0.0, 1.0, float("nan")]), [1.0, 1.0, 1.0, 1.0]),
        (lambda: iter([0.0, 1.0, -1.0]), [1.0, 1.0, 1.0, 1.0]),
        (lambda: iter([0.0, 1.0, None]), [1.0, 1.0, 1.0, 1.0]),
        (lambda: 5, [1.0, 1.0, 1.0, 1.0]),
        (broken, [3.0, 3.0, 3.0, 3.0]),
    ],
)
def test_the_last_delay_holds_where_a_backoff_ends(backoff: Any, delays: list[float]) -> None:
    """Or fails, or gives what is no number of seconds: a handler is retried as often as it says."""
    assert list(islice(Retry(9, backoff=backoff).delays(), 4)) == delays


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 1.5},
        {"then": "drop"},
        {"then": None},
        {"backoff": 5},
        {"backoff": ExponentialBackoff},
    ],
)
def test_wrong_arguments_are_refused_when_they_are_given(wrong: dict[str, Any]) -> None:
    """With TypeError or ValueError, before anything is handled."""
    with pytest.raises((TypeError, ValueError)):
        Retry(**wrong)
