"""A server that exists in memory alone, and does and fails as the test says, when it says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from asyncnotify._asyncpg import failures
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._channels.checksum import Checksum
from asyncnotify._connection.limits import Limits
from asyncnotify._connection.session_loop import SessionLoop
from asyncnotify._connection.supervisor import Supervisor
from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.registry import Registry, Subscriber
from asyncnotify._delivery.router import Router
from asyncnotify._events import Announcer
from asyncnotify.testing.clock import START

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import pytest

    from asyncnotify._connection.ports import OtherConnection
    from asyncnotify._events import ConnectionEvent
    from asyncnotify._model import Gap

EventT = TypeVar("EventT")

TIMEOUT = 5.0
"""Seconds in which the server has to answer."""

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
    ) -> None:
        self.server = server
        self.notify, self.on_lost = on_notification, on_lost
        self.last_contact = last_contact
        self.pid = self.told_pid = 100 + len(server.sessions)
        self.lost = False
        self.terminated = False
        self.closed_within: float | None = None
        self.notice: str | None = None
        self.behind_pooler = False
        self.flow = None
        self.listening: set[str] = set()
        self.asked: list[str] = []
        self.name, self.silent = server.new_name, server.new_are_silent
        server.sessions.append(self)

    def die(self, notice: str | None = None) -> None:
        """End as a connection does that the server has closed."""
        self.notice, self.lost = notice, True
        self.on_lost()

    @property
    def batch_size(self) -> int:
        """How many channels one command takes."""
        return self.server.batch

    async def _answer(self, command: str, timeout: float) -> None:
        server = self.server
        self.asked.append(command)
        server.asked.append((server.now, command))
        silent = server.silent or self.silent
        await asyncio.sleep(timeout if silent else server.answer_time)
        if silent:
            self.terminate()
            raise TimeoutError
        if server.faults:
            raise server.faults.pop(0)

    async def listen(self, channels: Sequence[str]) -> dict[str, Exception]:
        """Listen, if the server lets us."""
        await self._answer(f"LISTEN {','.join(sorted(channels))}", TIMEOUT)
        refused = {name: error for name, error in self.server.refused.items() if name in channels}
        self.listening.update(channels)
        self.listening.difference_update(refused)
        if self.server.drops_after_listen:
            asyncio.get_running_loop().call_soon(self.die)
        return refused

    async def unlisten(self, channels: Sequence[str]) -> None:
        """Listen no more."""
        await self._answer(f"UNLISTEN {','.join(sorted(channels))}", TIMEOUT)
        self.listening.difference_update(channels)

    def deliver_to(self, on_notification: Callable[[int, str, str], None]) -> None:
        """Let another function take what arrives."""
        self.notify = on_notification

    async def notify_plainly(self, channel: str) -> None:
        """Notify every session that listens, as the server does."""
        await self._answer(f"NOTIFY {channel}", TIMEOUT)
        for session in self.server.sessions:
            if channel in session.listening and not (session.lost or self.server.is_deaf):
                session.notify(self.pid, channel, "")

    async def find_server(self) -> str | None:
        """Say which one this is."""
        return self.name

    def expect(self, channel: str) -> asyncio.Future[None]:
        """Say that nothing is expected: there is no pooler here."""
        raise NotImplementedError

    async def find_pid(self) -> None:
        """Say nothing: the pid is known."""

    async def queue_usage(self, *, timeout: float) -> float:
        """Say that the queue is empty."""
        await self._answer("usage", timeout)
        return 0.0

    async def queue_holders(self, *, timeout: float) -> list[dict[str, Any]]:
        """Say that nobody holds it."""
        await self._answer("holders", timeout)
        return []

    async def is_listening(self, channels: Checksum, *, timeout: float) -> bool:
        """Answer the heartbeat."""
        await self._answer("heartbeat", timeout)
        return Checksum.of(self.listening) == channels

    async def set_own_defaults(self) -> None:
        """Say that there is no pooler here."""
        raise NotImplementedError

    async def reset_defaults(self) -> None:
        """Say that there is no pooler here."""
        raise NotImplementedError

    async def missing(self, channels: Collection[str]) -> frozenset[str]:
        """Say which of these are not listened on."""
        await self._answer("audit", TIMEOUT)
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
        self.drops_after_listen = self.is_deaf = False
        self.new_are_silent = False
        self.new_name = "one"
        self.faults: list[Exception] = []
        self.refused: dict[str, Exception] = {}  # channels whose names it does not take
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


class FakeConnections:
    """Sessions on the fake server, behind the port that the supervisor knows."""

    target = "joe@db"
    failures = failures

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def open(
        self,
        *,
        on_notification: Callable[[int, str, str], None],
        on_lost: Callable[[], None],
        last_contact: Callable[[], float],
    ) -> FakeSession:
        """Dial, and return a new session."""
        server = await self._server.dial()
        return FakeSession(
            server, on_notification=on_notification, on_lost=on_lost, last_contact=last_contact
        )

    async def notify_by_another(self, channel: str, *, timeout: float) -> OtherConnection:
        """Say that there is none: there is no pooler here."""
        raise NotImplementedError


class SupervisorHarness:
    """A fake server, and a supervisor that holds sessions on it, or several."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnotify._connection.supervisor.datetime", WallClock)
        monkeypatch.setattr("asyncnotify._connection.session_loop.datetime", WallClock)
        monkeypatch.setattr("asyncnotify._delivery.moment.datetime", WallClock)
        clock = asyncio.get_running_loop().time
        monkeypatch.setattr("asyncnotify._connection.session_loop.perf_counter", clock)
        monkeypatch.setattr("asyncnotify._delivery.moment.monotonic", clock)
        self.server = FakeServer()
        self.events: list[ConnectionEvent] = []
        self.callback: Callable[[ConnectionEvent], object] = self.events.append
        self.tasks: list[asyncio.Task[None]] = []
        self.max_age: float | None = None

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
        connections = FakeConnections(self.server)
        self.router = Router(asyncio.get_running_loop())
        self.registry = Registry(self.router)
        self.session_loop = SessionLoop(self.registry, self.router, limits, failures)
        self.supervisor = Supervisor(
            connections,
            self.registry,
            self.router,
            self.session_loop,
            backoff=backoff or ExponentialBackoff(),
            announce=announcer.announce,
            max_age=self.max_age,
        )
        for channel in channels:
            self.subscribe(channel)
        self.tasks.append(asyncio.create_task(self.supervisor.hold_sessions()))
        return self.supervisor

    def subscribe(self, *channels: str) -> Subscriber:
        """Want these channels."""
        box = BoundedMailbox(
            1_000,
            "drop_oldest",
            channel=channels[0],
            source=self.router,
        )
        subscriber = Subscriber(channels, box)
        self.registry.add(subscriber)
        self.session_loop.notice_change()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Want these channels no more."""
        self.registry.remove(subscriber)
        self.session_loop.notice_change()

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


def asked(harness: SupervisorHarness, *, since: float = 0.0) -> list[tuple[float, str]]:
    """Return what the server was asked, and when."""
    return [(seconds, command) for seconds, command in harness.server.asked if seconds >= since]
