"""What to do with an event that a handler cannot handle."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from asyncnotify import ExponentialBackoff
from asyncnotify.log import Retry


def test_the_delays_begin_behind_the_first_call() -> None:
    """The first delay of a backoff is for the first attempt, which is made at once."""
    retry = Retry(3, backoff=lambda: iter([0.0, 1.0, 2.0]))
    assert list(retry.delays()) == [1.0, 2.0]
    assert len(list(islice(Retry().delays(), 100))) == 100


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
