"""Sessions of the fake server for a log, behind the protocols of ``asyncnotify.log.sources``."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import ConnectError, ConnectionLostError
from asyncnotify.testing._fake.connection import FakeConnection
from asyncnotify.testing._fake.failures import NotOnFakeError, RefusedError
from asyncnotify.testing._fake.log_rows import Row, answer, row
from asyncnotify.testing._fake.source import dialled
from asyncnotify.testing._fake.transaction import HandlersTransaction, OpenTransaction, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from uuid import UUID

    from asyncnotify.log.sources import Entry, GivenSettings, Statement
    from asyncnotify.testing._fake.log_store import LogStore, Verb
    from asyncnotify.testing._fake.state import State

_OF_A_BUCKET: Final = {"take_consumer", "commit", "bury", "hold_and_mark"}
_OF_A_CONSUMER: Final = {"seek", "pause", "drop"}


class FakeLogSession(FakeConnection):
    """
    A session of a log.

    Args:
        state: The server.
        log: The name of the log.
        timeout: Seconds in which the server has to answer each statement.
    """

    def __init__(self, state: State, log: str, timeout: float) -> None:
        super().__init__(state, timeout)
        self._log = log
        self._transaction: HandlersTransaction | None = None
        self._is_marked = False
        self._verbs: dict[str, Verb] = {
            "take_consumer": self._take,
            "unlock": partial(self._locked, state.locks.release),
            "lock_shared": partial(self._locked, state.locks.share),
            "unlock_shared": partial(self._locked, state.locks.stop_sharing),
            "look": self._look,
            "hold_and_mark": self._hold,
            "holder": self._holder,
            "commit_in_marked": self._commit_in_marked,
            "discard_and_mark": self._discard,
            "is_marked": lambda: answer(self._transaction is not None and self._is_marked),
            "wake": self._wake,
            "oldest_writer": lambda: self.state.xids.oldest(self.pid),
        }

    @property
    def connection(self) -> Any:  # noqa: ANN401 - as the protocol
        """What a transactional handler is called with: ``connection=`` takes it."""
        return self._transaction

    @property
    def _store(self) -> LogStore:
        return self.state.store(self._log)

    # -- the client's side --------------------------------------------------------------------

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Row]:  # noqa: ANN401 - as the protocol
        """Return the rows of the answer, once no other transaction holds what is to be changed."""
        verb, arguments = statement.verb, (*statement.given, *arguments)
        seconds = arguments[-1] if verb in _OF_A_CONSUMER else self.timeout
        deadline = None if seconds is None else self._loop.time() + seconds
        with _meaning(self._log):
            while True:
                rows = await self.command(lambda: self._do(verb, arguments))
                if rows is not None:
                    return rows
                if not await self._is_free(verb, arguments, deadline):
                    return answer(None)

    async def _is_free(self, verb: str, arguments: tuple[Any, ...], deadline: float | None) -> bool:
        """Return once no other transaction holds what is to be changed; False: not in time."""
        try:
            async with asyncio.timeout_at(deadline):
                await self.state.until(lambda: self.lost or not self._is_held(verb, arguments))
        except TimeoutError:
            if verb in _OF_A_CONSUMER:
                return False
            self.terminate()
            msg = f"the server did not answer within {self.timeout:.3g} s"
            raise TimeoutError(msg) from None
        except BaseException:
            self.terminate()
            raise
        return True

    async def execute(self, statement: Statement, /) -> None:
        """Do what needs no argument and has no answer."""
        await self.fetch(statement)

    async def append(self, entries: Sequence[Entry], *, wake: bool) -> None:
        """Append entries in one transaction."""
        with _meaning(self._log):
            await self.command(lambda: self._append(entries, wake=wake))

    async def begin(self) -> FakeSessionTransaction:
        """Begin a transaction."""
        with _meaning(self._log):
            await self.command(self._begin)
        return FakeSessionTransaction(self)

    async def install(self, given: GivenSettings) -> None:
        """Make the log, if it is not there."""
        with _meaning(self._log):
            await self.command(lambda: self.state.install(self._log, given))

    async def finish(self, how: Callable[[OpenTransaction, Work], None]) -> None:
        """End the transaction that is open, by this function of the server's."""
        transaction = self._transaction
        if transaction is not None:
            work = transaction.end()
            with _meaning(self._log):
                await self.command(lambda: self._finish(how, transaction, work))

    def terminate(self) -> None:
        """Drop the connection at once, with its locks and its transaction."""
        with self.state.lock:
            self._ended()
            super().terminate()

    # -- the server's side --------------------------------------------------------------------

    def cut(self, notice: str | None) -> None:
        """Cut the connection: its locks and its transaction are gone."""
        self._ended()
        super().cut(notice)

    def _ended(self) -> None:
        self.state.locks.release_all(self.pid)
        if self._transaction is not None:
            self._transaction.cut(None)

    def _do(self, verb: str, arguments: tuple[Any, ...]) -> list[Row] | None:
        """Do what is asked; return None if another transaction holds what is to be changed."""
        store = self._store
        if self._is_held(verb, arguments):
            return None
        do = self._verbs.get(verb) or store.verbs.get(verb)
        if do is None:
            what = f"verb {verb!r} of a log"
            raise NotOnFakeError(what)
        return do(*arguments)

    def _is_held(self, verb: str, arguments: tuple[Any, ...]) -> bool:
        parts = 1 if verb in _OF_A_CONSUMER else 2 if verb in _OF_A_BUCKET else 0
        row = (self._log, *arguments[:parts])
        return bool(parts) and self.state.holder_of(row, self.pid) is not None

    def _append(self, entries: Sequence[Entry], *, wake: bool) -> None:
        transaction = OpenTransaction(self.state, self.pid)
        transaction.begin()
        transaction.append(self._log, entries, wake=wake)
        transaction.commit_here(transaction.end())

    def _begin(self) -> None:
        self._transaction = HandlersTransaction(self.state, self.pid)
        self._transaction.begin()
        self._is_marked = False

    def _locked(self, how: Callable[[int, int], None], key: int) -> list[Row]:
        how(key, self.pid)
        return []

    def _wake(self) -> list[Row]:
        self._store.wake(self.pid)
        return []

    def _finish(
        self,
        how: Callable[[OpenTransaction, Work], None],
        transaction: HandlersTransaction,
        work: Work,
    ) -> None:
        how(transaction, work)
        self._transaction, self._is_marked = None, False

    def _mark(self) -> list[Row]:
        self._is_marked = self._transaction is not None
        return []

    def _take(self, consumer: str, bucket: int, lock: int) -> list[Row]:
        if not self.state.locks.take(lock, self.pid):
            return []
        rows = self._store.consumers.take(consumer, bucket, self.pid)
        if not rows:
            self.state.locks.release(lock, self.pid)
        return rows

    def _hold(self, consumer: str, bucket: int, token: int) -> list[Row]:
        is_own = self._store.consumers.owned(consumer, bucket, token) is not None
        if is_own:
            self.state.hold_row((self._log, consumer, bucket), self.pid)
        self._mark()
        return answer(is_own)

    def _holder(self, consumer: str) -> list[Row]:
        pid = self.state.holder_of((self._log, consumer), self.pid)
        if pid is None:
            return []
        return [row({"pid": pid, "is_serving": self._store.consumers.has_taken(consumer, pid)})]

    def _discard(self, consumer: str, uid: UUID) -> list[Row]:
        """Answer at once, and have it done when the transaction commits."""
        transaction, consumers = self._transaction, self._store.consumers
        self._mark()
        if transaction is not None:
            transaction.when_committed(lambda: consumers.discard(consumer, uid))
        return answer(consumers.has_letter(consumer, uid))

    def _commit_in_marked(self, *arguments: Any) -> list[Row]:  # noqa: ANN401 - as the protocol
        """Answer at once, and have it done when the transaction commits."""
        transaction = self._transaction
        if transaction is None or not self._is_marked:
            return answer(None)
        store = self._store
        transaction.when_committed(lambda: store.consumers.commit(*arguments))
        return store.consumers.has(*arguments[:3])

    def _look(self, consumer: str, keys: Sequence[str]) -> list[Row]:
        first = self._store.consumers.first_of(consumer)
        if first is None:
            return []
        held: list[tuple[int | None, int | None]] = [*self.state.locks.held(set(map(int, keys)))]
        common = {"is_paused": first.paused, "buckets": first.buckets, "own": self.pid}
        nobody = (None, None)
        return [row({**common, "pid": pid, "lock": key}) for pid, key in held or [nobody]]


class FakeSessionTransaction:
    """A transaction that is open on a session."""

    def __init__(self, session: FakeLogSession) -> None:
        self._session = session

    async def commit(self) -> None:
        """Commit."""
        await self._session.finish(lambda transaction, work: transaction.commit_here(work))

    async def rollback(self) -> None:
        """Roll back."""
        await self._session.finish(lambda transaction, _: transaction.roll_back_here())


class FakeLogSessions:
    """Opens sessions for a log."""

    keep: bool = True

    def __init__(self, state: State, log: str, connect_timeout: float, timeout: float) -> None:
        self._state = state
        self._log = log
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self.target: str = state.name

    async def open(self, *, own: bool = True) -> FakeLogSession:  # noqa: ARG002 - there is no pooler
        """Return a new session."""
        try:
            await dialled(self._state, self._connect_timeout)
        except (RefusedError, TimeoutError) as error:
            msg = f"cannot connect to {self.target}: {error}"
            raise ConnectError(msg) from error
        return FakeLogSession(self._state, self._log, self._timeout)

    async def close(self, session: FakeLogSession, /) -> None:
        """Close a session."""
        session.terminate()


@contextmanager
def _meaning(log: str) -> Generator[None]:
    """Turn what happens to a connection into what it means to the user of a log."""
    try:
        yield
    except TimeoutError as error:
        msg = f"log {log!r}: {error}, and the connection was dropped"
        raise ConnectionLostError(msg) from error
    except OSError as error:
        msg = f"the connection of log {log!r} was lost: {error}"
        raise ConnectionLostError(msg) from error
