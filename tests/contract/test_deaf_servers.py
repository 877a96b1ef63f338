"""Servers that speak the protocol of PostgreSQL, and do not listen: refused, and by name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    ConfigurationError,
    ExponentialBackoff,
    Gap,
    GapReason,
    Listener,
    ListenTimeoutError,
    State,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT_LIMIT = scaled(10.0)  # seconds until a fact that must come has come

pytestmark = pytest.mark.needs_server("driver")


class Changing(asyncpg.Connection):
    """Does not know LISTEN while another server is in the place of the first."""

    is_replaced = False

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Let the server refuse a statement in place of LISTEN."""
        query = "LISSEN" if self.is_replaced and query.startswith("LISTEN") else query
        return await super().execute(query, *args, **kwargs)


class Deaf(asyncpg.Connection):
    """Takes LISTEN for nothing, as some servers do that are not PostgreSQL."""

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Answer LISTEN as if it had been done."""
        query = "SELECT 1" if query.startswith("LISTEN") else query
        return await super().execute(query, *args, **kwargs)


class Refusing(asyncpg.Connection):
    """Does not know LISTEN."""

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Let the server refuse a statement in place of LISTEN."""
        query = "LISSEN" if query.startswith("LISTEN") else query
        return await super().execute(query, *args, **kwargs)


def connecting(dsn: str, kind: type[asyncpg.Connection]) -> Callable[[], Awaitable[Any]]:
    """Return a function that makes such connections."""

    async def connect() -> asyncpg.Connection:
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(dsn, connection_class=kind, server_settings=settings)

    return connect


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Deaf, "accepts LISTEN, but does not"), (Refusing, "does not support LISTEN")],
)
async def test_r54_a_server_that_does_not_listen_is_refused_at_once(
    dsn: str, kind: type[asyncpg.Connection], words: str
) -> None:
    """By start(), where a handler is registered, and by listen(), where none is."""
    registered = Listener(connect=connecting(dsn, kind))
    registered.on("orders")(print)
    with pytest.raises(ConfigurationError, match=words):
        await registered.start()
    async with Listener(connect=connecting(dsn, kind)) as listener:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=words):
                await listener.listen("orders", print)
        assert listener.channels == frozenset()


async def test_r54_a_server_that_does_not_listen_any_more_ends_no_subscription(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wrong failover they wait for what was there before, and then get their Gap."""
    states: asyncio.Queue[State] = asyncio.Queue()
    listener = Listener(
        connect=connecting(dsn, Changing),
        backoff=ExponentialBackoff(cap=0.1),
        on_event=lambda _: states.put_nowait(listener.state),
    )

    async def until(state: State) -> None:
        async with asyncio.timeout(WAIT_LIMIT):
            while await states.get() is not state:
                pass

    gaps: asyncio.Queue[Gap] = asyncio.Queue()
    async with listener, listener.stream("orders", gaps=True) as stream:
        subscription = await listener.listen("stock", print, resync=gaps.put_nowait)
        assert await anext(stream) == Gap("orders", GapReason.START)
        assert await gaps.get() == Gap("stock", GapReason.START)
        monkeypatch.setattr(Changing, "is_replaced", True)
        pid = (await listener.health(server=False))["backend_pid"]
        other = await asyncpg.connect(dsn)
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        await other.close()
        await until(State.DEGRADED)
        with pytest.raises(ListenTimeoutError):
            await listener.listen("more", print, timeout=0)
        monkeypatch.setattr(Changing, "is_replaced", False)
        await until(State.CONNECTED)
        async with asyncio.timeout(WAIT_LIMIT):
            for gap in (await anext(stream), await gaps.get()):
                assert isinstance(gap, Gap)
                assert gap.reason is GapReason.RECONNECT
        assert subscription.active
        assert listener.channels == {"orders", "stock"}
