from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.registry import Listen, Registry, Subscriber, Unlisten
from asyncnotify._delivery.router import Router, _Excess
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import NO_LOOP, NotingSource

if TYPE_CHECKING:
    from collections.abc import Sequence

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(hours=1)
START, RECONNECT, UNLISTENED = GapReason.START, GapReason.RECONNECT, GapReason.UNLISTENED


class Office:
    """A registry, and a server that does what it is told and sends what it is asked to."""

    def __init__(self) -> None:
        self.router = Router(NO_LOOP)
        self.registry = Registry(self.router)

    def subscriber(self, *channels: str) -> Subscriber:
        """Return a subscriber that is registered."""
        box = BoundedMailbox(100, "drop_oldest", channel=None, source=NotingSource())
        subscriber = Subscriber(channels, box)
        self.registry.add(subscriber)
        return subscriber

    def due(self) -> tuple[set[str], set[str]]:
        """Return what LISTEN and what UNLISTEN is due."""
        listen, unlisten = self.registry._due()  # noqa: SLF001 - steps() would take them
        assert self.registry.is_settled == (not listen and not unlisten)
        return set(listen), set(unlisten)

    def agree(self) -> None:
        """Tell the server all that is due, in one statement each."""
        for step in self.registry.steps(100):
            self.registry.performed(step)

    def confirm(self, *channels: str) -> None:
        """Let the server confirm LISTEN for these."""
        self.registry.performed(Listen(channels))

    def send(self, channel: str, payload: str) -> None:
        """Let a notification arrive."""
        route = self.router.routes.get(channel)
        if route is not None:
            route.put(Notification(channel, payload, 7))


@pytest.fixture
def office() -> Office:
    """A registry where nobody wants anything."""
    return Office()


def seen(subscriber: Subscriber) -> list[str | Gap]:
    """Take everything: gaps, and the payloads of notifications."""
    items: list[str | Gap] = []
    while (item := subscriber.mailbox.take()) is not None:
        items.append(item if isinstance(item, Gap) else str(item.payload))
    return items


# -- what is due ----------------------------------------------------------------------------------


def test_nothing_is_due_when_nobody_wants_anything(office: Office) -> None:
    """An empty registry agrees with a server that listens on nothing."""
    assert office.due() == (set(), set())
    assert office.registry.desired == office.registry.confirmed == frozenset()


def test_the_first_subscriber_makes_listen_due_and_no_later_one(office: Office) -> None:
    """Several subscriptions of one channel share one LISTEN."""
    office.subscriber("a")
    assert office.due() == ({"a"}, set())
    office.subscriber("a")
    assert office.due() == ({"a"}, set())
    office.agree()
    assert office.due() == (set(), set())
    office.subscriber("a", "b")
    assert office.due() == ({"b"}, set())


def test_the_last_subscriber_makes_unlisten_due_and_no_earlier_one(office: Office) -> None:
    """UNLISTEN goes out when nobody is left."""
    one, two = office.subscriber("a"), office.subscriber("a")
    office.agree()
    office.registry.remove(one)
    assert office.due() == (set(), set())
    office.registry.remove(two)
    assert office.due() == (set(), {"a"})
    office.agree()
    assert office.due() == (set(), set())
    assert office.registry.confirmed == frozenset()


def test_a_subscriber_that_comes_and_goes_unnoticed_leaves_nothing_due(office: Office) -> None:
    """What the server was never told need not be taken back."""
    office.registry.remove(office.subscriber("a"))
    assert office.due() == (set(), set())


def test_what_nobody_wants_when_it_is_confirmed_is_unlistened(office: Office) -> None:
    """Cancelled while LISTEN was on its way."""
    subscriber = office.subscriber("a")
    listen, _ = office.due()
    office.registry.remove(subscriber)
    assert office.due() == (set(), set())
    office.confirm(*listen)
    assert office.due() == (set(), {"a"})


def test_whoever_returns_before_unlisten_went_out_begins_at_once(office: Office) -> None:
    """The server still listens: nothing is due, and a gap marks the beginning."""
    early = office.subscriber("a")
    office.agree()
    office.registry.remove(early)
    late = office.subscriber("a")
    assert office.due() == (set(), set())
    assert late.in_force
    office.send("a", "1")
    assert seen(late) == [Gap("a", START), "1"]


def test_whoever_returns_while_unlisten_is_on_its_way_waits_for_listen(office: Office) -> None:
    """What came before UNLISTEN took effect is no part of what begins after it."""
    early = office.subscriber("a")
    office.agree()
    office.registry.remove(early)
    (unlisten,) = steps = list(office.registry.steps(10))
    assert steps == [Unlisten(["a"])]
    late = office.subscriber("a")
    office.send("a", "before")
    office.registry.performed(unlisten)
    assert office.due() == ({"a"}, set())
    office.send("a", "after")
    office.confirm("a")
    assert seen(late) == [Gap("a", START), "after"]


def test_what_is_removed_twice_is_removed_once(office: Office) -> None:
    """Also if another has taken its channel meanwhile."""
    subscriber = office.subscriber("a")
    office.registry.remove(subscriber)
    other = office.subscriber("a")
    office.registry.remove(subscriber)
    assert office.registry.subscribers == (other,)
    assert office.registry.desired == {"a"}


def test_a_channel_named_twice_is_wanted_once(office: Office) -> None:
    """In the order given."""
    subscriber = office.subscriber("b", "a", "b")
    assert tuple(subscriber.channels) == ("b", "a")
    office.agree()
    office.send("b", "1")
    assert seen(subscriber) == [Gap(None, START), "1"]


# -- gaps -----------------------------------------------------------------------------------------


def test_a_subscriber_begins_when_listen_is_confirmed(office: Office) -> None:
    """With a gap; what came between LISTEN and its confirmation comes after it."""
    subscriber = office.subscriber("a")
    office.send("a", "1")
    assert seen(subscriber) == []
    office.confirm("a")
    office.send("a", "2")
    assert seen(subscriber) == [Gap("a", START), "1", "2"]


def test_r18_one_gap_for_each_connection_that_is_lost(office: Office) -> None:
    """It comes when LISTEN is in force again, since delivery was last good."""
    subscriber = office.subscriber("a")
    office.agree()
    for since in (EARLY, LATE):
        office.registry.disconnect(since)
        assert office.registry.confirmed == frozenset()
        assert not subscriber.in_force
        office.agree()
    assert seen(subscriber) == [
        Gap("a", START),
        Gap("a", RECONNECT, EARLY),
        Gap("a", RECONNECT, LATE),
    ]


def test_r18_a_connection_that_never_listened_makes_no_gap_of_its_own(office: Office) -> None:
    """Lost again before LISTEN was confirmed: one gap, since the first loss."""
    subscriber = office.subscriber("a")
    office.agree()
    office.registry.disconnect(EARLY)
    office.send("a", "of a connection that will be lost")
    office.registry.disconnect(LATE)
    office.send("a", "1")
    office.agree()
    assert seen(subscriber) == [Gap("a", START), Gap("a", RECONNECT, EARLY), "1"]


def test_a_loss_before_the_beginning_is_still_the_beginning(office: Office) -> None:
    """Who has seen nothing yet has lost nothing."""
    subscriber = office.subscriber("a")
    office.registry.disconnect(LATE)
    office.agree()
    assert seen(subscriber) == [Gap("a", START)]


def test_a_gap_never_overtakes_what_was_received_earlier(office: Office) -> None:
    """What waits of the old connection comes first."""
    subscriber = office.subscriber("a")
    office.agree()
    office.send("a", "1")
    office.registry.disconnect(EARLY)
    office.send("a", "2")
    office.agree()
    office.send("a", "3")
    assert seen(subscriber) == [Gap("a", START), "1", Gap("a", RECONNECT, EARLY), "2", "3"]


def test_r06_who_was_stripped_is_told_and_nobody_else(office: Office) -> None:
    """The server listened no more on one channel: its subscribers get a gap, once it does."""
    stripped, untouched = office.subscriber("a"), office.subscriber("b")
    both = office.subscriber("a", "b")
    office.agree()
    assert office.due() == (set(), set())
    office.registry.strip(["a"], EARLY)
    assert office.due() == ({"a"}, set())
    office.confirm("a")
    assert seen(stripped) == [Gap("a", START), Gap("a", UNLISTENED, EARLY)]
    assert seen(both) == [Gap(None, START), Gap(None, UNLISTENED, EARLY)]
    assert seen(untouched) == [Gap("b", START)]


def test_the_first_reason_since_delivery_was_good_stands(office: Office) -> None:
    """Stripped, and disconnected before that was repaired."""
    subscriber = office.subscriber("a")
    office.agree()
    office.registry.strip(["a"], EARLY)
    office.registry.disconnect(LATE)
    office.agree()
    assert seen(subscriber) == [Gap("a", START), Gap("a", UNLISTENED, EARLY)]


def test_what_is_stripped_and_no_longer_wanted_is_forgotten(office: Office) -> None:
    """Nothing is due for it."""
    subscriber = office.subscriber("a")
    office.agree()
    office.registry.remove(subscriber)
    office.registry.strip(["a"], EARLY)
    assert office.due() == (set(), set())


# -- several channels -----------------------------------------------------------------------------


def test_several_channels_begin_together(office: Office) -> None:
    """One gap, without the name of a channel, when the last of them is confirmed."""
    subscriber = office.subscriber("a", "b")
    office.confirm("a")
    assert seen(subscriber) == []
    office.confirm("b")
    assert seen(subscriber) == [Gap(None, START)]


@pytest.mark.parametrize(
    ("statements", "kept"),
    [([["a", "b"]], ["a1", "b1"]), ([["a"], ["b"]], []), ([["b"], ["a"]], [])],
)
def test_what_was_held_with_holes_is_thrown_away(
    office: Office, statements: Sequence[Sequence[str]], kept: list[str]
) -> None:
    """Channels heard at different times: what came in between shows only one of them."""
    subscriber = office.subscriber("a", "b")
    for channel in ("a", "b"):
        office.send(channel, f"{channel}1")
    for channels in statements:
        office.confirm(*channels)
    office.send("a", "a2")
    assert seen(subscriber) == [Gap(None, START), *kept, "a2"]


def test_a_channel_that_others_listen_on_already_is_heard_from_the_beginning_only(
    office: Office,
) -> None:
    """Of two channels one is new: the other's notifications before the gap are covered by it."""
    other = office.subscriber("a")
    office.agree()
    subscriber = office.subscriber("a", "b")
    office.send("a", "1")
    office.agree()
    office.send("a", "2")
    assert seen(subscriber) == [Gap(None, START), "2"]
    assert seen(other) == [Gap("a", START), "1", "2"]


def test_a_channel_is_taken_from_everybody(office: Office) -> None:
    """Who has no other channel is finished; who has, goes on with it."""
    one, two = office.subscriber("a"), office.subscriber("a", "b")
    office.agree()
    office.send("a", "1")
    office.send("b", "2")
    assert office.registry.remove_channel("a") == [one]
    office.send("a", "3")
    office.send("b", "4")
    assert office.due() == (set(), {"a"})
    assert seen(two) == [Gap(None, START), "2", "4"]
    assert two.label == "b"
    assert office.registry.subscribers == (two,)
    assert office.registry.remove_channel("a") == []


def test_whoever_waited_only_for_a_channel_that_was_taken_begins(office: Office) -> None:
    """Its other channels are confirmed already."""
    subscriber = office.subscriber("a", "b")
    office.confirm("a")
    office.send("a", "1")
    office.registry.remove_channel("b")
    assert seen(subscriber) == [Gap("a", START), "1"]


# -- waiting, counting, forgetting ----------------------------------------------------------------


async def test_who_waits_for_the_beginning_is_told(office: Office) -> None:
    """The future is done once every channel is confirmed; a cancelled one does no harm."""
    subscribers = [office.subscriber("a", "b") for _ in range(2)]
    for subscriber in subscribers:
        subscriber.waiter = asyncio.get_running_loop().create_future()
    waiters = [subscriber.waiter for subscriber in subscribers]
    office.confirm("a")
    assert not any(waiter.done() for waiter in waiters if waiter)
    subscribers[0].waiter.cancel()  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    office.confirm("b")
    assert all(waiter.done() for waiter in waiters if waiter)
    office.registry.disconnect(None)
    office.agree()


def test_statistics_tell_notifications_from_gaps(office: Office) -> None:
    """What was delivered are notifications alone; the gap at the start is a gap."""
    subscriber = office.subscriber("a", "b")
    office.agree()
    office.send("a", "1")
    office.send("b", "2")
    assert subscriber.mailbox.take() == Gap(None, START)
    subscriber.gaps_taken += 1
    subscriber.mailbox.take()
    stats = subscriber.stats()
    assert stats.channels == ("a", "b")
    assert (stats.delivered, stats.backlog, stats.gaps, stats.dropped) == (1, 1, 1, 0)


def test_a_gap_that_nobody_wants_counts_and_does_not_wait(office: Office) -> None:
    """It is in the statistics of gaps; as backlog it would look like a consumer that is late."""
    unaware = Subscriber(["a"], LatestMailbox(), gaps_wanted=False)
    office.registry.add(unaware)
    office.agree()
    office.send("a", "1")
    assert seen(unaware) == ["1"]
    office.registry.disconnect(None)
    office.agree()
    stats = unaware.stats()
    assert (stats.delivered, stats.backlog, stats.gaps) == (1, 0, 2)


def test_a_mailbox_that_ends_is_forgotten_by_the_delivery(office: Office) -> None:
    """Nothing grows with the number of subscriptions that there have been."""
    subscriber = office.subscriber("a")
    assert isinstance(subscriber.mailbox, BoundedMailbox)
    office.router._full[subscriber.mailbox] = _Excess(1)  # noqa: SLF001
    office.router._warned[subscriber.mailbox] = 1.0  # noqa: SLF001
    office.registry.remove(subscriber)
    assert not office.router._full  # noqa: SLF001
    assert not office.router._warned  # noqa: SLF001
    assert not office.router.routes


def test_kinds_of_mailboxes_share_a_channel(office: Office) -> None:
    """Each gets every notification, in its own way."""
    every = office.subscriber("a")
    latest = Subscriber(["a"], LatestMailbox())
    office.registry.add(latest)
    office.agree()
    for number in range(3):
        office.send("a", str(number))
    assert seen(every) == [Gap("a", START), "0", "1", "2"]
    assert seen(latest) == [Gap("a", START), "2"]
