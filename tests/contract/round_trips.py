"""How many statements went to the server: counted, not believed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncnotify.testing.fake import FakeServer
    from asyncnotify.testing.proxy import Direction, FaultProxy, ProxiedConnection

READY_FOR_QUERY: Final = b"Z\0\0\0\5"


class RoundTrips:
    """A count of statements."""

    def __init__(self) -> None:
        self.count: int = 0


@contextmanager
def round_trips(proxy: FaultProxy, fake: FakeServer | None) -> Generator[RoundTrips]:
    """Count how often a server behind a proxy is ready again, or what the one in memory is told."""
    trips = RoundTrips()

    def note(connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        if direction == "to_client":
            trips.count += data.count(READY_FOR_QUERY)

    if fake is None:
        stop = proxy.tap(note)
        yield trips
        stop()
    else:
        before = fake.commands
        yield trips
        trips.count = fake.commands - before
