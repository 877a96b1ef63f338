"""The server: who is connected, what has been committed, and how it misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from asyncnotify import Notification
from asyncnotify.log import NotInstalledError
from asyncnotify.testing._fake.locks import Locks
from asyncnotify.testing._fake.log_store import LogStore
from asyncnotify.testing._fake.outbox import call_in
from asyncnotify.testing._fake.rules import folded
from asyncnotify.testing._fake.sending import SendingFaults
from asyncnotify.testing._fake.xids import Xids

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from collections.abc import Set as AbstractSet

    from asyncnotify.log.sources import GivenSettings
    from asyncnotify.testing._fake.failures import RefusedError

FIRST_PID: Final = 1_000

KEPT: Final = 100_000
"""How many committed notifications are kept for the tests that look at them."""


class Client(Protocol):
    """A connection, as the server sees it. The server calls it under its lock."""

    pid: int

    @property
    def channels(self) -> AbstractSet[str]:
        """What it listens on."""
        ...

    def send(self, pid: int, channel: str, payload: str) -> None:
        """Send a notification to the client."""

    def forget_channels(self) -> None:
        """Listen on nothing."""

    def pause(self) -> None:
        """Send nothing: the server is frozen."""

    def resume(self) -> None:
        """Send again."""

    def cut(self, notice: str | None) -> None:
        """Cut the connection."""


class State:
    """Shared by all connections; every change is made under its lock."""

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.lock: threading.RLock = threading.RLock()
        self.clients: dict[int, Client] = {}
        self.committed: deque[Notification[str]] = deque(maxlen=KEPT)
        self.delay: float = 0.0
        self.frozen: bool = False
        self.sending: SendingFaults = SendingFaults()
        self.commands: int = 0
        self.dialling: int = 0
        self.refused: type[RefusedError] | None = None
        self.passed: timedelta = timedelta(0)
        self.xids: Xids = Xids(self.now)
        self.locks: Locks = Locks()
        self._stores: dict[str, LogStore] = {}
        self._held_rows: dict[tuple[object, ...], int] = {}
        self._pids = itertools.count(FIRST_PID)
        self.own_pid: int = self.new_pid()
        self._held: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def new_pid(self) -> int:
        """Return the pid of a new backend: no two have the same."""
        return next(self._pids)

    @contextlib.contextmanager
    def connecting(self) -> Generator[None]:
        """Count a connection that is being made, while the context lasts."""
        self._count_dialling(1)
        try:
            yield
        finally:
            self._count_dialling(-1)

    def _count_dialling(self, change: int) -> None:
        with self.lock:
            self.dialling += change
            self.note_change()

    def count_command(self) -> None:
        """A connection gives a command."""
        with self.lock:
            self.commands += 1
            self.note_change()

    def enter(self, client: Client) -> None:
        """A client is connected."""
        with self.lock:
            self.clients[client.pid] = client
            self.note_change()

    def leave(self, client: Client) -> None:
        """A client is gone."""
        with self.lock:
            self.clients.pop(client.pid, None)
            self.note_change()

    @property
    def channels(self) -> frozenset[str]:
        """What anyone listens on."""
        with self.lock:
            return frozenset(name for client in self.clients.values() for name in client.channels)

    @property
    def listening(self) -> list[Client]:
        """Those who listen, the oldest first."""
        with self.lock:
            return [client for client in self.clients.values() if client.channels]

    def commit(self, pid: int, pairs: Iterable[tuple[str, str]]) -> None:
        """Put the notifications of one transaction into the queue, which everyone reads."""
        with self.lock:
            clients = list(self.clients.values())
            for channel, payload in folded(pairs):
                self.committed.append(Notification(channel, payload, pid))
                for client in clients:
                    if channel in client.channels:
                        client.send(pid, channel, payload)
            self.note_change()

    def process(self, command: Callable[[], None]) -> None:
        """Run a command of a client; while the server is frozen, later."""
        with self.lock:
            if self.frozen:
                self._held.append(command)
            else:
                command()

    def freeze(self) -> None:
        """Process nothing from here on, and send nothing."""
        with self.lock:
            self.frozen = True
            for client in self.clients.values():
                client.pause()

    def thaw(self) -> None:
        """Go on, with what has come meanwhile."""
        with self.lock:
            self.frozen = False
            held, self._held = self._held, []
            for command in held:
                command()
            for client in self.clients.values():
                client.resume()
            self.note_change()

    def lose(self, pids: Iterable[int], notice: str | None) -> None:
        """Cut these connections."""
        with self.lock:
            lost = [client for pid in pids if (client := self.clients.pop(pid, None)) is not None]
            for client in lost:
                client.cut(notice)
            self.note_change()

    # -- logs ---------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the time by the server's clock."""
        return datetime.now(UTC) + self.passed

    def store(self, log: str) -> LogStore:
        """Return a log; raise NotInstalledError if there is none of this name."""
        store = self._stores.get(log)
        if store is None:
            raise NotInstalledError(log)
        return store

    def install(self, log: str, given: GivenSettings) -> None:
        """Make a log, if it is not there."""
        if log in self._stores:
            self._stores[log].install(given)
        else:
            self._stores[log] = LogStore(self, log, given.for_log(log, None))

    def hold_row(self, row: tuple[object, ...], pid: int) -> None:
        """Let nobody else change the row of a consumer until a transaction ends."""
        self._held_rows[row] = pid

    def holder_of(self, row: tuple[object, ...], pid: int) -> int | None:
        """Return which other backend holds a row, or one whose name begins so."""
        held = self._held_rows.items()
        return next((one for key, one in held if key[: len(row)] == row and one != pid), None)

    def release_rows(self, pid: int) -> None:
        """Let the rows be changed that a backend holds: its transaction has ended."""
        self._held_rows = {row: holder for row, holder in self._held_rows.items() if holder != pid}

    # -- waiting ------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once this is true; it is looked at after every change."""
        while True:
            with self.lock:
                if condition():
                    return
                changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(changed)
            await changed

    def note_change(self) -> None:
        """Wake those who wait for something. Under the lock."""
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            call_in(changed.get_loop(), _wake, changed)


def _wake(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
