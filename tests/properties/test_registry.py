"""In any order of subscribing and unsubscribing, every loss is covered by a gap."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Listen, Registry, Subscriber, Unlisten
from asyncnotify._delivery.router import Router
from asyncnotify._model import Gap, Notification
from tests.unit.fake_sources import NO_LOOP, RecordingSource

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANNELS = ("a", "b")
SETS = st.sets(st.sampled_from(CHANNELS), min_size=1)
UNLIMITED = 1_000_000


@dataclass
class Reader:
    """A subscription, what it has seen, and how much had been committed at each of its gaps."""

    subscriber: Subscriber
    began: int
    seen: list[int | Gap] = field(default_factory=list)
    gaps_at: list[int] = field(default_factory=list)


class Server:
    """Listens as it is told; what it sends is read later, in order."""

    def __init__(self) -> None:
        self.listening: set[str] = set()
        self.requests: deque[Listen | Unlisten] = deque()
        self.sent: deque[tuple[str, int]] = deque()
        self.replied = False

    def commit(self, channel: str, number: int) -> None:
        """Somebody has notified."""
        if channel in self.listening:
            self.sent.append((channel, number))

    def execute(self) -> None:
        """Do what was asked; the reply lines up behind what has been sent."""
        step = self.requests.popleft()
        if isinstance(step, Unlisten):
            self.listening.difference_update(step.channels)
        else:
            self.listening.update(step.channels)
        self.sent.append(("", 0))


class RegistryMachine(RuleBasedStateMachine):
    """A registry between subscribers that come and go and a server that answers late."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(NO_LOOP)
        self.registry = Registry(self.router)
        self.server = Server()
        self.round: Iterator[Listen | Unlisten] | None = None
        self.in_flight: Listen | Unlisten | None = None
        self.committed: dict[int, str] = {}
        self.readers: list[Reader] = []

    @initialize(size=st.integers(1, 2))
    def choose(self, size: int) -> None:
        """One command serves so many channels."""
        self.size = size

    # -- subscribers ------------------------------------------------------------------------------

    @rule(channels=SETS)
    def come(self, channels: set[str]) -> None:
        """Somebody subscribes."""
        box = BoundedMailbox(UNLIMITED, "fail", channel=None, source=RecordingSource())
        subscriber = Subscriber(sorted(channels), box)
        self.readers.append(Reader(subscriber, len(self.committed)))
        self.registry.add(subscriber)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        """Some cancel, the oldest first."""
        for _ in range(data.draw(st.integers(1, len(self.readers)))):
            reader = self.readers.pop(0)
            self.registry.remove(reader.subscriber)
            self.check(reader)

    @rule(channel=st.sampled_from(CHANNELS))
    def unlisten(self, channel: str) -> None:
        """Everybody of a channel is sent away."""
        for reader in tuple(self.readers):
            if channel in reader.subscriber.channels:
                self.take(reader)
        finished = self.registry.remove_channel(channel)
        self.readers = [reader for reader in self.readers if reader.subscriber not in finished]

    # -- the server -------------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        """For a while nothing changes: the server comes to agree."""
        while self.in_flight or self.round or not self.registry.is_settled:
            self.advance(1)

    @rule()
    def notify(self) -> None:
        """Somebody notifies on every channel."""
        for channel in CHANNELS:
            number = len(self.committed) + 1
            self.committed[number] = channel
            self.server.commit(channel, number)

    @precondition(lambda self: self.server.requests)
    @rule()
    def execute(self) -> None:
        """The server does what it was asked."""
        self.server.execute()

    @precondition(lambda self: self.server.sent)
    @rule(count=st.integers(1, 3))
    def read(self, count: int) -> None:
        """The socket brings what was sent: notifications, and the reply among them."""
        for _ in range(min(count, len(self.server.sent))):
            channel, number = self.server.sent.popleft()
            route = self.router.routes.get(channel)
            self.server.replied |= not channel
            if route is not None:
                route.put(Notification(channel, number, 7))

    @rule(steps=st.integers(1, 4))
    def advance(self, steps: int) -> None:
        """What is to happen next happens."""
        for _ in range(steps):
            if self.server.requests:
                self.server.execute()
            elif self.server.sent:
                self.read(len(self.server.sent))
            elif self.server.replied:
                self.note_reply()
            elif not self.in_flight:
                self.send()

    @rule()
    def lose(self) -> None:
        """The connection is gone, and with it what was on its way."""
        self.server = Server()
        self.round = None
        self.in_flight = None
        self.registry.disconnect(None)

    # -- the session loop -------------------------------------------------------------------------

    @precondition(lambda self: not self.in_flight)
    @rule()
    def send(self) -> None:
        """The next step of the round goes out; after the last one a new round begins."""
        if self.round is None:
            self.round = self.registry.steps(self.size)
        self.in_flight = next(self.round, None)
        if self.in_flight is None:
            self.round = None
        else:
            self.server.requests.append(self.in_flight)

    @precondition(lambda self: self.server.replied)
    @rule()
    def note_reply(self) -> None:
        """The loop's turn, some time after the reply was read."""
        assert self.in_flight
        step, self.in_flight, self.server.replied = self.in_flight, None, False
        self.registry.performed(step)

    @precondition(lambda self: not (self.in_flight or self.round or self.server.sent))
    @rule(channels=SETS)
    def strip(self, channels: set[str]) -> None:
        """Somebody unlistens behind our back; it is found out after some were missed."""
        self.server.listening -= channels
        self.notify()
        missing = self.registry.confirmed - self.server.listening
        if missing:
            self.registry.strip(missing, None)

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def gaps_come_when_listen_is_in_force(self) -> None:
        """Note how much was committed when a gap appeared; the server listened by then."""
        for reader in self.readers:
            while len(reader.gaps_at) < reader.subscriber.mailbox.gaps:
                reader.gaps_at.append(len(self.committed))
                assert self.server.listening >= set(reader.subscriber.channels)

    def take(self, reader: Reader) -> None:
        """The consumer takes all there is."""
        self.gaps_come_when_listen_is_in_force()
        while (item := reader.subscriber.mailbox.take()) is not None:
            reader.seen.append(item if isinstance(item, Gap) else int(item.payload))

    def check(self, reader: Reader) -> None:
        """What was received is in order; what was not has a gap at its place, emitted after it."""
        self.take(reader)
        seen = [item for item in reader.seen if isinstance(item, int)]
        assert seen == sorted(set(seen))
        last = max((0, *seen, *reader.gaps_at))  # what comes later is still to be told
        for number, channel in self.committed.items():
            if reader.began < number <= last and channel in reader.subscriber.channels:
                assert number in seen or self.told(number, reader)

    def told(self, number: int, reader: Reader) -> bool:
        """Return whether a gap stands where this number is missing, and came after it was sent."""
        gaps = iter(reader.gaps_at)
        before = 0
        for item in reader.seen:
            if isinstance(item, int):
                before = item
                if item > number:
                    return False
            elif next(gaps) >= number > before:
                return True
        return False

    def teardown(self) -> None:
        """At last the server agrees, everything is read, and everybody is up to date."""
        self.settle()
        self.notify()
        self.read(len(self.server.sent))
        assert self.registry.confirmed == self.registry.desired == self.server.listening
        for reader in self.readers:
            self.check(reader)
            assert reader.seen[-1] in self.committed


TestBookkeeping = RegistryMachine.TestCase
