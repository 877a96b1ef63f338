"""What the peers of the log have in common: payloads, and what they count."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from benchmarks.peers.protocol import Meter, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.protocol import Options

PAYLOAD: Final = """format('{"number": %s, "text": "%s"}', number, repeat('x', 60))"""
"""SQL of a payload, JSON of about 90 bytes, in which ``number`` counts."""

PORTION: Final = 10_000


def portions(template: str, count: int) -> Iterator[tuple[str, int, int]]:
    """Yield a statement for each portion, with its first and its last number."""
    sql = template.replace("<payload>", PAYLOAD)
    for first in range(1, count + 1, PORTION):
        yield sql, first, min(count, first + PORTION - 1)


class Progress:
    """Counts what has been consumed; measures from ``skip`` on, until it was ``count`` more."""

    def __init__(self, options: Options) -> None:
        self._skip = options.number("skip")
        self._count = options.number("count")
        self._received = 0
        self._began = 0
        self._meter: Meter | None = None

    def add(self, count: int) -> None:
        """Count what has come."""
        self._received += count
        if self._meter is None and self._received >= self._skip:
            self._began = self._received
            self._meter = Meter()

    @property
    def is_done(self) -> bool:
        """Whether all are there."""
        return self._received >= self._skip + self._count

    def tell(self) -> None:
        """Say what it took."""
        if self._meter is not None:
            say("done", received=self._received - self._began, **self._meter.read())


class Ages:
    """How old events are that carry the time of their append; the first ones do not count."""

    def __init__(self, options: Options) -> None:
        self._skip = options.number("skip")
        self._count = options.number("count")
        self._ages: list[int] = []
        self.all_here: asyncio.Event = asyncio.Event()

    def note(self, text: str) -> None:
        """Note an event."""
        self._ages.append(time.monotonic_ns() - int(text))
        if len(self._ages) >= self._skip + self._count:
            self.all_here.set()

    def tell(self) -> None:
        """Say how old they were."""
        say("done", ages=self._ages[self._skip :])
