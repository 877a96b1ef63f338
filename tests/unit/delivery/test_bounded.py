from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import RecordingSource, at

if TYPE_CHECKING:
    from asyncnotify._delivery.bounded import Overflow
    from asyncnotify._delivery.mailbox import Item

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(hours=1)
AT_START = Gap("a", GapReason.START)
AFTER_LOSS = Gap("a", GapReason.RECONNECT, LATE)


class Harness:
    """A mailbox, and who puts into it."""

    def __init__(
        self, limit: int, overflow: Overflow = "drop_oldest", channel: str | None = "a"
    ) -> None:
        self.source = RecordingSource(at(EARLY))
        self.full = self.source.full
        self.box = BoundedMailbox(limit, overflow, channel=channel, source=self.source)

    def begun(self) -> Harness:
        """Release the mailbox, and take the gap at the start."""
        self.box.release(AT_START)
        assert self.taken() == [AT_START]
        return self

    def put(self, *numbers: int, channel: str = "a") -> None:
        """Put notifications with these payloads."""
        for number in numbers:
            self.box.put(Notification(channel, str(number), 7))

    def taken(self) -> list[int | Gap]:
        """Take everything: gaps, and the payloads of notifications. Then wait for more."""
        items: list[int | Gap] = []
        while (item := self.box.take()) is not None:
            items.append(item if isinstance(item, Gap) else int(item.payload))
        if self.box.is_open:
            begin_to_wait(self.box)
        return items


def begin_to_wait(box: BoundedMailbox) -> None:
    """Do what wait() does before it waits: here is no loop to do that on."""
    waiting = box.wait()
    with contextlib.suppress(RuntimeError, StopIteration):
        waiting.send(None)
    waiting.close()


def overflow_of(dropped: int, since: datetime | None = EARLY) -> Gap:
    """Return the gap that tells of so many dropped notifications."""
    return Gap("a", GapReason.OVERFLOW, since, dropped)


def test_r28_nothing_is_dropped_up_to_the_limit() -> None:
    """A buffer of three holds three, and is not full."""
    harness = Harness(3).begun()
    harness.put(1, 2, 3)
    assert not harness.box.full
    assert harness.full == []
    assert harness.box.trim() == 0
    assert harness.taken() == [1, 2, 3]


def test_r28_an_overflow_is_counted_only_after_the_consumer_had_its_turn() -> None:
    """Beyond the limit the delivery is told; what was taken meanwhile was not lost."""
    harness = Harness(3).begun()
    harness.put(1, 2, 3)
    assert not harness.full
    harness.put(4, 5)
    assert set(harness.full) == {harness.box}
    assert harness.box.full
    assert harness.taken() == [1, 2, 3, 4, 5]
    assert harness.box.trim() == 0
    assert harness.box.dropped == 0


def test_r28_the_oldest_are_dropped_and_a_gap_stands_in_their_place() -> None:
    """drop_oldest: before what is left stands the exact number of what is not."""
    harness = Harness(3).begun()
    harness.put(1, 2, 3, 4, 5)
    assert harness.box.trim() == 2
    assert harness.taken() == [overflow_of(2), 3, 4, 5]
    assert harness.box.dropped == 2


def test_r28_the_newest_are_dropped_and_a_gap_stands_in_their_place() -> None:
    """drop_newest: behind what is left stands the exact number of what is not."""
    harness = Harness(3, "drop_newest").begun()
    harness.put(1, 2, 3, 4, 5)
    assert harness.box.trim() == 2
    harness.box.take()
    harness.put(6)
    assert harness.taken() == [2, 3, overflow_of(2), 6]


@pytest.mark.parametrize(
    ("overflow", "seen"),
    [
        ("drop_oldest", [overflow_of(6), 7, 8, 9]),
        ("drop_newest", [1, 2, 3, overflow_of(6)]),
    ],
)
def test_r28_one_episode_of_overflow_is_one_gap(overflow: Overflow, seen: list[Item]) -> None:
    """Trimmed again before the consumer came: the count goes up, and no second gap appears."""
    harness = Harness(3, overflow).begun()
    for number in range(1, 10):
        harness.put(number)
        harness.box.trim()
    assert len(harness.box) <= 4
    assert harness.box.gaps == 2
    assert harness.taken() == seen


def test_r28_the_count_begins_anew_after_the_gap_was_taken() -> None:
    """A second episode is told by a second gap, with its own count and its own beginning."""
    harness = Harness(2).begun()
    harness.put(1, 2, 3)
    harness.box.trim()
    harness.source.verified_at = at(LATE)
    assert harness.taken() == [overflow_of(1), 2, 3]
    harness.put(4, 5, 6, 7)
    harness.box.trim()
    assert harness.taken() == [overflow_of(2, LATE), 6, 7]


def test_an_overflow_is_since_the_buffer_was_last_empty() -> None:
    """What was lost came after that, however good delivery has been since."""
    harness = Harness(2).begun()
    harness.put(1)
    harness.source.verified_at = at(LATE)
    harness.put(2, 3)
    harness.box.trim()
    assert harness.taken() == [overflow_of(1, EARLY), 2, 3]


def test_overflow_does_not_replace_another_gap() -> None:
    """drop_oldest pushes a gap of another reason to the front, and does not forget it."""
    harness = Harness(2)
    harness.box.release(AT_START)
    harness.put(1, 2, 3, 4)
    harness.box.trim()
    assert harness.taken()[0] == AT_START
    assert harness.box.dropped == 2


def test_several_gaps_that_overflow_pushes_out_become_one() -> None:
    """They stand for what is covered by each, before the count of what was dropped."""
    harness = Harness(1).begun()
    for since in (EARLY, LATE):
        harness.put(1)
        harness.box.hold()
        harness.box.release(Gap("a", GapReason.RECONNECT, since))
    harness.put(2)
    harness.box.trim()
    first, second, *rest = harness.taken()
    assert first == Gap("a", GapReason.RECONNECT, EARLY)
    assert second == overflow_of(2)
    assert rest == [2]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_gaps_that_become_one_keep_the_newest_reason_and_the_earliest_time(
    overflow: Overflow,
) -> None:
    """Whichever end of the buffer was dropped."""
    harness = Harness(1, overflow).begun()
    for reason, since in ((GapReason.UNLISTENED, EARLY), (GapReason.RECONNECT, LATE)):
        harness.put(1)
        harness.box.hold()
        harness.box.release(Gap("a", reason, since))
    harness.put(2)
    harness.box.trim()
    merged = Gap("a", GapReason.RECONNECT, EARLY)
    told: list[int | Gap] = [merged, overflow_of(2)]
    assert harness.taken() == ([*told, 2] if overflow == "drop_oldest" else [1, *told])


def test_drop_newest_keeps_a_gap_between_what_came_before_and_what_was_dropped() -> None:
    """The loss of the connection stands after what was received earlier."""
    harness = Harness(2, "drop_newest").begun()
    harness.put(1, 2)
    harness.box.hold()
    harness.box.release(AFTER_LOSS)
    harness.put(3)
    harness.box.trim()
    assert harness.taken() == [1, 2, AFTER_LOSS, overflow_of(1)]


@pytest.mark.parametrize(
    ("overflow", "held"),
    [("drop_oldest", [overflow_of(5), 6, 7]), ("drop_newest", [1, 2, overflow_of(5)])],
)
def test_what_is_held_is_bounded_too(overflow: Overflow, held: list[int | Gap]) -> None:
    """It is told by a gap of its own, behind the one that was still to come."""
    harness = Harness(2, overflow).begun()
    harness.box.hold()
    for number in range(1, 8):
        harness.put(number)
        harness.box.trim()
    assert len(harness.box) <= 3
    assert harness.box.take() is None
    harness.box.release(AFTER_LOSS)
    assert harness.taken() == [AFTER_LOSS, *held]
    assert harness.box.dropped == 5


def test_what_was_held_is_thrown_away_by_the_next_loss() -> None:
    """The one gap that comes at last covers it."""
    harness = Harness(10).begun()
    harness.put(1)
    harness.box.hold()
    harness.put(2)
    harness.box.hold()
    harness.put(3)
    harness.box.release(AFTER_LOSS)
    assert harness.taken() == [1, AFTER_LOSS, 3]


def test_a_channel_is_purged_from_what_waits() -> None:
    """Gaps and other channels stay; also what is held is purged."""
    harness = Harness(10, channel=None).begun()
    harness.put(1, channel="a")
    harness.put(2, channel="b")
    harness.box.hold()
    harness.put(3, channel="b")
    harness.put(4, channel="a")
    harness.box.purge("b")
    harness.box.release(AFTER_LOSS)
    assert harness.taken() == [1, AFTER_LOSS, 4]


def test_r46_the_gaps_at_the_head_are_taken_as_one() -> None:
    """One gap stands for neighbours; one behind notifications stays behind them."""
    harness = Harness(3).begun()
    harness.put(1, 2, 3, 4)
    harness.box.trim()
    harness.box.hold()
    harness.box.release(AFTER_LOSS)
    assert len(harness.box) == 5
    assert harness.box.take_gap() == Gap("a", GapReason.OVERFLOW, EARLY, 1)
    assert harness.box.taken == 2
    assert harness.box.take_gap() is None
    assert harness.taken() == [2, 3, 4, AFTER_LOSS]


def test_after_the_end_nothing_is_taken_in() -> None:
    """What still arrives is ignored: neither buffered nor counted."""
    harness = Harness(1, "fail").begun()
    harness.put(1, 2)
    harness.box.trim()
    assert not harness.box.is_open
    harness.put(*range(100))
    assert harness.box.trim() == 0
    assert (len(harness.box), harness.box.dropped) == (1, 1)
    assert harness.taken() == [1]


@pytest.mark.parametrize(
    ("channel", "label"), [("a", "'a'"), (None, "a stream of several channels")]
)
def test_the_label_names_the_consumer(channel: str | None, label: str) -> None:
    """A log line says which subscription is too slow."""
    assert Harness(1, channel=channel).box.label == label


def test_the_length_is_what_waits() -> None:
    """Held items included; bounded whatever comes."""
    harness = Harness(2).begun()
    harness.put(1)
    harness.box.hold()
    harness.put(2)
    assert len(harness.box) == 2
    assert harness.box.readable


def test_a_reconnect_alone_is_no_overflow() -> None:
    """overflow="fail" with a full buffer and not one notification too many: nothing fails."""
    harness = Harness(2, "fail").begun()
    harness.put(1, 2)
    harness.box.hold()
    harness.box.release(AFTER_LOSS)
    harness.box.trim()
    assert harness.box.is_open
    assert harness.taken() == [1, 2, AFTER_LOSS]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "fail"])
def test_a_buffer_holds_as_many_notifications_as_it_says(overflow: Overflow) -> None:
    """Gaps that wait among them do not count."""
    harness = Harness(2, overflow).begun()
    harness.put(1)
    harness.box.hold()
    harness.box.release(AFTER_LOSS)
    harness.put(2)
    assert harness.box.trim() == 0
    assert harness.taken() == [1, AFTER_LOSS, 2]


def test_a_gap_among_the_held_is_counted_once() -> None:
    """The counter says how many gaps the consumer has seen."""
    harness = Harness(1).begun()
    harness.box.hold()
    for number in range(5):
        harness.put(number)
        harness.box.trim()
    harness.box.release(AFTER_LOSS)
    seen = sum(isinstance(item, Gap) for item in harness.taken())
    assert harness.box.gaps == 1 + seen


def test_a_gap_at_the_head_waits_too() -> None:
    """The backlog is what the consumer will take."""
    harness = Harness(2).begun()
    harness.put(1, 2, 3)
    harness.box.trim()
    backlog = len(harness.box)
    assert backlog == len(harness.taken())


def test_an_overflow_is_since_its_first_loss_also_if_the_rest_was_purged() -> None:
    """since is never later than the first loss was sent."""
    harness = Harness(1, channel=None).begun()
    harness.put(1, 2, channel="b")
    harness.box.trim()
    harness.box.purge("b")
    harness.source.verified_at = at(LATE)
    harness.put(3, channel="c")
    (gap, *_) = harness.taken()
    assert isinstance(gap, Gap)
    assert (gap.since, gap.dropped) == (EARLY, 1)


def test_an_overflow_is_since_a_known_time_also_if_it_begins_behind_a_gap() -> None:
    """since is None at the start only."""
    harness = Harness(1)
    harness.box.release(AT_START)
    harness.put(1, 2)
    harness.box.trim()
    assert harness.taken() == [AT_START, overflow_of(1), 2]


def test_an_overflow_is_since_delivery_was_last_good() -> None:
    """A consumer that has waited for hours is sent only after the last minutes."""
    harness = Harness(1).begun()
    harness.source.verified_at = at(LATE)
    harness.put(1, 2)
    harness.box.trim()
    assert harness.taken() == [overflow_of(1, LATE), 2]


def test_r28_a_buffer_does_not_grow_with_the_number_of_overflows_and_losses() -> None:
    """The consumer is stuck, and the connection is lost over and over."""
    harness = Harness(10).begun()
    for number in range(1_000):
        harness.put(number)
        harness.box.hold()
        harness.box.release(AFTER_LOSS)
        harness.box.trim()
    assert len(harness.box) <= 10 + 12


def test_r28_a_buffer_does_not_grow_with_the_number_of_losses() -> None:
    """Also if not one notification comes between them."""
    harness = Harness(10).begun()
    for _ in range(1_000):
        harness.box.hold()
        harness.box.release(AFTER_LOSS)
        harness.box.trim()
    assert len(harness.box) < 500


def test_an_overflow_is_since_its_first_loss_also_if_others_were_held_since() -> None:
    """What waited from before the loss of the connection is the oldest, and dropped first."""
    harness = Harness(1).begun()
    harness.put(1)
    harness.source.verified_at = at(LATE)
    harness.box.hold()
    harness.put(2)
    harness.box.release(AFTER_LOSS)
    harness.box.trim()
    assert harness.taken() == [AFTER_LOSS, overflow_of(1, EARLY), 2]


def test_a_gap_that_was_taken_leaves_no_room_in_the_buffer() -> None:
    """Exactly so many remain as the limit says, though the consumer has not emptied it since."""
    harness = Harness(1)
    harness.box.release(AFTER_LOSS)
    harness.put(1, 2, 3)
    assert harness.box.take() == AFTER_LOSS
    assert harness.box.trim() == 2
    assert harness.taken() == [Gap("a", GapReason.OVERFLOW, EARLY, 2), 3]


def test_taking_gaps_while_held_does_not_make_the_buffer_smaller() -> None:
    """The gap of an overflow that waits behind the one to come does not count against the limit."""
    harness = Harness(1).begun()
    harness.box.release(AFTER_LOSS)
    harness.box.hold()
    harness.put(1, 2)
    assert harness.box.trim() == 1
    assert harness.box.take_gap() == AFTER_LOSS
    assert harness.box.trim() == 0
    harness.box.release(AFTER_LOSS)
    assert harness.taken() == [AFTER_LOSS, Gap("a", GapReason.OVERFLOW, EARLY, 1), 2]


def test_a_gap_in_place_of_a_notification_makes_no_room_for_what_is_held() -> None:
    """The gap waits before the loss, and what arrives after the loss is bounded by itself."""
    harness = Harness(1).begun()
    harness.put(1)
    harness.box.hold()
    harness.put(2, 3)
    unreadable = Gap("a", GapReason.UNDECODABLE)
    harness.box.replace(unreadable)
    assert harness.box.trim() == 1
    harness.box.release(AFTER_LOSS)
    assert harness.taken() == [unreadable, AFTER_LOSS, overflow_of(1), 3]
