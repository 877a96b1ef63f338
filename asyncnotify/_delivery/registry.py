"""
Which channels are desired, which the server has confirmed, and the LISTEN or UNLISTEN due next.

Nothing here talks to the server. Callers change what is desired; the session loop takes the
next step from ``Registry.steps()``, gives the command, and calls ``Registry.performed()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncnotify._channels.checksum import Checksum
from asyncnotify._delivery.router import Route, Router
from asyncnotify._errors import ConfigurationError
from asyncnotify._model import Gap, GapReason, SubscriptionStats

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from asyncnotify._delivery.mailbox import Mailbox
    from asyncnotify._delivery.moment import Moment
    from asyncnotify._logs import WarningLimit


@dataclass(frozen=True, slots=True)
class Listen:
    """A step: tell the server to listen on these channels."""

    channels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Unlisten:
    """A step: tell the server to listen on these channels no more."""

    channels: Sequence[str]


class Subscriber:
    """One subscription: its channels, its mailbox, and whether LISTEN is in effect for all."""

    __slots__ = (
        "channels",
        "decode_errors",
        "gaps_taken",
        "gaps_wanted",
        "handler_errors",
        "in_force",
        "mailbox",
        "reason",
        "refusal",
        "rereads",
        "resync_errors",
        "since",
        "unlistened",
        "waiter",
    )

    def __init__(
        self, channels: Iterable[str], mailbox: Mailbox, *, gaps_wanted: bool = True
    ) -> None:
        self.channels: tuple[str, ...] = tuple(dict.fromkeys(channels))
        self.mailbox: Mailbox = mailbox
        self.in_force: bool = False
        self.reason: GapReason = GapReason.START
        self.since: Moment | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.refusal: Exception | None = None
        self.unlistened: bool = False  # whether unlisten() has ended it
        self.gaps_wanted: bool = gaps_wanted
        self.gaps_taken: int = 0
        self.handler_errors: int = 0
        self.resync_errors: int = 0
        self.decode_errors: int = 0
        self.rereads: int = 0

    @property
    def label(self) -> str | None:
        """The channel that a Gap of this subscription names; None if there are several."""
        return self.channels[0] if len(self.channels) == 1 else None

    def begin(self) -> None:
        """The server has confirmed every channel: emit the Gap and what has been held."""
        self.in_force = True
        if self.gaps_wanted:
            since = None if self.since is None else self.since.earliest()
            self.mailbox.release(Gap(self.label, self.reason, since))
        else:
            self.mailbox.release_without_gap()  # wakes only consumers with something held
        self.stop_waiting()

    def discard_held(self) -> None:
        """Discard what arrived before the Gap that is still to be emitted: the Gap covers that."""
        if not self.in_force:
            self.mailbox.hold()

    def stop_waiting(self) -> None:
        """Wake the caller that waits for the confirmation, if there is one."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def interrupt(self, reason: GapReason, since: Moment | None) -> None:
        """LISTEN is not in effect any more: hold the mailbox until begin()."""
        self.mailbox.hold()
        if self.in_force:  # a further loss before begin() keeps the reason and time of the first
            self.in_force = False
            self.reason = reason
            self.since = since

    def stats(self) -> SubscriptionStats:
        """Return what became of the notifications so far."""
        mailbox = self.mailbox
        return SubscriptionStats(
            channels=self.channels,
            backlog=len(mailbox),
            delivered=mailbox.taken - self.gaps_taken - self.decode_errors - self.rereads,
            dropped=mailbox.dropped,
            conflated=mailbox.conflated,
            handler_errors=self.handler_errors,
            resync_errors=self.resync_errors,
            decode_errors=self.decode_errors,
            rereads=self.rereads,
            gaps=mailbox.gaps,
        )


class Registry:
    """The subscriptions and channels of one run, and how far the server agrees."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._routes = router.routes
        self._subscribers: dict[Subscriber, None] = {}
        self._confirmed: set[str] = set()
        self._checksum: Checksum | None = None  # of the confirmed channels; None: to be computed
        self._unsettled: set[str] = set()  # channels on which desired and confirmed may differ
        self.on_refused: Callable[[Subscriber], object] = lambda _: None  # called once it has ended

    @property
    def desired(self) -> frozenset[str]:
        """The channels that have a subscription."""
        return frozenset(self._routes)

    @property
    def confirmed(self) -> frozenset[str]:
        """The channels that the server has confirmed on the present connection."""
        return frozenset(self._confirmed)

    def is_confirmed(self, channel: str) -> bool:
        """Return whether the server has confirmed this channel on the present connection."""
        return channel in self._confirmed

    @property
    def confirmed_count(self) -> int:
        """How many channels the server has confirmed on the present connection."""
        return len(self._confirmed)

    @property
    def confirmed_checksum(self) -> Checksum:
        """The checksum of the confirmed channels, for the question of a heartbeat."""
        if self._checksum is None:
            self._checksum = Checksum.of(self._confirmed)
        return self._checksum

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Every subscription, in the order in which they came."""
        return tuple(self._subscribers)

    def has(self, subscriber: Subscriber) -> bool:
        """Return whether the subscription is registered."""
        return subscriber in self._subscribers

    def add(self, subscriber: Subscriber) -> None:
        """Register a subscription; it begins at once where its channels are confirmed."""
        self._subscribers[subscriber] = None
        for channel in subscriber.channels:
            route = self._routes.get(channel)
            if route is None:
                route = self._routes[channel] = Route(channel)
                self._unsettled.add(channel)
            route.join(subscriber, subscriber.mailbox.put)
        self._begin_if_confirmed(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscription; nothing more is put into its mailbox."""
        if self._subscribers.pop(subscriber, subscriber) is None:
            for channel in subscriber.channels:
                self._leave(subscriber, channel)
            self._router.forget(subscriber.mailbox)

    def remove_channel(self, channel: str) -> list[Subscriber]:
        """Take a channel from every subscription; return those that have none left."""
        finished = []
        for subscriber in self._members(channel):
            if len(subscriber.channels) == 1:
                self.remove(subscriber)
                finished.append(subscriber)
            else:
                self._leave(subscriber, channel)
                subscriber.channels = tuple(c for c in subscriber.channels if c != channel)
                subscriber.mailbox.purge(channel)
                self._begin_if_confirmed(subscriber)
        return finished

    def _members(self, channel: str) -> list[Subscriber]:
        route = self._routes.get(channel)
        return [s for s in route.members if isinstance(s, Subscriber)] if route else []

    def _leave(self, subscriber: Subscriber, channel: str) -> None:
        route = self._routes[channel]
        route.leave(subscriber)
        if not route.members:
            del self._routes[channel]
            self._unsettled.add(channel)

    # -- agreement with the server ------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether the server has confirmed exactly what is desired."""
        listen, unlisten = self._due()
        return not listen and not unlisten

    def steps(self, size: int) -> Iterator[Listen | Unlisten]:
        """
        Yield what the server has to be told so that it agrees with what is desired now.

        First UNLISTEN, then LISTEN, each for up to ``size`` channels. Callers may change what is
        desired between two steps: a step leaves out channels that are no longer due, and a
        channel that becomes due meanwhile is left to the next call.
        """
        listen, unlisten = self._due()
        for portion in portions(unlisten, size):
            if still_due := self._unwanted(portion):
                self._unconfirm(still_due)  # before it is sent: who joins now waits for LISTEN
                yield Unlisten(still_due)
        for portion in portions(listen, size):
            if still_due := self._wanted(portion):
                yield Listen(still_due)

    def performed(self, step: Listen | Unlisten) -> None:
        """The server has confirmed the step."""
        if isinstance(step, Listen):
            self._confirm(step.channels)
        else:
            self._discard_held(step.channels)

    def _due(self) -> tuple[list[str], list[str]]:
        """Return the channels for which LISTEN is due, and those for which UNLISTEN is."""
        listen, unlisten = self._wanted(self._unsettled), self._unwanted(self._unsettled)
        self._unsettled = {*listen, *unlisten}
        return listen, unlisten

    def _wanted(self, channels: Iterable[str]) -> list[str]:
        """Return those of these channels that are desired and not confirmed."""
        return [c for c in channels if c in self._routes and c not in self._confirmed]

    def _unwanted(self, channels: Iterable[str]) -> list[str]:
        """Return those of these channels that are confirmed and not desired."""
        return [c for c in channels if c not in self._routes and c in self._confirmed]

    def _confirm(self, channels: Collection[str]) -> None:
        """The server listens on these: begin each subscription whose channels are all confirmed."""
        self._confirmed.update(channels)
        self._checksum = None
        together = frozenset(channels)
        waiting: dict[Subscriber, None] = {}
        for channel in channels:
            if channel in self._routes:
                waiting.update(dict.fromkeys(self._members(channel)))
            else:
                self._unsettled.add(channel)  # its last subscription has ended meanwhile
        for subscriber in waiting:
            if not together.issuperset(subscriber.channels):
                # Its channels were confirmed at different times: what was held is incomplete
                subscriber.discard_held()
            self._begin_if_confirmed(subscriber)

    def _discard_held(self, channels: Iterable[str]) -> None:
        """The server has unlistened: what was held of channels desired again is incomplete."""
        for channel in channels:
            for subscriber in self._members(channel):
                subscriber.discard_held()

    def check_refused(self, refused: Mapping[str, Exception]) -> None:
        """
        Raise ConfigurationError if the server refuses LISTEN itself to those who have had it.

        Another server than before has answered, or none that listens: that is to be repaired, and
        the subscriptions wait for it, as they do while a password is wrong.
        """
        for channel, error in refused.items():
            if isinstance(error, ConfigurationError) and self._has_served(channel):
                raise error

    def _has_served(self, channel: str) -> bool:
        """Return whether a subscription of this channel has begun, here or on a past connection."""
        return any(
            member.in_force or member.reason is not GapReason.START
            for member in self._members(channel)
        )

    def refuse(self, channel: str, error: Exception) -> None:
        """The server refuses this channel: end its subscriptions, all channels of each."""
        for subscriber in self._members(channel):
            self.remove(subscriber)
            subscriber.refusal = error
            subscriber.mailbox.end(discard=True)
            subscriber.stop_waiting()
            self.on_refused(subscriber)

    def _unconfirm(self, channels: Collection[str]) -> None:
        """The server is about to unlisten on these, or was found not to listen on them."""
        self._confirmed.difference_update(channels)
        self._checksum = None
        self._unsettled.update(c for c in channels if c in self._routes)

    @property
    def warnings(self) -> WarningLimit:
        """The limit of the warnings of consumers."""
        return self._router.warnings

    @property
    def wakings(self) -> int:
        """How often consumers have been woken: the same as before, if nothing has come for any."""
        return self._router.turns.begun

    def strip(self, channels: Collection[str], since: Moment | None) -> None:
        """The server was found not to listen on these, although it was not told to unlisten."""
        stripped = frozenset(channels)
        for subscriber in self._subscribers:
            if not stripped.isdisjoint(subscriber.channels):
                subscriber.interrupt(GapReason.UNLISTENED, since)
        self._unconfirm(channels)

    def disconnect(self, since: Moment | None) -> None:
        """The connection is lost, and every LISTEN with it."""
        self._confirmed.clear()
        self._checksum = None
        self._unsettled.clear()
        self._unsettled.update(self._routes)
        for subscriber in self._subscribers:
            subscriber.interrupt(GapReason.RECONNECT, since)

    def _begin_if_confirmed(self, subscriber: Subscriber) -> None:
        if not subscriber.in_force and self._confirmed.issuperset(subscriber.channels):
            self._router.turns.begin_with_first()
            subscriber.begin()


def portions(channels: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the channels in lists of up to ``size``, for one command each."""
    for start in range(0, len(channels), size):
        yield channels[start : start + size]
