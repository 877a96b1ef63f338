"""A connection each of whose commands has a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg import untraced
from asyncnotify._asyncpg.failures import escape_texts, is_refusal
from asyncnotify._asyncpg.sockets import keep_alive, server_settings
from asyncnotify._asyncpg.statements import (
    HERE,
    NO_WAITING,
    OWN_DEFAULTS,
    may_wait,
    only_in_session,
    setting,
    unused_name,
)
from asyncnotify._channels.names import quote_identifier
from asyncnotify._errors import ConnectionLostError, describe_error
from asyncnotify._logs import Log
from asyncnotify._tasks import READ_GRACE, cancel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    import asyncpg

    from asyncnotify._keepalive import Keepalive

log = Log("connection")

_SERVER: Final = """
    SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_postmaster_start_time(), oid)
    FROM pg_catalog.pg_database
    WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
"""

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
        self.told_pid: int = self.pid
        self.may_wait: bool = may_wait(connection)  # whether OWN_DEFAULTS have to be in effect
        self._defaults_set = False

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        return bool(self._connection.is_closed())

    async def introduce(self, keepalive: Keepalive | None, *, began: float | None = None) -> bool:
        """
        Set what the session needs, at both ends; return whether the server's session is ours alone.

        If the backend pid is not the one we know, or the backend has begun before we connected,
        a pooler is in between: then nothing is set at the server. One round trip; another one if
        settings are refused, or if it is not ours.

        Args:
            keepalive: TCP keepalive for both ends; None leaves it as it is.
            began: When we began to connect, by the loop's clock; None: unknown.
        """
        if keepalive is not None:
            keep_alive(self._connection, keepalive)
        settings = server_settings(keepalive) if keepalive is not None else {}
        if await self._set_if_ours(settings, began):
            return True
        # On a busy machine a question may be so late that the backend seems to be older
        return began is not None and await self._set_if_ours(settings, began)

    async def _set_if_ours(self, settings: Mapping[str, str], began: float | None) -> bool:
        """Set these and OWN_DEFAULTS if the session is ours; return whether it is."""
        for changes in ({**settings, **OWN_DEFAULTS}, OWN_DEFAULTS):
            age = None if began is None else self._loop.time() - began
            ours = only_in_session(self.pid, age)
            try:
                done = await self._is_done(f"{self._before}SELECT {setting(changes)} {ours}")
            except Exception as error:
                if not is_refusal(error):
                    raise
                log.debug("settings of the server stay as they are: %s", describe_error(error))
            else:
                self.may_wait = self.may_wait and not done
                return done
        return await self._is_done(f"SELECT 1 {only_in_session(self.pid)}")

    @property
    def _before(self) -> str:
        """What has to stand in front of a statement of one message, as long as it may wait."""
        return NO_WAITING if self.may_wait else ""

    async def _is_done(self, statement: str) -> bool:
        """Return whether a statement returns one row."""
        return bool(await self._command(self._execute(statement)) == "SELECT 1")

    async def set_own_defaults(self) -> None:
        """Set what introduce() has not, behind a pooler; before LISTEN, which may be delivered."""
        if self.may_wait:
            changes = (f"SET {name} TO '{value}'" for name, value in OWN_DEFAULTS.items())
            await self._command(self._execute(";".join(changes)))
            self.may_wait, self._defaults_set = False, True

    async def reset_defaults(self) -> None:
        """Undo set_own_defaults(), if the pooler gives this to the same session of the server."""
        if self._defaults_set:
            changes = (f"RESET {name}" for name in OWN_DEFAULTS)
            await self._command(self._execute(";".join(changes)))

    async def find_pid(self) -> None:
        """Find out the backend pid, where a pooler has told one of its own making."""
        try:
            [row] = await self._rows("SELECT pg_catalog.pg_backend_pid()", self._timeout)
        except Exception as error:
            if not is_refusal(error):
                raise
            log.debug("the backend pid stays unknown: %s", describe_error(error))
        else:
            self.pid = int(row[0])

    async def find_server(self) -> str | None:
        """Return what tells the running server and its database from others; None: unknown."""
        try:
            [row] = await self._rows(HERE + _SERVER, self._timeout)
        except Exception as error:
            if not is_refusal(error):
                raise
            log.debug("the server stays unknown: %s", describe_error(error))
            return None
        return str(row[0])

    async def notify_plainly(self, channel: str) -> None:
        """Send a notification without payload, by the one protocol that every pooler passes."""
        await self._command(self._execute(f"NOTIFY {quote_identifier(channel)}"))

    async def _rows(self, query: str, timeout: float) -> list[Any]:
        """
        Return the rows of a query.

        A pooler that has come to pool transactions may let it fail, and nothing else: under a
        name of the driver's it could run what another program has prepared.
        """

        async def fetch() -> list[Any]:
            return await (await untraced.prepare(self._connection, query, unused_name()))()

        rows: list[Any] = await self._command(fetch(), timeout)
        return rows

    async def close(self, timeout: float) -> None:
        """End the session in good order, within this many seconds; then terminate."""
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

    def _execute(self, query: str) -> Awaitable[Any]:
        """Execute a query of our own, which leaves no trace."""
        return untraced.execute(self._connection, query)

    async def _command(self, command: Awaitable[Any], timeout: float | None = None) -> Any:
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
