"""A network that drops everything without an error, as routers and cables do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import (
    ClosedError,
    ConnectionLost,
    ConnectTimeoutError,
    Keepalive,
    Listener,
    Reconnected,
    State,
)
from tests.network.observed_listener import SHORT_BACKOFF, Stopwatch, observing
from tests.support.machine import scaled

if TYPE_CHECKING:
    from tests.network.conftest import Remote

WAIT_LIMIT = scaled(10.0)


async def test_r2_a_black_hole_is_found_by_the_heartbeat(remote: Remote) -> None:
    """Silence for an interval and no answer within the timeout is a loss; then it comes back."""
    listener = Listener(
        remote.dsn,
        heartbeat=0.3,
        heartbeat_timeout=scaled(0.3),
        connect_timeout=scaled(0.5),
        keepalive=None,
        backoff=SHORT_BACKOFF,
    )
    async with observing(listener, remote.local) as observed:
        await observed.delivers()
        remote.cut()
        cut = Stopwatch()
        lost = await observed.until(ConnectionLost)
        assert cut.seconds < 0.3 + scaled(0.3 + 0.5)
        assert isinstance(lost.cause, TimeoutError)
        remote.heal()
        await observed.until(Reconnected)
        await observed.delivers()


async def test_r38_without_a_heartbeat_tcp_finds_the_black_hole(remote: Remote) -> None:
    """With keepalive alone the loss is noticed, and without either it never would be."""
    keepalive = Keepalive(idle=1, interval=1, count=2, user_timeout=2)
    limits: dict[str, Any] = {
        "heartbeat": None,
        "connect_timeout": scaled(0.5),
        "backoff": SHORT_BACKOFF,
    }
    quiet = Listener(remote.dsn, keepalive=keepalive, **limits)
    unprotected = Listener(remote.dsn, keepalive=None, close_timeout=0.1, **limits)
    async with observing(quiet, remote.local) as observed, observing(unprotected, remote.local):
        remote.cut()
        await observed.until(ConnectionLost)
        assert quiet.state is State.RECONNECTING
        assert unprotected.state is State.CONNECTED
        remote.heal()
        await observed.until(Reconnected)
        await observed.delivers()


async def test_r31_a_host_that_never_answers_holds_nobody_up(remote: Remote) -> None:
    """start() raises in time, and aclose() ends it, while the SYN goes unanswered."""
    remote.cut()
    began = Stopwatch()
    with pytest.raises(ConnectTimeoutError):
        await Listener(remote.dsn, start_timeout=scaled(0.3)).start()
    assert began.seconds < scaled(0.3 + 1.0)

    listener = Listener(remote.dsn)
    starting = asyncio.create_task(listener.start())
    async with asyncio.timeout(WAIT_LIMIT):
        while not remote.dialled:  # noqa: ASYNC110 - the kernel does not call us
            await asyncio.sleep(0)
    began = Stopwatch()
    await listener.aclose(timeout=0.3)
    assert began.seconds < 0.3 + scaled(1.0)
    with pytest.raises(ClosedError):
        await starting
