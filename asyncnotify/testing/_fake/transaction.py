"""Transactions: what they have done is there for others when they commit."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self

from asyncnotify import ConnectionLostError
from asyncnotify.log.sources import LogTransaction
from asyncnotify.testing._fake.failures import NotOnFakeError
from asyncnotify.testing._fake.rules import check, folded
from asyncnotify.testing._fake.state import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from asyncnotify.log.sources import Entry
    from asyncnotify.testing._fake.log_rows import StoredEvent
    from asyncnotify.testing._fake.log_store import LogStore

_SQL: Final = "SQL"


class Work:
    """
    What a transaction has done since it began, or since a savepoint.

    Attributes:
        pairs: Notifications.
        events: Events, with the log to which they were appended.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.events: list[tuple[LogStore, StoredEvent]] = []

    def add(self, other: Work) -> None:
        """Add what was done after a savepoint."""
        self.pairs = folded(self.pairs + other.pairs)
        self.events += other.events


class OpenTransaction(LogTransaction):
    """
    A transaction on the fake server: ``notify(…, connection=)`` and ``append(…)`` take it.

    Of equal notifications one is delivered, as PostgreSQL does. There is no SQL.
    """

    def __init__(self, state: State, pid: int) -> None:
        self._state = state
        self.pid: int = pid
        self._work: Work | None = None
        self._xid: int | None = None
        self._effects: list[Callable[[], object]] = []
        self._lost = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid}>"

    def pg_notify(self, channel: str, payload: str = "") -> None:
        """
        Send a notification when the transaction commits.

        Raises:
            ChannelNameError: The name is not valid for a channel.
            PayloadError: The payload is not valid.
            ConnectionLostError: The connection has been lost: nothing will be sent.
            RuntimeError: The transaction has not begun, or has ended.
            asyncpg.PostgresError: The test has the server refuse it.
        """
        check(channel, payload)
        work = self._open()
        with self._state.lock:
            self._state.sending.check(channel, payload)
        work.pairs.append((channel, payload))

    def append(self, log: str, entries: Sequence[Entry], *, wake: bool) -> None:
        """
        Append what ``Log.append()`` has made of its arguments, when the transaction commits.

        Raises:
            NotInstalledError: The server has no such log.
            ConnectionLostError: The connection has been lost: nothing will be appended.
            RuntimeError: The transaction has not begun, or has ended.
        """
        work = self._open()
        with self._state.lock:
            store = self._state.store(log)
            if self._xid is None:
                self._xid = self._state.xids.begin(self.pid)
            events = store.order.made(self._xid, entries)
            self._state.xids.note_slots(self._xid, {event.slot for event in events})
        work.events += [(store, event) for event in events]
        if wake:
            work.pairs.append((store.wake_channel, ""))

    @contextlib.contextmanager
    def savepoint(self) -> Generator[None]:
        """Return a context that withdraws what was done in it if its block raises."""
        outer, self._work = self._open(), Work()
        try:
            yield
        except BaseException:
            self._work = outer
            raise
        outer.add(self._open())
        self._work = outer

    # -- as a program uses a connection of a driver's -----------------------------------------

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """
        Return a context that withdraws what was done in it if its block raises.

        Raises:
            ConnectionLostError: The connection has been lost.
            RuntimeError: The transaction has not begun, or has ended.
        """
        with self.savepoint():
            yield

    async def execute(self, *_: object, **__: object) -> NoReturn:
        """
        Execute nothing: there is no SQL.

        Raises:
            NotOnFakeError: Always.
        """
        raise NotOnFakeError(_SQL)

    async def executemany(self, *_: object, **__: object) -> NoReturn:
        """
        Execute nothing: there is no SQL.

        Raises:
            NotOnFakeError: Always.
        """
        raise NotOnFakeError(_SQL)

    async def fetch(self, *_: object, **__: object) -> NoReturn:
        """
        Execute nothing: there is no SQL.

        Raises:
            NotOnFakeError: Always.
        """
        raise NotOnFakeError(_SQL)

    async def fetchrow(self, *_: object, **__: object) -> NoReturn:
        """
        Execute nothing: there is no SQL.

        Raises:
            NotOnFakeError: Always.
        """
        raise NotOnFakeError(_SQL)

    async def fetchval(self, *_: object, **__: object) -> NoReturn:
        """
        Execute nothing: there is no SQL.

        Raises:
            NotOnFakeError: Always.
        """
        raise NotOnFakeError(_SQL)

    def error_for_missing(self, what: str) -> NotOnFakeError:
        """Return the error that says what is not here. Raises nothing: other parts raise it."""
        return NotOnFakeError(what)

    # -- its end ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin."""
        self._work = Work()

    def when_committed(self, effect: Callable[[], object]) -> None:
        """Have the server do this when the transaction commits."""
        self._effects.append(effect)

    def end(self) -> Work:
        """Let nothing be done in it any more; return what has been done."""
        work, self._work = self._work or Work(), None
        return work

    def commit_here(self, work: Work) -> None:
        """Let others see it. Under the server's lock."""
        for store, event in work.events:
            store.order.publish(event)
        for effect in self._effects:
            effect()
        self._state.xids.end(self._xid)
        self._state.release_rows(self.pid)
        self._state.commit(self.pid, work.pairs)

    def roll_back_here(self) -> None:
        """Undo it. Under the server's lock."""
        self._work = None
        self._state.xids.end(self._xid)
        self._state.release_rows(self.pid)
        self._state.note_change()

    def cut(self, notice: str | None) -> None:  # noqa: ARG002 - nobody here is told
        """Lose the connection, and the transaction with it. Under the server's lock."""
        self._lost = True
        self._state.xids.end(self._xid)
        self._state.release_rows(self.pid)

    def _open(self) -> Work:
        self._check_connected()
        if self._work is None:
            msg = "the transaction is not open: use it in its `with` block"
            raise RuntimeError(msg)
        return self._work

    def _check_connected(self) -> None:
        if self._lost:
            msg = "the connection of the transaction was lost: nothing was sent"
            raise ConnectionLostError(msg)


class HandlersTransaction(OpenTransaction):
    """What a transactional handler of a log gets as its connection."""


class FakeTransaction(OpenTransaction):
    """
    A transaction on a connection of its own: for ``connection=`` of ``notify()`` and ``append()``.

    It commits when its ``with`` or ``async with`` block ends, and rolls back if that raises. Of
    equal notifications one is delivered, as PostgreSQL does.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state, state.new_pid())
        self.channels: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        if self._work is not None:
            msg = "the transaction has begun already"
            raise RuntimeError(msg)
        self.begin()
        self._state.enter(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        work = self.end()
        self._state.leave(self)
        if exc_type is None:
            self._check_connected()
            self._check_room(work)
            self._state.process(lambda: self.commit_here(work))
        else:
            with self._state.lock:
                self.roll_back_here()

    def _check_room(self, work: Work) -> None:
        with self._state.lock:
            try:
                if work.pairs:
                    self._state.sending.check_room()
            except BaseException:
                self.roll_back_here()
                raise

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    # -- the server's side --------------------------------------------------------------------

    def send(self, pid: int, channel: str, payload: str) -> None:
        """Send a notification: none is listened for here."""

    def forget_channels(self) -> None:
        """Listen on nothing: it never does."""

    def pause(self) -> None:
        """Send nothing: nothing is ever sent."""

    def resume(self) -> None:
        """Send again."""
