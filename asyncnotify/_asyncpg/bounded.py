"""A connection each of whose commands has a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg.failures import escape_texts, is_refusal
from asyncnotify._asyncpg.sockets import keep_alive, server_settings
from asyncnotify._asyncpg.statements import only_in_session
from asyncnotify._errors import ConnectionLostError, describe_error
from asyncnotify._logs import Log
from asyncnotify._tasks import READ_GRACE, cancel

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import asyncpg

    from asyncnotify._keepalive import Keepalive

log = Log("connection")

_LONGEST_EXTENSION: Final = 6
"""Deadlines after which an answer is overdue even though notifications keep arriving."""


class BoundedConnection:
    """
    A connection each of whose commands has a deadline. One task at a time gives them.

    A command that does not meet its deadline, or is cancelled, terminates the connection:
    nobody could say what the server has made of it.
    """

    def __init__(self, connection: asyncpg.Connection[Any], *, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self.pid: int = connection.get_server_pid()

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        return bool(self._connection.is_closed())

    async def introduce(self, keepalive: Keepalive | None) -> bool:
        """
        Set keepalive at both ends; return whether the backend pid is the one we know.

        Another pid says that a pooler is in between: then nothing is set at the server. One
        round trip; a second one if a setting is refused.
        """
        if keepalive is not None:
            keep_alive(self._connection, keepalive)
        settings = server_settings(keepalive) if keepalive is not None else {}
        changes = ", ".join(
            f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in settings.items()
        )
        ours = only_in_session(self.pid)
        try:
            status = await self._command(self._connection.execute(f"SELECT {changes} {ours}"))
        except Exception as error:
            if not is_refusal(error):
                raise
            log.debug("keepalive of the server stays as it is: %s", describe_error(error))
            status = await self._command(self._connection.execute(f"SELECT 1 {ours}"))
        return bool(status == "SELECT 1")

    async def close(self, timeout: float) -> None:
        """Say goodbye to the server, for at most this many seconds; then terminate."""
        if self._connection.is_closed():
            return
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait({closing}, timeout=timeout)
        finally:
            self._connection.terminate()
            await cancel({closing}, READ_GRACE)

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""
        self._connection.terminate()

    async def _command(
        self, command: Coroutine[Any, Any, Any], timeout: float | None = None
    ) -> Any:
        task = asyncio.ensure_future(command)
        try:
            await self._answer(task, self._timeout if timeout is None else timeout)
        except BaseException:
            self.terminate()
            await cancel({task}, READ_GRACE)
            raise
        try:
            return task.result()
        except asyncio.CancelledError:
            msg = "the driver cancelled the command"
            raise ConnectionLostError(msg) from None
        except Exception as error:
            escape_texts(error)
            raise

    async def _answer(self, task: asyncio.Future[Any], timeout: float) -> None:
        """Wait for the answer. While notifications arrive, the server is alive: wait longer."""
        asked = self._loop.time()
        latest = asked + timeout * _LONGEST_EXTENSION
        while not task.done():
            now = self._loop.time()
            deadline = min(latest, max(asked, self._last_contact()) + timeout)
            if now >= deadline:
                break
            await asyncio.wait({task}, timeout=deadline - now)
        if not task.done():
            await asyncio.wait({task}, timeout=READ_GRACE)
        if not task.done():
            msg = f"the server did not answer within {timeout:.3g} s"
            raise TimeoutError(msg)

    def _last_contact(self) -> float:
        """Return when the server was last heard, by the loop's clock; 0 if nobody knows."""
        return 0.0
