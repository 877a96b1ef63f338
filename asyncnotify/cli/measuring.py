"""Measuring a server: round trip, notifications in a second, fan-out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import secrets
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncnotify import ConnectionLostError, Gap, GapReason, Listener, Notifier
from asyncnotify.cli.connecting import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from typing import Any, TypeAlias

    from asyncnotify import Stream

    Advance: TypeAlias = Callable[[str, float], None]

__all__ = ["PARTS", "Figures", "measure"]

PARTS: Final = ("round trip", "notifications", "fan-out")

_BATCH: Final = 1_000
_START_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What was measured.

    Attributes:
        server: The server and its version.
        size: Bytes of a payload.
        round_trips: Seconds of each, sorted.
        notifications_per_second: Sent, and received by one listener.
        listeners: How many there were in the fan-out.
        fan_out_per_second: Received by all listeners together.
    """

    server: str
    size: int
    round_trips: Sequence[float]
    notifications_per_second: float
    listeners: int
    fan_out_per_second: float

    @property
    def median_ms(self) -> float:
        """Milliseconds."""
        return statistics.median(self.round_trips) * 1_000

    @property
    def p99_ms(self) -> float:
        """Milliseconds within which 99 of 100 round trips came back."""
        return self.round_trips[math.ceil(len(self.round_trips) * 0.99) - 1] * 1_000

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "server": self.server,
            "payload_bytes": self.size,
            "round_trip_ms": {
                "count": len(self.round_trips),
                "median": round(self.median_ms, 3),
                "p99": round(self.p99_ms, 3),
            },
            "notifications_per_second": round(self.notifications_per_second),
            "fan_out": {
                "listeners": self.listeners,
                "received_per_second": round(self.fan_out_per_second),
            },
        }


async def measure(
    dsn: str | None, seconds: float, listeners: int, size: int, advance: Advance
) -> Figures:
    """
    Measure a server, on a channel of a random name.

    Args:
        dsn: The server.
        seconds: For each of the three parts.
        listeners: How many receive in the fan-out.
        size: Bytes of a payload.
        advance: Called with the name of a part, and the seconds since the call before.

    Raises:
        ConnectError: There is no connection.
        ConnectionLostError: A connection was lost meanwhile.
    """
    async with connected(dsn) as connection:
        version = connection.get_server_version()
    server = f"PostgreSQL {version.major}.{version.minor}"
    channel = f"asyncnotify_bench_{secrets.token_hex(4)}"
    payloads = (f"{number:08}".ljust(size, "x") for number in itertools.count())
    async with contextlib.AsyncExitStack() as stack:
        notifier = await stack.enter_async_context(Notifier(dsn, start_timeout=_START_TIMEOUT))
        sending = _Sending(notifier, channel, payloads, seconds, advance)
        first = await stack.enter_async_context(_receiving(dsn, channel))
        trips = await sending.round_trips(first)
        rate = await sending.rate(PARTS[1], [first])
        others = [
            await stack.enter_async_context(_receiving(dsn, channel)) for _ in range(listeners - 1)
        ]
        fan_out = await sending.rate(PARTS[2], [first, *others])
    return Figures(
        server=server,
        size=size,
        round_trips=sorted(trips),
        notifications_per_second=rate,
        listeners=listeners,
        fan_out_per_second=fan_out,
    )


@contextlib.asynccontextmanager
async def _receiving(dsn: str | None, channel: str) -> AsyncGenerator[_Receiver]:
    async with (
        Listener(dsn, start_timeout=_START_TIMEOUT) as listener,
        listener.stream(channel, gaps=True) as stream,
    ):
        yield _Receiver(stream)


class _Receiver:
    """Counts what a stream brings."""

    def __init__(self, stream: Stream[Any]) -> None:
        self._batches = stream.batches()
        self._left = 0

    async def take(self, count: int) -> None:
        """Return once so many more have arrived."""
        self._left += count
        while self._left > 0:
            for item in await anext(self._batches):
                if not isinstance(item, Gap):
                    self._left -= 1
                elif item.reason is not GapReason.START:
                    msg = f"notifications were lost while they were measured ({item.reason})"
                    raise ConnectionLostError(msg)


class _Sending:
    """Sends for some seconds, and tells how fast all of it is received."""

    def __init__(
        self,
        notifier: Notifier,
        channel: str,
        payloads: Iterator[str],
        seconds: float,
        advance: Advance,
    ) -> None:
        self._notifier = notifier
        self._channel = channel
        self._payloads = payloads
        self._seconds = seconds
        self._advance = advance

    def _times(self, part: str) -> Iterator[float]:
        """Yield the time until the seconds are over, and tell it."""
        began = last = time.monotonic()
        while True:
            now = time.monotonic()
            self._advance(part, min(now, began + self._seconds) - last)
            last = now
            yield now
            if now - began >= self._seconds:
                return

    async def round_trips(self, receiver: _Receiver) -> list[float]:
        """Return the seconds of each round trip."""
        trips: list[float] = []
        for _ in self._times(PARTS[0]):
            began = time.monotonic()
            await self._notifier.notify(self._channel, next(self._payloads))
            await receiver.take(1)
            trips.append(time.monotonic() - began)
        return trips

    async def rate(self, part: str, receivers: Sequence[_Receiver]) -> float:
        """Return how many all receivers together receive in a second."""
        began, sent = time.monotonic(), 0
        in_flight = 0
        for _ in self._times(part):
            sending = asyncio.ensure_future(self._send_batch())
            try:
                await self._received(receivers, in_flight)
            finally:
                await sending
            sent, in_flight = sent + _BATCH, _BATCH
        await self._received(receivers, in_flight)
        return sent * len(receivers) / (time.monotonic() - began)

    async def _send_batch(self) -> None:
        payloads = itertools.islice(self._payloads, _BATCH)
        await self._notifier.notify_many([(self._channel, payload) for payload in payloads])

    async def _received(self, receivers: Sequence[_Receiver], count: int) -> None:
        for receiver in receivers:
            await receiver.take(count)
