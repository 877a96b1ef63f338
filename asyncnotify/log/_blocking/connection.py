"""The connection that a transactional handler gets in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg

from asyncnotify import ClosedError
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._owner import OfOneProcess
from asyncnotify._tasks import cancel

T = TypeVar("T")

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]
else:
    Connection = asyncpg.Connection  # at run time the class takes no argument


class BlockingConnection(OfOneProcess):
    """
    The connection on which a handler of a BlockingLog writes, with ``transactional=True``.

    As asyncpg's: parameters are written ``$1``, ``$2``, …, and rows are records. What it executes
    is committed together with the consumer's cursor, when the handler returns. Afterwards it is of
    no use. ``BlockingLog.append(…, connection=…)`` takes it, so that events are part of the
    transaction.

    Every method raises what the server says as ``asyncpg.PostgresError``; ClosedError once the
    handler has returned, or has been given up; and WrongLoopError in the thread of an event loop.
    """

    def __init__(self, gateway: Gateway, connection: Connection) -> None:
        self._gateway = gateway
        self._connection = connection
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_over = False

    def execute(self, query: str, *args: object) -> str:
        """
        Execute a statement, or several without arguments; return the status of the last.

        Raises:
            asyncpg.PostgresError: The server refused the statement.
            Exception: As of ``call()``.
        """
        return self.call(lambda connection: connection.execute(query, *args))

    def executemany(self, query: str, args: Iterable[Sequence[object]]) -> None:
        """
        Execute a statement once for each sequence of arguments.

        Raises:
            asyncpg.PostgresError: The server refused the statement.
            Exception: As of ``call()``.
        """
        self.call(lambda connection: connection.executemany(query, args))

    def fetch(self, query: str, *args: object) -> list[Any]:
        """
        Return the rows of the answer.

        Raises:
            asyncpg.PostgresError: The server refused the statement.
            Exception: As of ``call()``.
        """
        return self.call(lambda connection: connection.fetch(query, *args))

    def fetchrow(self, query: str, *args: object) -> Any:  # noqa: ANN401 - a record of the driver's
        """
        Return the first row of the answer; None without any.

        Raises:
            asyncpg.PostgresError: The server refused the statement.
            Exception: As of ``call()``.
        """
        return self.call(lambda connection: connection.fetchrow(query, *args))

    def fetchval(self, query: str, *args: object) -> Any:  # noqa: ANN401 - of any type
        """
        Return the first value of the first row; None without any.

        Raises:
            asyncpg.PostgresError: The server refused the statement.
            Exception: As of ``call()``.
        """
        return self.call(lambda connection: connection.fetchval(query, *args))

    def call(self, function: Callable[[Connection], Awaitable[T]]) -> T:
        """
        Call a function with asyncpg's connection, in the event loop; return its result.

        Raises:
            ClosedError: The handler has returned, or has been given up.
            WrongLoopError: The call came from the thread of an event loop.
            Exception: What the function raised.
        """
        return self._gateway.call(lambda: self._called(function))

    async def _called(self, function: Callable[[Connection], Awaitable[T]]) -> T:
        if self._is_over:
            msg = "the transaction of this connection has ended, as the handler has"
            raise ClosedError(msg)
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return await function(self._connection)

    async def end(self) -> None:
        """Let it be used no more; cancel what a thread that was given up is doing with it."""
        self._is_over = True
        await cancel([*self._calls])
