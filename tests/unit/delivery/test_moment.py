from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.moment import Moment
from asyncnotify._delivery.registry import Listen, Registry, Subscriber
from asyncnotify._delivery.router import Router
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import NO_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from asyncnotify._delivery.turns import Turns

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Clocks:
    """The machine's two clocks; a test sets the one, and suspends the other."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.error = 0.0
        self.suspended = 0.0

    @property
    def right(self) -> datetime:
        """What a clock shows that is right."""
        return EPOCH + timedelta(seconds=self.elapsed)

    @property
    def wall(self) -> datetime:
        """What the wall clock shows."""
        return self.right + timedelta(seconds=self.error)

    def monotonic(self) -> float:
        """Return what the monotonic clock has counted."""
        return 1_000.0 + self.elapsed - self.suspended

    def suspend(self, seconds: float) -> None:
        """Suspend the machine."""
        self.elapsed += seconds
        self.suspended += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that are right, in place of the machine's."""
    clocks = Clocks()

    class WallClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Self:
            return cast("Self", clocks.wall)

    monkeypatch.setattr("asyncnotify._delivery.moment.datetime", WallClock)
    monkeypatch.setattr("asyncnotify._delivery.moment.monotonic", clocks.monotonic)
    return clocks


class Line:
    """A subscription with a small buffer that is in force, and delivery to it."""

    def __init__(self) -> None:
        self.router = Router(NO_LOOP)
        self.registry = Registry(self.router)
        self.box = BoundedMailbox(1, "drop_oldest", channel="a", source=self)
        self.registry.add(Subscriber(["a"], self.box))
        self.agree()
        assert self.gap().reason is GapReason.START

    @property
    def turns(self) -> Turns:
        """The turns of the consumers."""
        return self.router.turns

    @property
    def verified_at(self) -> Moment | None:
        """When delivery was last known to be good."""
        return self.router.verified_at

    def on_full(self, mailbox: BoundedMailbox) -> None:
        """Wait with the overflow until it is told."""

    def agree(self) -> None:
        """Let the server confirm what is due."""
        for step in self.registry.steps(100):
            assert isinstance(step, Listen)
            self.registry.performed(step)

    def gap(self) -> Gap:
        """Take the gap that comes next."""
        gap = self.box.take()
        assert isinstance(gap, Gap)
        return gap

    def begin_to_lose(self) -> None:
        """Let two notifications arrive where there is room for one."""
        for payload in "12":
            self.box.put(Notification("a", payload, 7))


def reconnect(line: Line, between: Callable[[], None]) -> Gap:
    """Lose the connection, and have it back after what happens between."""
    line.registry.disconnect(line.router.verified_at)
    between()
    line.agree()
    return line.gap()


def strip(line: Line, between: Callable[[], None]) -> Gap:
    """Find that the server does not listen any more, and repair that."""
    line.registry.strip(["a"], line.router.verified_at)
    between()
    line.agree()
    return line.gap()


def overflow(line: Line, between: Callable[[], None]) -> Gap:
    """Fill the buffer, and count the loss after what happens between."""
    line.begin_to_lose()
    between()
    line.box.trim()
    return line.gap()


LOSSES = pytest.mark.parametrize("lose", [reconnect, strip, overflow])


@LOSSES
def test_r51_since_is_when_delivery_was_last_good(
    clocks: Clocks, lose: Callable[[Line, Callable[[], None]], Gap]
) -> None:
    """With clocks that are left alone it is exact, however long the outage was."""
    line = Line()
    line.router.verify(Moment.now())
    expected = clocks.right

    def nothing() -> None:
        clocks.elapsed += 3_600

    assert lose(line, nothing).since == expected


@LOSSES
@pytest.mark.parametrize("error", [300.0, -300.0])
def test_r51_since_is_early_enough_when_a_wrong_clock_is_set_right(
    clocks: Clocks, lose: Callable[[Line, Callable[[], None]], Gap], error: float
) -> None:
    """Fast or slow while delivery was good, set right before or after the loss."""
    clocks.error = error
    line = Line()
    line.router.verify(Moment.now())
    good = clocks.right

    def set_right() -> None:
        clocks.elapsed += 10
        clocks.error = 0

    since = lose(line, set_right).since
    assert since is not None
    assert since <= good
    assert since >= good - timedelta(seconds=300)


@LOSSES
@pytest.mark.parametrize("error", [300.0, -300.0])
def test_r51_since_is_early_enough_when_a_right_clock_is_set_wrong(
    clocks: Clocks, lose: Callable[[Line, Callable[[], None]], Gap], error: float
) -> None:
    """Right while delivery was good, fast or slow when the Gap is made."""
    line = Line()
    line.router.verify(Moment.now())
    good = clocks.right

    def set_wrong() -> None:
        clocks.elapsed += 10
        clocks.error = error

    since = lose(line, set_wrong).since
    assert since is not None
    assert since <= good
    assert since >= good - timedelta(seconds=300)


@LOSSES
def test_r51_since_is_early_enough_when_the_machine_was_suspended(
    clocks: Clocks, lose: Callable[[Line, Callable[[], None]], Gap]
) -> None:
    """The monotonic clock has stood still, and would put the last proof into the present."""
    line = Line()
    line.router.verify(Moment.now())
    good = clocks.right
    assert lose(line, lambda: clocks.suspend(8 * 3_600)).since == good


def test_r51_a_moment_is_never_told_later_than_it_was() -> None:
    """With the machine's own clocks, however often it is asked."""
    moment = Moment.now()
    after = datetime.now(UTC)
    assert all(moment.earliest() <= after for _ in range(1_000))
