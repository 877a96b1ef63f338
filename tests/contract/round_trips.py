"""How many statements went over the wire: counted, not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from asyncnotify.testing.proxy import Direction, FaultProxy, ProxiedConnection

READY_FOR_QUERY: Final = b"Z\0\0\0\5"


class RoundTrips:
    """Counts how often a server behind a proxy says that it is ready, while it is entered."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.count = 0

    def __enter__(self) -> Self:
        self._stop = self._proxy.tap(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _note(self, connection: ProxiedConnection, direction: Direction, data: bytes) -> None:
        if direction == "to_client":
            self.count += data.count(READY_FOR_QUERY)
