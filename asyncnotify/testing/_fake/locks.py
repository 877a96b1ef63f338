"""Advisory locks of sessions, as PostgreSQL has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Locks:
    """Who holds which lock. Called under the server's lock."""

    def __init__(self) -> None:
        self._alone: dict[int, int] = {}
        self._shared: dict[int, list[int]] = {}

    def take(self, key: int, pid: int) -> bool:
        """Take a lock alone, if nobody else has it; return whether that was so."""
        return self._alone.setdefault(key, pid) == pid

    def release(self, key: int, pid: int) -> None:
        """Release a lock, if this backend has it alone."""
        if self._alone.get(key) == pid:
            del self._alone[key]

    def share(self, key: int, pid: int) -> None:
        """Take a lock together with others: nobody takes one of these alone."""
        self._shared.setdefault(key, []).append(pid)

    def stop_sharing(self, key: int, pid: int) -> None:
        """Release a lock that this backend has together with others."""
        if pid in (pids := self._shared.get(key, [])):
            pids.remove(pid)

    def release_all(self, pid: int) -> None:
        """Release what a backend has: its session has ended."""
        self._alone = {key: holder for key, holder in self._alone.items() if holder != pid}
        for pids in self._shared.values():
            pids[:] = [holder for holder in pids if holder != pid]

    def held(self, keys: set[int]) -> Iterator[tuple[int, int]]:
        """Yield the backend and the lock of each that is held, of these locks."""
        for key, pid in self._alone.items():
            if key in keys:
                yield pid, key
        for key in keys:
            for pid in self._shared.get(key, ()):
                yield pid, key
