"""A log on the server in memory, for tests that know a server by its connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from asyncnotify.log._ports import LogSession, Statement
    from asyncnotify.testing.fake import FakeServer, FakeTransaction


NO_SQL: Final = "there is no SQL here: mark the test needs_server"


class FakeConnection:
    """
    Another client, that can do the few things that these tests ask of a connection.

    Attributes:
        fake: The server.
    """

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self._log = Log("orders", fake.dsn)
        self._session: LogSession | None = None
        self._transaction: FakeTransaction | None = None
        self._pid = 0

    # -- what the tests ask by SQL of a real server -------------------------------------------

    async def append(self, *payloads: str, channel: str) -> None:
        """Append events, in the transaction that is open, or each in one of its own."""
        for payload in payloads:
            if self._transaction is not None:
                await self._log.append(channel, payload, connection=self._transaction)
            else:
                async with self.fake.transaction() as transaction:
                    await self._log.append(channel, payload, connection=transaction)

    async def fetch(self, statement: Statement | str, /, *arguments: Any) -> Sequence[Any]:
        """Ask as a log does, on a session of its own."""
        if isinstance(statement, str):
            pytest.fail(NO_SQL)
        if self._session is None:
            self._session = await self._log._sessions.open()  # noqa: SLF001 - it has no other
        return await self._session.fetch(statement, *arguments)

    async def tick(self) -> None:
        """Take a tick."""
        async with Log("orders", self.fake.dsn) as log:
            await log.status()

    async def place(self, consumer: str) -> int:
        """Return the id behind which the consumer's cursor stands."""
        async with Log("orders", self.fake.dsn) as log:
            status = await log.status()
        return next(one.position.id for one in status.consumers if one.name == consumer)

    async def pause(self, seconds: float) -> None:
        """Do nothing for so long, as pg_sleep() does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()

    def times_taken(self, consumer: str) -> int:
        """Return how often a session has begun to serve the consumer."""
        store = self.fake._state.store("orders")  # noqa: SLF001 - nothing else tells
        return next(c.token for c in store.consumers._of(consumer))  # noqa: SLF001 - as above

    def grow_older(self, days: float) -> None:
        """Make all events so many days older."""
        self.fake.pass_time(timedelta(days=days))

    def kill_others(self) -> None:
        """End all sessions of logs and listeners."""
        self.fake.lose(notice="terminating connection due to administrator command")

    # -- as asyncpg's -------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        """Return a transaction, or a savepoint in the one that is open."""
        return Transaction(self)

    def begun(self) -> AbstractContextManager[object]:
        """Return the context of a transaction, or of a savepoint; entered it is open."""
        if self._transaction is not None:
            return self._transaction.savepoint()
        self._transaction = self.fake.transaction()
        self._pid = self._transaction.pid
        return self._transaction

    def ended(self, context: AbstractContextManager[object]) -> None:
        """Note the end of a transaction, unless this was a savepoint."""
        if context is self._transaction:
            self._transaction = None

    def get_server_pid(self) -> int:
        """Return the backend pid of the last transaction."""
        return self._pid

    async def close(self) -> None:
        """Close what has been opened."""
        if self._session is not None:
            self._session.terminate()
        await self._log.aclose()

    def __getattr__(self, name: str) -> Any:
        if name in {"execute", "fetchval", "fetchrow"}:
            pytest.fail(NO_SQL)
        raise AttributeError(name)


class _RollbackError(Exception):
    """Ends a transaction, or a savepoint, without its work."""


class Transaction:
    """A transaction as asyncpg has them."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection
        self._context: AbstractContextManager[object] | None = None

    async def start(self) -> None:
        """Begin."""
        self._context = self._connection.begun()
        self._context.__enter__()

    async def commit(self) -> None:
        """Commit."""
        self._end(None)

    async def rollback(self) -> None:
        """Roll back."""
        self._end(_RollbackError())

    def _end(self, error: BaseException | None) -> None:
        context = self._context
        assert context is not None
        self._connection.ended(context)
        try:
            context.__exit__(type(error) if error else None, error, None)
        except _RollbackError:
            return

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, where: object) -> None:
        await (self.commit() if error is None else self.rollback())
