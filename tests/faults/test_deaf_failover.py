"""A failover to a server that does not know LISTEN: subscriptions wait for one that does."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import asyncpg
import pytest

from asyncnotify import ExponentialBackoff, Gap, GapReason, Listener, ListenTimeoutError, State
from tests.support.machine import scaled

WAIT_LIMIT = scaled(10.0)  # seconds until a fact that must come has come


class Changing(asyncpg.Connection):
    """Does not know LISTEN while another server is in the place of the first."""

    is_replaced = False

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Let the server refuse a statement in place of LISTEN."""
        query = "LISSEN" if self.is_replaced and query.startswith("LISTEN") else query
        return await super().execute(query, *args, **kwargs)


async def test_r54_a_server_that_does_not_listen_any_more_ends_no_subscription(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wrong failover they wait for what was there before, and then get their Gap."""
    states: asyncio.Queue[State] = asyncio.Queue()
    listener = Listener(
        connect=functools.partial(
            asyncpg.connect,
            dsn,
            connection_class=Changing,
            server_settings={"application_name": "asyncnotify"},
        ),
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
