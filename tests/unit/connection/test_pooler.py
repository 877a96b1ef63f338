from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncnotify._connection.pooler import PoolerCheck
from asyncnotify._errors import PoolerError
from asyncnotify._tasks import READ_GRACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify._connection.pooler import PoolerProbe

PROBE_TIMEOUT = 2.0
NOT_ARRIVED = PROBE_TIMEOUT + READ_GRACE


class OtherConnection:
    """The second connection: records how it was ended."""

    def __init__(self) -> None:
        self.closed = self.terminated = False
        self.told_pid = 8

    async def close(self, timeout: float) -> None:
        """End in good order."""
        self.closed = True

    def terminate(self) -> None:
        """End at once."""
        self.terminated = True


class FakePooler:
    """A session behind a pooler, and where a second connection comes from."""

    target = "joe@pooler"

    def __init__(self) -> None:
        self.delivers, self.defaults, self.pid = True, "the role's", 7
        self.behind_pooler = True
        self.error: Exception | None = None  # of the second connection
        self.connects = True
        self.refused: dict[str, Exception] = {}
        self.listening: list[str] = []
        self.others: list[OtherConnection] = []
        self.expected: dict[str, asyncio.Future[None]] = {}
        self.received = 0
        self.check = PoolerCheck(cast("Any", self), lambda: self.received)  # only what a check uses

    def expect(self, channel: str) -> asyncio.Future[None]:
        """Return a future that is done when a notification arrives."""
        return self.expected.setdefault(channel, asyncio.get_running_loop().create_future())

    async def listen(self, channels: Sequence[str]) -> dict[str, Exception]:
        """Listen, unless refused."""
        self.listening += channels
        return dict.fromkeys(channels, *self.refused.values()) if self.refused else {}

    async def set_own_defaults(self) -> None:
        """Note that the defaults are ours."""
        assert self.listening == []  # a session that waits may not answer any more
        self.defaults = "ours"

    async def reset_defaults(self) -> None:
        """Note that they are the role's again."""
        self.defaults = "the role's"

    async def unlisten(self, channels: Sequence[str]) -> None:
        """Listen no more."""
        for channel in channels:
            self.listening.remove(channel)

    async def notify_by_another(self, channel: str, *, timeout: float) -> OtherConnection:
        """Notify by a second connection, if there is one."""
        if not self.connects:
            await asyncio.get_running_loop().create_future()
        if self.error is not None:
            raise self.error
        self.others.append(OtherConnection())
        if self.delivers:
            self.expected[channel].set_result(None)
        return self.others[-1]

    async def begin(self) -> PoolerProbe:
        """Begin a probe."""
        return await self.check.begin(self._session())

    async def conclude(self, probe: PoolerProbe) -> bool:
        """Conclude it; return whether it was passed."""
        return await probe.conclude(self._session())

    def _session(self) -> Any:
        return SimpleNamespace(
            expect=self.expect,
            listen=self.listen,
            unlisten=self.unlisten,
            set_own_defaults=self.set_own_defaults,
            reset_defaults=self.reset_defaults,
            told_pid=self.pid,
            behind_pooler=self.behind_pooler,
        )


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


async def test_r39_a_pooler_that_delivers_passes() -> None:
    """Afterwards the channel of the probe is unlistened and the second connection closed."""
    pooler = FakePooler()
    probe = await pooler.begin()
    (channel,) = pooler.listening
    assert channel.startswith("asyncnotify_probe_")
    await probe.finished()
    assert await pooler.conclude(probe)
    assert pooler.listening == []
    assert pooler.defaults == "ours"
    assert [(o.closed, o.terminated) for o in pooler.others] == [(True, False)]


async def test_r39_a_pooler_that_does_not_deliver_is_refused() -> None:
    """After two seconds, with an error that names the pooler and the setting that helps."""
    pooler = FakePooler()
    pooler.delivers = False
    began, probe = now(), await pooler.begin()
    await probe.finished()
    assert now() - began == pytest.approx(NOT_ARRIVED)
    with pytest.raises(PoolerError, match=r"joe@pooler .* pool_mode = session"):
        await pooler.conclude(probe)
    assert pooler.listening == []
    assert pooler.defaults == "the role's"


async def test_a_server_that_does_not_deliver_is_not_called_a_pooler() -> None:
    """Where nothing shows that there is one, the error says what has been seen."""
    server = FakePooler()
    server.behind_pooler = server.delivers = False
    probe = await server.begin()
    await probe.finished()
    with pytest.raises(PoolerError, match=r"joe@pooler accepts .*did not arrive.*pool_mode = sess"):
        await server.conclude(probe)


@pytest.mark.parametrize(
    ("behind_pooler", "said"),
    [
        (True, "joe@pooler is a connection pooler; the listener could not check"),
        (False, "the connection to joe@pooler seems to deliver no notifications: "),
    ],
)
async def test_a_check_that_cannot_be_made_says_why_it_was_due(
    caplog: pytest.LogCaptureFixture, said: str, *, behind_pooler: bool
) -> None:
    """A pooler is named only where there is one."""
    pooler = FakePooler()
    pooler.behind_pooler, pooler.error = behind_pooler, OSError("no more connections")
    for _ in range(2):
        probe = await pooler.begin()
        await probe.finished()
        await pooler.conclude(probe)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().startswith(said)
    assert warning.getMessage().endswith("no more connections")


@pytest.mark.parametrize(
    ("after", "burst", "passes"),
    [
        (NOT_ARRIVED - 0.01, 0, True),  # the loop was blocked meanwhile
        (NOT_ARRIVED + 0.01, 0, False),
        (5 * NOT_ARRIVED, 6 * NOT_ARRIVED, True),
        (5 * NOT_ARRIVED, 3 * NOT_ARRIVED, False),
        (7 * NOT_ARRIVED, 8 * NOT_ARRIVED, False),
    ],
)
async def test_r4_a_notification_may_wait_behind_others(
    after: float, burst: float, *, passes: bool
) -> None:
    """As long as these arrive, and six times as long as else: a burst is no pooler."""
    pooler, loop = FakePooler(), asyncio.get_running_loop()
    pooler.delivers = False
    probe, began = await pooler.begin(), now()

    async def arrive() -> None:
        while now() - began < burst:
            pooler.received += 1
            await asyncio.sleep(0.1)

    def reach_us() -> None:
        for expected in pooler.expected.values():
            if not expected.done():
                expected.set_result(None)

    loop.call_later(after, reach_us)
    arriving = asyncio.create_task(arrive())
    await probe.finished()
    if passes:
        await pooler.conclude(probe)
    else:
        with pytest.raises(PoolerError):
            await pooler.conclude(probe)
    await arriving


async def test_r59_two_connections_with_one_backend_are_no_servers() -> None:
    """PostgreSQL never gives two the same pid: nothing is waited for, and the error says so."""
    pooler = FakePooler()
    pooler.delivers, pooler.pid = False, 8
    began, probe = now(), await pooler.begin()
    await probe.finished()
    assert now() == began
    with pytest.raises(PoolerError, match=r"the same backend \(8\), as PGlite"):
        await pooler.conclude(probe)
    assert [(o.closed, o.terminated) for o in pooler.others] == [(False, True)]


@pytest.mark.parametrize("connects", [True, False])
async def test_r39_without_a_second_connection_nothing_is_proven(
    caplog: pytest.LogCaptureFixture, *, connects: bool
) -> None:
    """An error or no answer is no refusal; one warning is logged, however often it is probed."""
    pooler = FakePooler()
    pooler.connects, pooler.error = connects, OSError("no more connections")
    for _ in range(2):
        began, probe = now(), await pooler.begin()
        await probe.finished()
        assert now() - began == (0.0 if connects else pytest.approx(PROBE_TIMEOUT))
        assert not await pooler.conclude(probe)
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert ("no more connections" if connects else "TimeoutError") in record.getMessage()


async def test_a_refusal_of_listen_is_raised() -> None:
    """The session cannot be checked, and no second connection is made."""
    pooler = FakePooler()
    pooler.refused = {"": PermissionError("standby")}
    with pytest.raises(PermissionError, match="standby"):
        await pooler.begin()
    assert pooler.others == []


async def test_r32_a_probe_that_is_given_up_leaves_no_second_connection() -> None:
    """Cancelling finished() cancels the probe, which terminates what it has opened."""
    pooler = FakePooler()
    pooler.delivers = False
    probe = await pooler.begin()
    waiting = asyncio.create_task(probe.finished())
    await asyncio.sleep(PROBE_TIMEOUT / 2)
    waiting.cancel()
    await asyncio.wait({waiting})
    await asyncio.sleep(0)
    assert probe.done
    assert [(o.closed, o.terminated) for o in pooler.others] == [(False, True)]


async def test_a_probe_calls_back_when_it_is_over() -> None:
    """So that its owner can go on with other things in the meantime."""
    pooler = FakePooler()
    probe, calls = await pooler.begin(), list[bool]()
    probe.add_done_callback(lambda: calls.append(probe.done))
    await asyncio.sleep(1)
    assert calls == [True]
