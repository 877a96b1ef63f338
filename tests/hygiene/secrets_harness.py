"""A server that requires a password, a listener that has it, and a detector."""

from __future__ import annotations

import asyncio
import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import asyncpg
import pytest

from asyncnotify import (
    ConnectError,
    ConnectionEvent,
    ConnectionLost,
    ExponentialBackoff,
    Listener,
    Notification,
    Reconnected,
)
from tests.hygiene.secret_detector import OURS, PASSWORD, PAYLOAD, SECRETS, USER, SecretDetector
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import UnionType

    from asyncnotify import EventStream, Stream, Subscription
    from asyncnotify.testing.proxy import FaultProxy
    from asyncnotify.testing.server import PostgresServer

    Connection = asyncpg.Connection[asyncpg.Record]

E = TypeVar("E", bound=ConnectionEvent)

WAIT_LIMIT: Final = scaled(10.0)  # seconds until a fact that must come has come
SHORT_BACKOFF: Final = ExponentialBackoff(initial=0.01, cap=0.05)
SOON: Final[dict[str, Any]] = {"start_timeout": scaled(0.2), "connect_timeout": scaled(1.0)}


async def until(events: EventStream, kind: type[E], timeout: float = WAIT_LIMIT) -> E:
    """Return the next event of this kind; others on the way are skipped."""
    async with asyncio.timeout(timeout):
        while True:
            event = await anext(events)
            if isinstance(event, kind):
                return event


class SecretsHarness:
    """A server behind a proxy, a way to give a listener the password, and a detector."""

    def __init__(
        self,
        server: PostgresServer,
        proxy: FaultProxy,
        root: Connection,
        detector: SecretDetector,
        connects_by: str,
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.root = root
        self.detector = detector
        self.connects_by = connects_by

    def dsn(self, *, port: int = 0, database: str = "postgres", password: str = PASSWORD) -> str:
        """Return a URL with a password, through the proxy unless another port is given."""
        port = port or self.proxy.port
        return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{port}/{database}"

    def listener(
        self,
        *,
        port: int = 0,
        database: str = "postgres",
        password: str = PASSWORD,
        **options: Any,
    ) -> Listener:
        """Make a listener that is given the password as the test says."""
        options = {"backoff": SHORT_BACKOFF, "on_event": self.detector.record, **options}
        if self.connects_by == "keywords":
            options |= {"user": USER, "password": password, "database": database}
            return Listener(host="127.0.0.1", port=port or self.proxy.port, **options)
        dsn = self.dsn(port=port, database=database, password=password)
        if self.connects_by == "dsn":
            return Listener(dsn, **options)
        settings = {"application_name": OURS}
        connect = functools.partial(asyncpg.connect, dsn, server_settings=settings)
        return Listener(connect=connect, **options)

    def listener_with_short_start(self, **options: Any) -> Listener:
        """Make a listener with a short ``start_timeout``."""
        return self.listener(**{**SOON, **options})

    async def fails_to_start(
        self,
        listener: Listener | Callable[[], Listener],
        cause: type[Exception] | UnionType | None = None,
    ) -> ConnectError:
        """Make and start a listener; one of both has to fail for this cause. Hear what it says."""
        with pytest.raises(ConnectError) as refused:
            await self._start(listener)
        self.detector.record(refused.value)
        if cause is not None:
            assert isinstance(refused.value.__cause__, cause)
        return refused.value

    async def _start(self, listener: Listener | Callable[[], Listener]) -> None:
        made = listener if isinstance(listener, Listener) else listener()
        self.detector.record(made)
        try:
            await made.start()
        finally:
            self.detector.record(made, made.stats())

    @asynccontextmanager
    async def altered(self, option: str, usual: str) -> AsyncGenerator[None]:
        """Change an option of the listener's role for a while."""
        await self.root.execute(f"ALTER ROLE {USER} {option}")
        try:
            yield
        finally:
            await self.root.execute(f"ALTER ROLE {USER} {usual}")

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncGenerator[RunningListener]:
        """Run a listener with a handler and a stream, which have received the payload."""
        listener = self.listener(**options)
        run = RunningListener(self, listener)
        async with listener:
            run.subscription = await listener.listen("orders", run.inbox.put_nowait)
            async with listener.stream("orders", gaps=True) as run.stream:
                await run.delivers()
                yield run
                await run.record_everything()
        self.detector.record(listener, listener.stats())

    def check(self) -> None:
        """Check that texts were collected, and that none contains a secret."""
        assert self.detector.texts
        assert not self.detector.containing(*SECRETS)


class RunningListener:
    """A listener that runs."""

    def __init__(self, harness: SecretsHarness, listener: Listener) -> None:
        self.listener = listener
        self.events = listener.events()
        self.inbox = asyncio.Queue[Notification[str]]()
        self.subscription: Subscription | None = None
        self.stream: Stream[Any] | None = None
        self._harness = harness

    async def delivers(self) -> None:
        """Send the payload, and collect the notification that brings it."""
        await self.notify("orders")
        async with asyncio.timeout(WAIT_LIMIT):
            notification = await self.inbox.get()
        assert notification.payload == PAYLOAD
        self._harness.detector.record(notification)

    async def notify(self, channel: str, times: int = 1) -> None:
        """Send the payload, on a connection of no listener, and commit it at once."""
        query = (
            "SELECT count(pg_notify($1, $2 || repeat('.', n - 1))) FROM generate_series(1, $3) n"
        )
        await self._harness.root.execute(query, channel, PAYLOAD, times)

    async def reconnects(self) -> None:
        """Wait until it has reconnected, and see it deliver."""
        await until(self.events, Reconnected)
        await self.delivers()

    async def kill(self) -> None:
        """Let the server end the listening session."""
        pid = (await self.listener.health(server=False))["backend_pid"]
        await self._harness.root.execute("SELECT pg_terminate_backend($1)", pid)
        await until(self.events, ConnectionLost)

    async def record_everything(self) -> None:
        """Collect every public repr, state, statistic and health report."""
        record, listener = self._harness.detector.record, self.listener
        record(listener, listener.state, listener.channels, listener.stats(), self.events)
        record(await listener.health(server=False), await listener.health())
        for public in (self.subscription, self.stream):
            if public is not None:
                record(public, public.stats())

    async def raises(self, kind: type[BaseException], call: Awaitable[object]) -> None:
        """Collect what a call raises."""
        with pytest.raises(kind) as raised:
            await call
        self._harness.detector.record(raised.value)
