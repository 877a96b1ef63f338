from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._model import Gap, GapReason, Notification

AT_START = Gap("a", GapReason.START)
AFTER_LOSS = Gap("a", GapReason.RECONNECT)

STEPS = st.lists(st.sampled_from(["a", "b", "c", "take", "hold", "release", "purge"]), max_size=40)


def note(number: int, channel: str = "a") -> Notification[Any]:
    """Return a notification."""
    return Notification(channel, number, 7)


@pytest.fixture
def mailbox() -> LatestMailbox:
    """A mailbox that has begun."""
    made = LatestMailbox()
    made.release(AT_START)
    assert made.take() == AT_START
    return made


def taken(mailbox: LatestMailbox) -> list[object]:
    """Take everything."""
    items: list[object] = []
    while (item := mailbox.take()) is not None:
        items.append(item)
    return items


def test_only_the_newest_waits(mailbox: LatestMailbox) -> None:
    """A newer one replaces what waits of its channel, and is counted as conflated."""
    for number in range(5):
        mailbox.put(note(number))
    assert len(mailbox) == 1
    assert taken(mailbox) == [note(4)]
    assert (mailbox.conflated, mailbox.dropped) == (4, 0)


def test_each_channel_has_its_own_newest(mailbox: LatestMailbox) -> None:
    """In the order in which they came."""
    mailbox.put(note(1, "a"))
    mailbox.put(note(2, "b"))
    mailbox.put(note(3, "a"))
    assert taken(mailbox) == [note(2, "b"), note(3, "a")]


def test_what_is_taken_is_not_conflated(mailbox: LatestMailbox) -> None:
    """A consumer that keeps up gets every one."""
    for number in range(5):
        mailbox.put(note(number))
        assert mailbox.take() == note(number)
    assert mailbox.conflated == 0


def test_what_is_held_comes_after_the_gap(mailbox: LatestMailbox) -> None:
    """And replaces what waited before it, of its channel alone."""
    mailbox.put(note(1, "a"))
    mailbox.put(note(2, "b"))
    mailbox.hold()
    mailbox.put(note(3, "a"))
    mailbox.put(note(4, "a"))
    assert len(mailbox) == 3
    mailbox.release(AFTER_LOSS)
    assert taken(mailbox) == [note(2, "b"), AFTER_LOSS, note(4, "a")]
    assert mailbox.conflated == 2


def test_what_was_held_is_thrown_away_by_the_next_loss(mailbox: LatestMailbox) -> None:
    """The one gap that comes at last covers it."""
    mailbox.hold()
    mailbox.put(note(1))
    mailbox.hold()
    mailbox.release(AFTER_LOSS)
    assert taken(mailbox) == [AFTER_LOSS]


def test_gaps_that_wait_side_by_side_become_one(mailbox: LatestMailbox) -> None:
    """However often the connection is lost, the buffer does not grow."""
    for _ in range(100):
        mailbox.hold()
        mailbox.release(AFTER_LOSS)
    assert len(mailbox) == 1
    assert taken(mailbox) == [AFTER_LOSS]


def test_a_channel_is_purged_from_what_waits(mailbox: LatestMailbox) -> None:
    """Ready or held; the gap and the other channels stay."""
    mailbox.put(note(1, "a"))
    mailbox.put(note(2, "b"))
    mailbox.hold()
    mailbox.put(note(3, "b"))
    mailbox.put(note(4, "c"))
    mailbox.purge("b")
    mailbox.release(AFTER_LOSS)
    assert taken(mailbox) == [note(1, "a"), AFTER_LOSS, note(4, "c")]


@given(STEPS)
def test_the_newest_of_each_channel_is_seen_and_gaps_at_their_place(steps: list[str]) -> None:
    """In any order of events: what is seen is the newest, in order, and no gap is forgotten."""
    mailbox = LatestMailbox()
    ready: list[Notification[Any] | Gap] = []
    held: list[Notification[Any] | Gap] | None = []
    for number, step in enumerate(steps):
        match step:
            case "take":
                assert mailbox.take() == (ready.pop(0) if ready else None)
            case "hold":
                mailbox.hold()
                held = []
            case "release" if held is not None:
                mailbox.release(replace(AFTER_LOSS))  # each loss makes a Gap of its own
                ready = without_neighbouring_gaps([*ready, AFTER_LOSS])
                for item in held:
                    ready = [*without(ready, item.channel), item]
                held = None
            case "purge":
                mailbox.purge("b")
                ready = without(ready, "b")
                held = held and without(held, "b")
            case "a" | "b" | "c":
                mailbox.put(note(number, step))
                tail = ready if held is None else held
                tail[:] = [*without(tail, step), note(number, step)]
            case _:
                pass
        assert len(mailbox) == len(ready) + len(held or [])
        assert mailbox.readable == bool(ready)
    assert taken(mailbox) == ready


def without(
    items: list[Notification[Any] | Gap], channel: str | None
) -> list[Notification[Any] | Gap]:
    """Return the items without the notifications of a channel."""
    return [item for item in items if isinstance(item, Gap) or item.channel != channel]


def without_neighbouring_gaps(
    items: list[Notification[Any] | Gap],
) -> list[Notification[Any] | Gap]:
    """Return the items with one gap wherever several stand side by side."""
    return [
        item
        for item, before in zip(items, [None, *items], strict=False)
        if not (isinstance(item, Gap) and isinstance(before, Gap))
    ]


def test_a_gap_stays_before_what_came_after_it(mailbox: LatestMailbox) -> None:
    """resync is called before what follows the gap, also if another loss follows that."""
    mailbox.hold()
    mailbox.release(AFTER_LOSS)
    mailbox.put(note(1, "a"))
    mailbox.hold()
    mailbox.release(AFTER_LOSS)
    assert mailbox.take() == AFTER_LOSS


def test_what_nobody_took_is_not_counted_as_taken(mailbox: LatestMailbox) -> None:
    """The counter says what the consumer took."""
    mailbox.hold()
    mailbox.release(AFTER_LOSS)
    mailbox.hold()
    mailbox.release(AFTER_LOSS)
    assert mailbox.taken == 1


@pytest.mark.parametrize("after_gap", [True, False])
def test_a_gap_takes_the_place_of_a_notification(
    mailbox: LatestMailbox,
    after_gap: bool,  # noqa: FBT001
) -> None:
    """And of a gap right before that, which it covers; what comes behind them stays."""
    if after_gap:
        mailbox.hold()
        mailbox.release(AFTER_LOSS)
    gaps = mailbox.gaps
    mailbox.put(note(1, "a"))
    mailbox.put(note(2, "b"))
    unreadable = Gap("a", GapReason.UNDECODABLE)
    mailbox.replace(unreadable)
    assert mailbox.gaps == gaps + (not after_gap)
    assert taken(mailbox) == [unreadable, note(2, "b")]
