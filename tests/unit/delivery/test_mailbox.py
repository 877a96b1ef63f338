from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.mailbox import merge_gaps
from asyncnotify._errors import BufferOverflowError
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import RecordingSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._delivery.mailbox import Mailbox

START, RECONNECT = GapReason.START, GapReason.RECONNECT
OVERFLOW, UNLISTENED = GapReason.OVERFLOW, GapReason.UNLISTENED
REREAD, UNDECODABLE = GapReason.REREAD, GapReason.UNDECODABLE
EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(hours=1)

TIMES = st.sampled_from([None, EARLY, LATE])
LOSSES = st.builds(
    Gap, st.sampled_from(["a", None]), st.sampled_from([RECONNECT, UNLISTENED]), TIMES
)
OVERFLOWS = st.builds(
    Gap, st.sampled_from(["a", None]), st.just(OVERFLOW), TIMES, st.integers(1, 9)
)
REREADS = st.builds(
    Gap, st.sampled_from(["a", None]), st.just(REREAD), TIMES, st.none() | st.integers(0, 9)
)
GAPS = LOSSES | OVERFLOWS | REREADS | st.just(Gap("a", START))


# -- one gap for several --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer", "merged"),
    [
        (None, Gap("a", RECONNECT, LATE), Gap("a", RECONNECT, LATE)),
        (Gap("a", RECONNECT, EARLY), Gap("a", RECONNECT, LATE), Gap("a", RECONNECT, EARLY)),
        (Gap("a", RECONNECT, LATE), Gap("a", UNLISTENED, EARLY), Gap("a", UNLISTENED, EARLY)),
        (Gap("a", START), Gap("a", RECONNECT, LATE), Gap("a", START)),
        (Gap("a", OVERFLOW, EARLY, 2), Gap("a", OVERFLOW, LATE, 3), Gap("a", OVERFLOW, EARLY, 5)),
        (Gap("a", OVERFLOW, EARLY, 2), Gap("a", RECONNECT, LATE), Gap("a", RECONNECT, EARLY)),
        (Gap("a", RECONNECT, EARLY), Gap("a", OVERFLOW, LATE, 3), Gap("a", RECONNECT, EARLY)),
        (Gap("a", RECONNECT, None), Gap("a", RECONNECT, LATE), Gap("a", RECONNECT, None)),
        (Gap("a", START), Gap("a", OVERFLOW, None, 3), Gap("a", START)),
        (Gap("a", RECONNECT, EARLY), Gap(None, RECONNECT, LATE), Gap(None, RECONNECT, EARLY)),
        (Gap("a", REREAD, EARLY, 2), Gap("a", REREAD, LATE, 3), Gap("a", REREAD, EARLY, 5)),
        (Gap("a", REREAD, EARLY, 2), Gap("a", REREAD, LATE), Gap("a", REREAD, EARLY)),
        (Gap("a", REREAD, EARLY, 2), Gap("a", RECONNECT, LATE), Gap("a", RECONNECT, EARLY)),
        (Gap("a", UNDECODABLE, LATE), Gap("a", REREAD, EARLY, 2), Gap("a", UNDECODABLE, EARLY)),
        (Gap("a", REREAD, EARLY, 2), Gap("a", OVERFLOW, LATE, 3), Gap("a", OVERFLOW, EARLY, 3)),
        (Gap("a", OVERFLOW, LATE, 3), Gap("a", REREAD, EARLY, 2), Gap("a", OVERFLOW, EARLY, 3)),
        (Gap("a", START), Gap("a", REREAD, EARLY, 2), Gap("a", START)),
    ],
)
def test_two_gaps_become_one_that_tells_as_much(older: Gap | None, newer: Gap, merged: Gap) -> None:
    """Since the earlier loss, for the reason that is worse, with the sum of what is counted."""
    assert merge_gaps(older, newer) == merged


@given(GAPS, GAPS, GAPS)
def test_a_merged_gap_covers_each_of_its_parts(one: Gap, two: Gap, three: Gap) -> None:
    """It never begins later than a part, and counts only where everything was counted."""
    parts = (one, two, three)
    merged = merge_gaps(merge_gaps(one, two), three)
    assert all(
        merged.since is None or (p.since is not None and merged.since <= p.since) for p in parts
    )
    assert merged.channel == ("a" if all(part.channel == "a" for part in parts) else None)
    worse = [part for part in parts if part.reason is not REREAD]
    counts = [part.dropped for part in worse or parts]
    if all(part.reason is OVERFLOW for part in worse) and None not in counts:
        assert merged.dropped == sum(count or 0 for count in counts)
        assert merged.reason is (OVERFLOW if worse else REREAD)
    else:
        assert merged.dropped is None
        assert merged.reason is not OVERFLOW


# -- waiting, for both kinds of mailbox -----------------------------------------------------------


def bounded() -> Mailbox:
    """Return a mailbox that never overflows."""
    return BoundedMailbox(100, "drop_oldest", channel="a", source=RecordingSource())


@pytest.fixture(params=[bounded, LatestMailbox])
def mailbox(request: pytest.FixtureRequest) -> Mailbox:
    """An open mailbox, from which the gap at the start has been taken."""
    made: Mailbox = request.param()
    made.release(Gap("a", START))
    made.take()
    return made


def note(channel: str = "a", payload: str = "") -> Notification[Any]:
    """Return a notification."""
    return Notification(channel, payload, 7)


def later(action: Callable[[], object]) -> None:
    """Do this in a second."""
    asyncio.get_running_loop().call_later(1, action)


async def test_waiting_ends_when_something_can_be_taken(mailbox: Mailbox) -> None:
    """True at once where something waits, else when a notification comes."""
    later(lambda: mailbox.put(note()))
    assert await mailbox.wait()
    assert await mailbox.wait()
    assert mailbox.take() == note()


async def test_waiting_ends_with_the_gap_and_not_before(mailbox: Mailbox) -> None:
    """What is put while the mailbox is held wakes nobody; the gap does, and comes first."""
    mailbox.hold()
    waiting = asyncio.ensure_future(mailbox.wait())
    later(lambda: mailbox.put(note()))
    await asyncio.wait({waiting}, timeout=10)
    assert not waiting.done()
    assert mailbox.take() is None
    later(lambda: mailbox.release(Gap("a", RECONNECT)))
    assert await waiting
    assert mailbox.take() == Gap("a", RECONNECT)
    assert mailbox.take() == note()


async def test_who_has_no_use_for_gaps_is_not_woken_by_one(mailbox: Mailbox) -> None:
    """Without the gap, what was held comes out all the same; where nothing was, nobody wakes."""
    gaps = mailbox.gaps
    mailbox.hold()
    arrival = mailbox.next_arrival(asyncio.get_running_loop())
    assert arrival is not None
    mailbox.release_without_gap()
    assert not arrival.done()
    mailbox.hold()
    mailbox.put(note(payload="held"))
    assert mailbox.take() is None
    mailbox.release_without_gap()
    mailbox.put(note("b", "after"))
    assert arrival.done()
    assert [mailbox.take(), mailbox.take(), mailbox.take()] == [
        note(payload="held"),
        note("b", "after"),
        None,
    ]
    assert mailbox.gaps == gaps + 2


async def test_an_ended_mailbox_releases_nothing(mailbox: Mailbox) -> None:
    """Nor does it count a gap, or say that something may arrive."""
    gaps = mailbox.gaps
    mailbox.end(discard=True)
    mailbox.release(Gap("a", RECONNECT))
    mailbox.release_without_gap()
    assert mailbox.next_arrival(asyncio.get_running_loop()) is None
    assert (mailbox.take(), mailbox.gaps) == (None, gaps)


@pytest.mark.parametrize("discard", [False, True])
async def test_waiting_at_the_end_says_that_nothing_comes(
    mailbox: Mailbox, *, discard: bool
) -> None:
    """Every waiting call is woken, and later calls return at once."""
    waiting = [asyncio.ensure_future(mailbox.wait()) for _ in range(3)]
    later(lambda: mailbox.end(discard=discard))
    assert await asyncio.gather(*waiting) == [False] * 3
    assert not await mailbox.wait()
    assert not mailbox.is_open


async def test_what_is_left_at_the_end_may_be_taken_unless_it_is_discarded(
    mailbox: Mailbox,
) -> None:
    """A consumer finishes what was ready; what was held, and what comes later, it never sees."""
    mailbox.put(note())
    mailbox.hold()
    mailbox.put(note(payload="held"))
    mailbox.end(discard=False)
    mailbox.put(note(payload="late"))
    mailbox.release(Gap("a", RECONNECT))
    mailbox.hold()
    assert await mailbox.wait()
    assert mailbox.take() == note()
    assert mailbox.take() is None
    assert not await mailbox.wait()


async def test_what_is_discarded_at_the_end_is_gone(mailbox: Mailbox) -> None:
    """Nothing can be taken any more, and nothing is counted as waiting."""
    mailbox.put(note())
    mailbox.end(discard=True)
    assert (mailbox.take(), mailbox.take_gap(), len(mailbox)) == (None, None, 0)
    assert not mailbox.readable


async def test_each_of_several_who_wait_gets_something(mailbox: Mailbox) -> None:
    """Two notifications wake two of three; the third waits on."""
    waiting = [asyncio.ensure_future(mailbox.wait()) for _ in range(3)]
    later(lambda: (mailbox.put(note("a")), mailbox.put(note("b"))))
    done, pending = await asyncio.wait(waiting, timeout=10)
    assert (len(done), len(pending)) == (2, 1)
    mailbox.end(discard=True)
    await asyncio.wait(pending)


async def test_r30_a_wake_up_is_passed_on_by_a_cancelled_wait(mailbox: Mailbox) -> None:
    """Cancelled just as a notification comes: it goes to the next who waits, 1,000 times."""
    loop = asyncio.get_running_loop()
    for _ in range(1_000):
        first, second = (asyncio.ensure_future(mailbox.wait()) for _ in range(2))
        loop.call_later(1, mailbox.put, note())
        loop.call_later(1, first.cancel)
        assert await second
        assert first.cancelled()
        assert mailbox.take() == note()


async def test_r30_a_wait_that_is_being_cancelled_is_not_woken(mailbox: Mailbox) -> None:
    """Cancelled just before a notification comes: that wakes the next who waits."""
    first, second = (asyncio.ensure_future(mailbox.wait()) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    mailbox.put(note())  # before the cancelled task has run
    assert await second
    assert first.cancelled()


async def test_a_wait_that_was_cancelled_before_is_not_woken(mailbox: Mailbox) -> None:
    """Waiters that were cancelled earlier leave nothing behind."""
    gone = [asyncio.ensure_future(mailbox.wait()) for _ in range(100)]
    later(lambda: [waiter.cancel() for waiter in gone])
    await asyncio.wait(gone)
    assert not mailbox._waiters  # noqa: SLF001 - nothing is left
    later(lambda: mailbox.put(note()))
    assert await mailbox.wait()


async def test_time_passes_while_a_mailbox_stays_open(mailbox: Mailbox) -> None:
    """stays_open() takes as long as it is told and says True."""
    before = asyncio.get_running_loop().time()
    assert await mailbox.stays_open(5)
    assert asyncio.get_running_loop().time() - before == pytest.approx(5)


async def test_the_end_of_a_mailbox_is_noticed_at_once(mailbox: Mailbox) -> None:
    """stays_open() says False when the mailbox ends, and at once when it has ended."""
    before = asyncio.get_running_loop().time()
    later(lambda: mailbox.end(discard=False))
    assert not await mailbox.stays_open(500)
    assert not await mailbox.stays_open(500)
    assert asyncio.get_running_loop().time() - before == pytest.approx(1)


async def test_an_overflow_that_was_not_to_be_borne_is_raised_after_what_is_left() -> None:
    """With overflow="fail" the consumer takes what fitted, then meets the error, every time."""
    mailbox = BoundedMailbox(2, "fail", channel="a", source=RecordingSource())
    mailbox.release(Gap("a", START))
    mailbox.take()
    for number in range(5):
        mailbox.put(note(payload=str(number)))
    mailbox.trim()
    assert not mailbox.is_open
    for number in range(2):
        assert await mailbox.wait()
        assert mailbox.take() == note(payload=str(number))
    for _ in range(2):
        with pytest.raises(BufferOverflowError) as caught:
            await mailbox.wait()
        assert (caught.value.limit, caught.value.dropped) == (2, 3)


def test_r46_a_gap_behind_a_notification_is_not_taken_before_it(mailbox: Mailbox) -> None:
    """take_gap() brings the gaps at the head only: none overtakes what was received earlier."""
    mailbox.put(note("a"))
    mailbox.hold()
    mailbox.put(note("b"))
    mailbox.release(Gap("a", RECONNECT, LATE))
    assert mailbox.take_gap() is None
    assert mailbox.take() == note("a")
    assert mailbox.take_gap() == Gap("a", RECONNECT, LATE)
    assert [mailbox.take_gap(), mailbox.take(), mailbox.take()] == [None, note("b"), None]
