"""A connection of the driver's own kind, without a socket: the driver's side of a session."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asyncnotify._asyncpg.connection import HookedConnection

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeConnection(HookedConnection):
    """Answers each statement when the test says, with what the test says."""

    def __init__(self, *, encoding: str = "UTF8") -> None:
        # Not calling super().__init__() is the point: that wants a protocol and a transport
        self.pid = 7
        self.statements: list[str] = []
        self.answer_time: float | None = 0.0
        self.answer: Any = "SELECT 1"
        self.answers: list[Any] = []  # in place of the answer, at first; errors are raised
        self.errors: list[BaseException] = []  # in place of the next answers
        self._transport: Any = None
        self.closed = self.terminated = self.in_transaction = False
        self.encoding = encoding
        self.reported = {"default_transaction_read_only": "off", "in_hot_standby": "off"}
        self.termination_listeners: list[Callable[[Any], None]] = []
        self.log_listeners: list[Callable[[Any, Any], None]] = []

    def __del__(self) -> None:
        """Warn of nothing: there is no socket that could stay open."""

    def get_server_pid(self) -> int:
        """Return a backend pid."""
        return self.pid

    def is_closed(self) -> bool:
        """Return whether it was terminated, or closed."""
        return self.closed

    def is_in_transaction(self) -> bool:
        """Return what the test says."""
        return self.in_transaction

    def get_settings(self) -> Any:
        """Return the settings that matter, as a server from 14 on reports them."""
        return SimpleNamespace(client_encoding=self.encoding, **self.reported)

    def add_termination_listener(self, callback: Any) -> None:
        """Note whom to tell of the end."""
        self.termination_listeners.append(callback)

    def add_log_listener(self, callback: Any) -> None:
        """Note whom to tell of warnings."""
        self.log_listeners.append(callback)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Answer; None for the time is never."""
        self.statements.append(query)
        if self.answer_time is None:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.answer_time or 0.0)
        for _ in range(3):  # the way from the socket to whoever waits takes turns of the loop
            await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        answer = self.answers.pop(0) if self.answers else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def _execute(self, query: str, *args: Any, **options: Any) -> Any:
        """Answer what ``fetch()`` asks, as ``execute()`` does."""
        return await self.execute(query)

    async def prepare(self, query: str, **options: Any) -> Any:
        """Return what fetches the answer when asked."""

        async def fetch(*_arguments: object) -> Any:
            return await self.execute(query)

        return SimpleNamespace(fetch=fetch)

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye; may never return."""
        await self.execute("close")
        self.closed = True

    def terminate(self) -> None:
        """Be dropped."""
        self.closed = self.terminated = True
