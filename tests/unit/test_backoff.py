from __future__ import annotations

import copy
import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._backoff import Delays, ExponentialBackoff, longest_delay, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_BOUNDS = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def columns(backoff: ExponentialBackoff, series: int, length: int) -> list[tuple[float, ...]]:
    """Return for each attempt the delays that so many series of delays have for it."""
    return list(zip(*(itertools.islice(backoff(), length) for _ in range(series)), strict=True))


def test_the_first_attempt_is_made_at_once() -> None:
    """The first delay of every series is 0."""
    assert set(columns(ExponentialBackoff(), 100, 1)[0]) == {0.0}


def test_r10_delays_lie_between_0_and_a_bound_that_doubles_up_to_the_cap() -> None:
    """The delay before attempt n + 2 lies in [0, min(cap, initial * factor ** n)]."""
    _, *delays = columns(ExponentialBackoff(), 200, 1 + len(DEFAULT_BOUNDS))
    for column, bound in zip(delays, DEFAULT_BOUNDS, strict=True):
        assert min(column) >= 0.0
        assert max(column) <= bound


def test_r10_listeners_that_start_together_spread_over_the_window() -> None:
    """Full jitter: of 100 listeners some come early and some late, at every attempt."""
    _, *delays = columns(ExponentialBackoff(), 100, 1 + len(DEFAULT_BOUNDS))
    for column, bound in zip(delays, DEFAULT_BOUNDS, strict=True):
        assert min(column) < bound / 4
        assert max(column) > bound * 3 / 4
        assert len(set(column)) > 90


@pytest.mark.parametrize(
    ("backoff", "bounds"),
    [
        (ExponentialBackoff(initial=1, factor=3, cap=20), [1, 3, 9, 20, 20]),
        (ExponentialBackoff(initial=2, factor=1, cap=9), [2, 2, 2, 2, 2]),
        (ExponentialBackoff(initial=7, factor=2, cap=7), [7, 7, 7, 7, 7]),
    ],
)
def test_figures_of_ones_own_are_used(backoff: ExponentialBackoff, bounds: list[float]) -> None:
    """The bound begins at initial, grows by factor, and stops at cap."""
    _, *delays = columns(backoff, 100, 1 + len(bounds))
    for column, bound in zip(delays, bounds, strict=True):
        assert bound * 3 / 4 < max(column) <= bound


def test_r11_the_series_has_no_end() -> None:
    """After any number of attempts there is another delay, not above the cap."""
    last = next(itertools.islice(ExponentialBackoff()(), 5_000, None))
    assert 0.0 <= last <= 5.0


def test_every_call_starts_from_the_beginning() -> None:
    """A new outage gets a new series, whatever an older one has come to."""
    backoff = ExponentialBackoff(initial=0.001, factor=1_000, cap=1_000_000)
    assert next(itertools.islice(backoff(), 20, None)) > 0.001
    _, second = itertools.islice(backoff(), 2)
    assert second <= 0.001


@pytest.mark.parametrize(
    "figures",
    [
        {"initial": 0},
        {"initial": -0.1},
        {"initial": math.nan},
        {"initial": 6},
        {"cap": 0.05},
        {"cap": math.nan},
        {"factor": 0.99},
        {"factor": -2},
    ],
)
def test_figures_out_of_bounds_are_refused(figures: dict[str, float]) -> None:
    """0 < initial <= cap, and factor at least 1; else a ValueError says so."""
    with pytest.raises(ValueError, match=r"^(initial|cap|factor) must be "):
        ExponentialBackoff(**figures)


@pytest.mark.parametrize(
    "figures",
    [
        {"cap": math.inf},
        {"initial": math.inf, "cap": math.inf},
        {"factor": math.nan},
        {"factor": True},
        {"cap": "5"},
        {"initial": None},
    ],
)
def test_r11_figures_that_would_end_the_retries_are_refused(figures: dict[str, Any]) -> None:
    """What is no finite number of seconds is refused: such a delay never ends."""
    with pytest.raises(ValueError, match=r"^(initial|cap|factor) must be "):
        ExponentialBackoff(**figures)


def test_it_is_a_value() -> None:
    """Frozen, compared by its figures."""
    backoff = ExponentialBackoff(cap=2.0)
    assert backoff == copy.copy(backoff) != ExponentialBackoff()
    with pytest.raises(AttributeError):
        backoff.cap = 3.0  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_delays_are_those_of_the_callers_iterator() -> None:
    """In order, as floats; the callable is called when the first one is asked for."""
    delays = Delays(lambda: iter([0, 2, 3.5]))
    assert [delays.next() for _ in range(3)] == [0.0, 2.0, 3.5]


@pytest.mark.parametrize(
    "backoff",
    [
        lambda: iter([1.0]),
        lambda: iter([1.0, -1.0]),
        lambda: iter([1.0, math.inf]),
        lambda: iter([1.0, math.nan]),
        lambda: iter([1.0, "soon"]),
        lambda: (1.0 / delay for delay in (1.0, 0.0)),
    ],
    ids=["ends", "negative", "infinite", "nan", "text", "raises"],
)
def test_r11_an_iterator_that_fails_does_not_end_the_retries(
    backoff: Callable[[], Iterator[float]], caplog: pytest.LogCaptureFixture
) -> None:
    """What it gives no more is replaced by long delays, for ever; the log says so once."""
    delays = Delays(backoff)
    assert delays.next() == 1.0
    assert all(2.5 <= delays.next() <= 5.0 for _ in range(100))
    assert len(caplog.records) == 1
    assert "backoff= must return an endless iterator" in caplog.text


@pytest.mark.parametrize("backoff", [lambda: 5, lambda: None, lambda: 1 / 0])
def test_r11_what_is_no_iterator_does_not_end_the_retries(backoff: Callable[[], Any]) -> None:
    """Nor does a callable that raises."""
    assert 2.5 <= Delays(backoff).next() <= 5.0


def test_ages_are_a_little_less_than_what_was_asked_for() -> None:
    """And not all the same: connections that began together are not all replaced at once."""
    ages = [shortened(100) for _ in range(100)]
    assert min(ages) >= 90
    assert max(ages) <= 100
    assert max(ages) - min(ages) > 5


def test_the_longest_delays_are_near_the_cap() -> None:
    """And not all the same: many listeners wait for one repair."""
    longest = [longest_delay(ExponentialBackoff(cap=60)) for _ in range(100)]
    assert min(longest) >= 30
    assert max(longest) <= 60
    assert max(longest) - min(longest) > 15
