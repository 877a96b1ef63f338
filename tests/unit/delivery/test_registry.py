from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.registry import Listen, Registry, Subscriber, Unlisten
from asyncnotify._delivery.router import Router, _Excess
from asyncnotify._errors import ChannelNameError, ConfigurationError
from asyncnotify._logs import WarningLimit
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import NO_LOOP, RecordingSource, at

if TYPE_CHECKING:
    from collections.abc import Sequence

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(hours=1)
START, RECONNECT, UNLISTENED = GapReason.START, GapReason.RECONNECT, GapReason.UNLISTENED


class RegistryHarness:
    """A registry, and a server that does what it is told and sends what it is asked to."""

    def __init__(self) -> None:
        self.router = Router(NO_LOOP)
        self.registry = Registry(self.router)

    def subscriber(self, *channels: str) -> Subscriber:
        """Return a subscriber that is registered."""
        box = BoundedMailbox(100, "drop_oldest", channel=None, source=RecordingSource())
        subscriber = Subscriber(channels, box)
        self.registry.add(subscriber)
        return subscriber

    def due(self) -> tuple[set[str], set[str]]:
        """Return what LISTEN and what UNLISTEN is due."""
        listen, unlisten = self.registry._due()  # noqa: SLF001 - steps() would take them
        assert self.registry.is_settled == (not listen and not unlisten)
        return set(listen), set(unlisten)

    def perform_all(self) -> None:
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
def harness() -> RegistryHarness:
    """A registry where nobody wants anything."""
    return RegistryHarness()


def seen(subscriber: Subscriber) -> list[str | Gap]:
    """Take everything: gaps, and the payloads of notifications."""
    items: list[str | Gap] = []
    while (item := subscriber.mailbox.take()) is not None:
        items.append(item if isinstance(item, Gap) else str(item.payload))
    return items


# -- what is due ----------------------------------------------------------------------------------


def test_nothing_is_due_when_nobody_wants_anything(harness: RegistryHarness) -> None:
    """An empty registry agrees with a server that listens on nothing."""
    assert harness.due() == (set(), set())
    assert harness.registry.desired == harness.registry.confirmed == frozenset()


def test_the_first_subscriber_makes_listen_due_and_no_later_one(harness: RegistryHarness) -> None:
    """Several subscriptions of one channel share one LISTEN."""
    harness.subscriber("a")
    assert harness.due() == ({"a"}, set())
    harness.subscriber("a")
    assert harness.due() == ({"a"}, set())
    harness.perform_all()
    assert harness.due() == (set(), set())
    harness.subscriber("a", "b")
    assert harness.due() == ({"b"}, set())


def test_the_last_subscriber_makes_unlisten_due_and_no_earlier_one(
    harness: RegistryHarness,
) -> None:
    """UNLISTEN goes out when nobody is left."""
    one, two = harness.subscriber("a"), harness.subscriber("a")
    harness.perform_all()
    harness.registry.remove(one)
    assert harness.due() == (set(), set())
    harness.registry.remove(two)
    assert harness.due() == (set(), {"a"})
    harness.perform_all()
    assert harness.due() == (set(), set())
    assert harness.registry.confirmed == frozenset()


def test_a_subscriber_that_comes_and_goes_unnoticed_leaves_nothing_due(
    harness: RegistryHarness,
) -> None:
    """What the server was never told need not be taken back."""
    harness.registry.remove(harness.subscriber("a"))
    assert harness.due() == (set(), set())


def test_what_nobody_wants_when_it_is_confirmed_is_unlistened(harness: RegistryHarness) -> None:
    """Cancelled while LISTEN was on its way."""
    subscriber = harness.subscriber("a")
    listen, _ = harness.due()
    harness.registry.remove(subscriber)
    assert harness.due() == (set(), set())
    harness.confirm(*listen)
    assert harness.due() == (set(), {"a"})


def test_a_subscriber_that_returns_before_unlisten_begins_at_once(harness: RegistryHarness) -> None:
    """The server still listens: nothing is due, and a gap marks the beginning."""
    early = harness.subscriber("a")
    harness.perform_all()
    harness.registry.remove(early)
    late = harness.subscriber("a")
    assert harness.due() == (set(), set())
    assert late.in_force
    harness.send("a", "1")
    assert seen(late) == [Gap("a", START), "1"]


def test_a_subscriber_that_returns_during_unlisten_waits_for_listen(
    harness: RegistryHarness,
) -> None:
    """What came before UNLISTEN took effect is no part of what begins after it."""
    early = harness.subscriber("a")
    harness.perform_all()
    harness.registry.remove(early)
    (unlisten,) = steps = list(harness.registry.steps(10))
    assert steps == [Unlisten(["a"])]
    late = harness.subscriber("a")
    harness.send("a", "before")
    harness.registry.performed(unlisten)
    assert harness.due() == ({"a"}, set())
    harness.send("a", "after")
    harness.confirm("a")
    assert seen(late) == [Gap("a", START), "after"]


def test_what_is_removed_twice_is_removed_once(harness: RegistryHarness) -> None:
    """Also if another has taken its channel meanwhile."""
    subscriber = harness.subscriber("a")
    harness.registry.remove(subscriber)
    other = harness.subscriber("a")
    harness.registry.remove(subscriber)
    assert harness.registry.subscribers == (other,)
    assert harness.registry.desired == {"a"}


def test_a_channel_named_twice_is_wanted_once(harness: RegistryHarness) -> None:
    """In the order given."""
    subscriber = harness.subscriber("b", "a", "b")
    assert tuple(subscriber.channels) == ("b", "a")
    harness.perform_all()
    harness.send("b", "1")
    assert seen(subscriber) == [Gap(None, START), "1"]


# -- gaps -----------------------------------------------------------------------------------------


def test_a_subscriber_begins_when_listen_is_confirmed(harness: RegistryHarness) -> None:
    """With a gap; what came between LISTEN and its confirmation comes after it."""
    subscriber = harness.subscriber("a")
    harness.send("a", "1")
    assert seen(subscriber) == []
    harness.confirm("a")
    harness.send("a", "2")
    assert seen(subscriber) == [Gap("a", START), "1", "2"]


def test_r18_one_gap_for_each_connection_that_is_lost(harness: RegistryHarness) -> None:
    """It comes when LISTEN is in force again, since delivery was last good."""
    subscriber = harness.subscriber("a")
    harness.perform_all()
    for since in (EARLY, LATE):
        harness.registry.disconnect(at(since))
        assert harness.registry.confirmed == frozenset()
        assert not subscriber.in_force
        harness.perform_all()
    assert seen(subscriber) == [
        Gap("a", START),
        Gap("a", RECONNECT, EARLY),
        Gap("a", RECONNECT, LATE),
    ]


def test_r18_a_connection_that_never_listened_makes_no_gap_of_its_own(
    harness: RegistryHarness,
) -> None:
    """Lost again before LISTEN was confirmed: one gap, since the first loss."""
    subscriber = harness.subscriber("a")
    harness.perform_all()
    harness.registry.disconnect(at(EARLY))
    harness.send("a", "of a connection that will be lost")
    harness.registry.disconnect(at(LATE))
    harness.send("a", "1")
    harness.perform_all()
    assert seen(subscriber) == [Gap("a", START), Gap("a", RECONNECT, EARLY), "1"]


def test_a_loss_before_the_beginning_is_still_the_beginning(harness: RegistryHarness) -> None:
    """Who has seen nothing yet has lost nothing."""
    subscriber = harness.subscriber("a")
    harness.registry.disconnect(at(LATE))
    harness.perform_all()
    assert seen(subscriber) == [Gap("a", START)]


def test_a_gap_never_overtakes_what_was_received_earlier(harness: RegistryHarness) -> None:
    """What waits of the old connection comes first."""
    subscriber = harness.subscriber("a")
    harness.perform_all()
    harness.send("a", "1")
    harness.registry.disconnect(at(EARLY))
    harness.send("a", "2")
    harness.perform_all()
    harness.send("a", "3")
    assert seen(subscriber) == [Gap("a", START), "1", Gap("a", RECONNECT, EARLY), "2", "3"]


def test_r06_who_was_stripped_is_told_and_nobody_else(harness: RegistryHarness) -> None:
    """The server listened no more on one channel: its subscribers get a gap, once it does."""
    stripped, untouched = harness.subscriber("a"), harness.subscriber("b")
    both = harness.subscriber("a", "b")
    harness.perform_all()
    assert harness.due() == (set(), set())
    harness.registry.strip(["a"], at(EARLY))
    assert harness.due() == ({"a"}, set())
    harness.confirm("a")
    assert seen(stripped) == [Gap("a", START), Gap("a", UNLISTENED, EARLY)]
    assert seen(both) == [Gap(None, START), Gap(None, UNLISTENED, EARLY)]
    assert seen(untouched) == [Gap("b", START)]


def test_the_first_reason_since_delivery_was_good_stands(harness: RegistryHarness) -> None:
    """Stripped, and disconnected before that was repaired."""
    subscriber = harness.subscriber("a")
    harness.perform_all()
    harness.registry.strip(["a"], at(EARLY))
    harness.registry.disconnect(at(LATE))
    harness.perform_all()
    assert seen(subscriber) == [Gap("a", START), Gap("a", UNLISTENED, EARLY)]


def test_what_is_stripped_and_no_longer_wanted_is_forgotten(harness: RegistryHarness) -> None:
    """Nothing is due for it."""
    subscriber = harness.subscriber("a")
    harness.perform_all()
    harness.registry.remove(subscriber)
    harness.registry.strip(["a"], at(EARLY))
    assert harness.due() == (set(), set())


# -- several channels -----------------------------------------------------------------------------


def test_several_channels_begin_together(harness: RegistryHarness) -> None:
    """One gap, without the name of a channel, when the last of them is confirmed."""
    subscriber = harness.subscriber("a", "b")
    harness.confirm("a")
    assert seen(subscriber) == []
    harness.confirm("b")
    assert seen(subscriber) == [Gap(None, START)]


@pytest.mark.parametrize(
    ("statements", "kept"),
    [([["a", "b"]], ["a1", "b1"]), ([["a"], ["b"]], []), ([["b"], ["a"]], [])],
)
def test_what_was_held_with_holes_is_thrown_away(
    harness: RegistryHarness, statements: Sequence[Sequence[str]], kept: list[str]
) -> None:
    """Channels heard at different times: what came in between shows only one of them."""
    subscriber = harness.subscriber("a", "b")
    for channel in ("a", "b"):
        harness.send(channel, f"{channel}1")
    for channels in statements:
        harness.confirm(*channels)
    harness.send("a", "a2")
    assert seen(subscriber) == [Gap(None, START), *kept, "a2"]


def test_a_channel_that_others_listen_on_already_is_heard_from_the_beginning_only(
    harness: RegistryHarness,
) -> None:
    """Of two channels one is new: the other's notifications before the gap are covered by it."""
    other = harness.subscriber("a")
    harness.perform_all()
    subscriber = harness.subscriber("a", "b")
    harness.send("a", "1")
    harness.perform_all()
    harness.send("a", "2")
    assert seen(subscriber) == [Gap(None, START), "2"]
    assert seen(other) == [Gap("a", START), "1", "2"]


def test_r54_a_server_that_listens_no_more_is_a_loss_to_those_it_has_served(
    harness: RegistryHarness,
) -> None:
    """Another one answers now, which is to be repaired; for a new channel it is a refusal."""
    no_listen = ConfigurationError("the server does not support LISTEN")
    harness.subscriber("a")
    harness.registry.check_refused({"a": no_listen})
    harness.perform_all()
    harness.registry.check_refused({"a": ChannelNameError("a", "is refused")})
    with pytest.raises(ConfigurationError):
        harness.registry.check_refused({"a": no_listen})
    harness.subscriber("b")
    harness.registry.check_refused({"b": no_listen})


def test_a_channel_is_taken_from_everybody(harness: RegistryHarness) -> None:
    """Who has no other channel is finished; who has, goes on with it."""
    one, two = harness.subscriber("a"), harness.subscriber("a", "b")
    harness.perform_all()
    harness.send("a", "1")
    harness.send("b", "2")
    assert harness.registry.remove_channel("a") == [one]
    harness.send("a", "3")
    harness.send("b", "4")
    assert harness.due() == (set(), {"a"})
    assert seen(two) == [Gap(None, START), "2", "4"]
    assert two.label == "b"
    assert harness.registry.subscribers == (two,)
    assert harness.registry.remove_channel("a") == []


def test_a_subscriber_that_waited_for_a_removed_channel_begins(harness: RegistryHarness) -> None:
    """Its other channels are confirmed already."""
    subscriber = harness.subscriber("a", "b")
    harness.confirm("a")
    harness.send("a", "1")
    harness.registry.remove_channel("b")
    assert seen(subscriber) == [Gap("a", START), "1"]


# -- waiting, counting, forgetting ----------------------------------------------------------------


async def test_who_waits_for_the_beginning_is_told(harness: RegistryHarness) -> None:
    """The future is done once every channel is confirmed; a cancelled one does no harm."""
    subscribers = [harness.subscriber("a", "b") for _ in range(2)]
    for subscriber in subscribers:
        subscriber.waiter = asyncio.get_running_loop().create_future()
    waiters = [subscriber.waiter for subscriber in subscribers]
    harness.confirm("a")
    assert not any(waiter.done() for waiter in waiters if waiter)
    subscribers[0].waiter.cancel()  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    harness.confirm("b")
    assert all(waiter.done() for waiter in waiters if waiter)
    harness.registry.disconnect(None)
    harness.perform_all()


def test_statistics_tell_notifications_from_gaps(harness: RegistryHarness) -> None:
    """What was delivered are notifications alone; the gap at the start is a gap."""
    subscriber = harness.subscriber("a", "b")
    harness.perform_all()
    harness.send("a", "1")
    harness.send("b", "2")
    assert subscriber.mailbox.take() == Gap(None, START)
    subscriber.gaps_taken += 1
    subscriber.mailbox.take()
    stats = subscriber.stats()
    assert stats.channels == ("a", "b")
    assert (stats.delivered, stats.backlog, stats.gaps, stats.dropped) == (1, 1, 1, 0)


def test_a_gap_that_nobody_wants_counts_and_does_not_wait(harness: RegistryHarness) -> None:
    """It is in the statistics of gaps; as backlog it would look like a consumer that is late."""
    unaware = Subscriber(["a"], LatestMailbox(), gaps_wanted=False)
    harness.registry.add(unaware)
    harness.perform_all()
    harness.send("a", "1")
    assert seen(unaware) == ["1"]
    harness.registry.disconnect(None)
    harness.perform_all()
    stats = unaware.stats()
    assert (stats.delivered, stats.backlog, stats.gaps) == (1, 0, 2)


def test_a_mailbox_that_ends_is_forgotten_by_the_delivery(harness: RegistryHarness) -> None:
    """Nothing grows with the number of subscriptions that there have been."""
    subscriber = harness.subscriber("a")
    assert isinstance(subscriber.mailbox, BoundedMailbox)
    harness.router._full[subscriber.mailbox] = _Excess(1, 0)  # noqa: SLF001 - as if it had overflowed
    harness.router.warnings = WarningLimit()
    assert harness.router.warnings.allows(subscriber.mailbox)
    assert not harness.router.warnings.allows(subscriber.mailbox)
    harness.registry.remove(subscriber)
    assert not harness.router._full  # noqa: SLF001 - nothing is left
    assert harness.router.warnings.allows(subscriber.mailbox)
    assert not harness.router.routes


def test_kinds_of_mailboxes_share_a_channel(harness: RegistryHarness) -> None:
    """Each gets every notification, in its own way."""
    every = harness.subscriber("a")
    latest = Subscriber(["a"], LatestMailbox())
    harness.registry.add(latest)
    harness.perform_all()
    for number in range(3):
        harness.send("a", str(number))
    assert seen(every) == [Gap("a", START), "0", "1", "2"]
    assert seen(latest) == [Gap("a", START), "2"]


def test_no_progress_counts_once_a_whole_turn_was_had() -> None:
    """A consumer that did not run in its first turn has a further one; not a third."""
    excess = _Excess(10, 0)
    assert excess.is_shrinking(10, 5, 0.5)
    assert excess.is_shrinking(10, 5, 0.5)
    assert not excess.is_shrinking(10, 5, 0.5)
