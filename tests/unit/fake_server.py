"""A server that exists in memory alone, and does and fails as the test says, when it says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from asyncnotify._asyncpg.dial import Dialer
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._bounded_mailbox import BoundedMailbox
from asyncnotify._checksum import Checksum
from asyncnotify._events import Announcer
from asyncnotify._limits import Limits
from asyncnotify._registry import Subscriber
from asyncnotify._supervisor import Supervisor
from tests.unit.clock import START

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import asyncpg
    import pytest

    from asyncnotify._events import ConnectionEvent
    from asyncnotify._model import Gap

EventT = TypeVar("EventT")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return the wall clock's time so many seconds after the beginning of the test."""
    return EPOCH + timedelta(seconds=seconds)


class WallClock(datetime):
    """A wall clock in step with the event loop's."""

    @classmethod
    def now(cls, tz: object = None) -> Self:
        """Return the time."""
        return cast("Self", at(round(asyncio.get_running_loop().time() - START, 6)))


class FakeSession:
    """A session as the supervisor sees it; one of the fake server's."""

    def __init__(
        self,
        server: FakeServer,
        *,
        on_notification: Callable[[int, str, str], None],
        on_lost: Callable[[], None],
        last_contact: Callable[[], float],
        timeout: float,
    ) -> None:
        self.server = server
        self.notify, self.on_lost, self.timeout = on_notification, on_lost, timeout
        self.last_contact = last_contact
        self.pid = 100 + len(server.sessions)
        self.lost = False
        self.terminated = False
        self.closed_within: float | None = None
        self.notice: str | None = None
        self.flow = None
        self.listening: set[str] = set()
        self.asked: list[str] = []
        server.sessions.append(self)

    def die(self, notice: str | None = None) -> None:
        """End as a connection does that the server has closed."""
        self.notice, self.lost = notice, True
        self.on_lost()

    def batches(self, channels: Sequence[str]) -> Iterator[Sequence[str]]:
        """Split channels into portions."""
        size = self.server.batch
        for start in range(0, len(channels), size):
            yield channels[start : start + size]

    async def _answer(self, command: str, timeout: float) -> None:
        server = self.server
        self.asked.append(command)
        server.asked.append((server.now, command))
        await asyncio.sleep(timeout if server.silent else server.answer_time)
        if server.silent:
            self.terminate()
            raise TimeoutError
        if server.faults:
            raise server.faults.pop(0)

    async def introduce(self, keepalive: object) -> bool:
        """Say that there is no pooler."""
        return True

    async def listen(self, batch: Sequence[str]) -> None:
        """Listen, if the server lets us."""
        await self._answer(f"LISTEN {','.join(sorted(batch))}", self.timeout)
        self.listening.update(batch)
        if self.server.drops_after_listen:
            asyncio.get_running_loop().call_soon(self.die)

    async def unlisten(self, batch: Sequence[str]) -> None:
        """Listen no more."""
        await self._answer(f"UNLISTEN {','.join(sorted(batch))}", self.timeout)
        self.listening.difference_update(batch)

    async def relisten(self, batch: Sequence[str]) -> None:
        """Listen again."""
        await self._answer(f"LISTEN {','.join(sorted(batch))}", self.timeout)
        self.listening.update(batch)

    async def is_listening(self, channels: Checksum, *, timeout: float) -> bool:
        """Answer the heartbeat."""
        await self._answer("heartbeat", timeout)
        return Checksum.of(self.listening) == channels

    async def missing(self, channels: Collection[str]) -> frozenset[str]:
        """Say which of these are not listened on."""
        await self._answer("audit", self.timeout)
        return frozenset(channels) - self.listening

    async def close(self, timeout: float) -> None:
        """Say goodbye."""
        self.closed_within = timeout
        self.lost = True

    def terminate(self) -> None:
        """Be dropped."""
        self.lost = self.terminated = True


class FakeServer:
    """What is dialled; how it behaves is set by the test at any time."""

    def __init__(self) -> None:
        self.refusal: BaseException | None = None
        self.dial_time = self.answer_time = 0.0
        self.silent = False
        self.drops_after_listen = False
        self.faults: list[Exception] = []
        self.batch = 10_000
        self.dials: list[float] = []
        self.dialling = self.most_dialling = 0
        self.asked: list[tuple[float, str]] = []
        self.sessions: list[FakeSession] = []

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return round(asyncio.get_running_loop().time() - START, 6)

    @property
    def session(self) -> FakeSession:
        """The newest session."""
        return self.sessions[-1]

    async def dial(self) -> FakeServer:
        """Accept, or refuse."""
        self.dials.append(self.now)
        self.dialling += 1
        self.most_dialling = max(self.dialling, self.most_dialling)
        try:
            await asyncio.sleep(self.dial_time)
        finally:
            self.dialling -= 1
        if self.refusal is not None:
            raise self.refusal
        return self


class FakeDialer(Dialer):
    """Dials the fake server."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(None, None, {}, timeout=10.0)
        self.server = server
        self.target = "joe@db"

    async def dial(self) -> asyncpg.Connection[Any]:
        """Return what the fake session is made of."""
        return cast("asyncpg.Connection[Any]", await self.server.dial())


class Stage:
    """A fake server, and a supervisor that holds sessions on it, or several."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnotify._supervisor.ListeningSession", FakeSession)
        monkeypatch.setattr("asyncnotify._supervisor.datetime", WallClock)
        monkeypatch.setattr("asyncnotify._watch.datetime", WallClock)
        monkeypatch.setattr("asyncnotify._watch.perf_counter", asyncio.get_running_loop().time)
        self.server = FakeServer()
        self.events: list[ConnectionEvent] = []
        self.callback: Callable[[ConnectionEvent], object] = self.events.append
        self.tasks: list[asyncio.Task[None]] = []

    def supervise(
        self,
        *channels: str,
        heartbeat: float | None = 10.0,
        backoff: Callable[[], Iterator[float]] | None = None,
    ) -> Supervisor:
        """Start a supervisor; return it."""
        limits = Limits(
            connect_timeout=10.0,
            heartbeat=heartbeat,
            heartbeat_timeout=5.0,
            operation_timeout=5.0,
            start_timeout=30.0,
            close_timeout=5.0,
        )
        announcer = Announcer("joe@db", self.callback)
        self.news = announcer.stream()
        self.supervisor = Supervisor(
            FakeDialer(self.server),
            limits,
            backoff or ExponentialBackoff(),
            None,
            announcer.announce,
        )
        for channel in channels:
            self.subscribe(channel)
        self.tasks.append(asyncio.create_task(self.supervisor.hold_sessions()))
        return self.supervisor

    def subscribe(self, *channels: str) -> Subscriber:
        """Want these channels."""
        delivery = self.supervisor.delivery
        box = BoundedMailbox(
            1_000,
            "drop_oldest",
            channel=channels[0],
            carrier=delivery,
        )
        subscriber = Subscriber(channels, box)
        self.supervisor.registry.add(subscriber)
        self.supervisor.watch.notice_change()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Want these channels no more."""
        self.supervisor.registry.remove(subscriber)
        self.supervisor.watch.notice_change()

    async def until(self, kind: type[EventT]) -> EventT:
        """Return the next event of this kind."""
        while not isinstance(event := await anext(self.news), kind):
            pass
        return event

    async def stop(self) -> None:
        """End every supervisor."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def seen(subscriber: Subscriber) -> list[str | Gap]:
    """Take everything: gaps, and the payloads of notifications."""
    items: list[str | Gap] = []
    while (item := subscriber.mailbox.take()) is not None:
        items.append(item.payload if isinstance(item, tuple) else item)
    return items


def asked(stage: Stage, *, since: float = 0.0) -> list[tuple[float, str]]:
    """Return what the server was asked, and when."""
    return [(seconds, command) for seconds, command in stage.server.asked if seconds >= since]
