"""A primary and a standby that exchange their places: what has been committed is on both."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import asyncpg

from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer
from tests.chaos.log.database import answered
from tests.support.machine import scaled

__all__ = ["Servers"]

_LIMIT: Final = scaled(60.0)
"""Seconds in which a server is promoted, or a standby is made, while all others are at work."""

_SETTINGS: Final = {"wal_retrieve_retry_interval": "100ms", "wal_receiver_timeout": "5s"}
_PRIMARY: Final = "?target_session_attrs=read-write"
_IS_IN_STEP: Final = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
_HAS_ALL: Final = """
    SELECT bool_or(replay_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication
"""


class Servers:
    """
    A server, or a primary with a standby, behind a proxy each.

    What a primary has confirmed is on the standby too, and who sees it sees what is there: a
    transaction is not visible before the standby has it.

    Args:
        server: The first primary, which is running.
        has_standby: Whether there is to be one.

    Attributes:
        primary: The server that takes writes now.
        proxy: What leads to it.
    """

    def __init__(self, server: PostgresServer, *, has_standby: bool) -> None:
        self.primary = server
        self.has_standby = has_standby
        self.proxy = FaultProxy.for_dsn(server.dsn)
        self._first = server  # has the programs; whoever has made it closes it
        self._standby: PostgresServer | None = None
        self._standby_proxy: FaultProxy | None = None
        self._stack = AsyncExitStack()
        self._dsns = [server.dsn]
        self._proxied: list[str] = []

    async def __aenter__(self) -> Self:
        """Make the standby, if there is to be one, and begin to accept."""
        async with self._stack:
            await self._stack.enter_async_context(self.proxy)
            self._proxied = [self.proxy.proxied_dsn(self.primary.dsn)]
            if self.has_standby:
                await self._begin_with_standby()
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the standby; of a failure tell what the servers have logged."""
        if error is not None:
            for server in filter(None, (self.primary, self._standby)):
                error.add_note(f"{server!r}, its log:\n{server.log_tail(40)}")
        await self._stack.aclose()

    async def _begin_with_standby(self) -> None:
        standby = await self._started_standby(None)
        self._standby_proxy = FaultProxy.for_dsn(standby.dsn)
        await self._stack.enter_async_context(self._standby_proxy)
        self._dsns.append(standby.dsn)
        self._proxied.append(self._standby_proxy.proxied_dsn(standby.dsn))
        await self._get_in_step()

    async def _started_standby(self, port: int | None) -> PostgresServer:
        standby = PostgresServer(
            settings=_SETTINGS, primary=self.primary, port=port, bin_dir=self._first.bin_dir
        )
        self._stack.callback(standby.close)
        await asyncio.to_thread(standby.start, timeout=_LIMIT)
        self._standby = standby
        return standby

    @property
    def dsn(self) -> str:
        """Leads to the primary, whichever that is, past the faulty network."""
        return _of_all(self._dsns)

    @property
    def proxied_dsn(self) -> str:
        """Leads to the primary through the faulty network."""
        return _of_all(self._proxied)

    def heal(self) -> None:
        """Let everything pass."""
        for proxy in filter(None, (self.proxy, self._standby_proxy)):
            proxy.heal()

    async def fail_over(self) -> None:
        """Kill the primary, promote the standby, and make another one in the place of the first."""
        lost, promoted, proxy = self.primary, self._standby, self._standby_proxy
        port = lost.port  # close() gives it up
        if promoted is None or proxy is None:
            message = "there is no standby"
            raise RuntimeError(message)
        await self._until(_HAS_ALL)  # a restart makes visible what had not been confirmed
        await asyncio.to_thread(lost.kill)
        await asyncio.to_thread(promoted.promote, timeout=_LIMIT)
        self.primary, self.proxy, self._standby_proxy = promoted, proxy, self.proxy
        self.heal()
        await self._set_synchronous("")
        if lost is not self._first:
            await asyncio.to_thread(lost.close)
        await self._started_standby(port)
        await self._get_in_step()

    async def _get_in_step(self) -> None:
        """Let each commit wait for the standby."""
        await self._set_synchronous("*")
        await self._until(_IS_IN_STEP)

    async def _set_synchronous(self, names: str) -> None:
        await self._asked(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await self._asked("SELECT pg_reload_conf()")

    async def _until(self, query: str) -> None:
        async with asyncio.timeout(_LIMIT):
            while not await self._asked(query):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.05)

    async def _asked(self, query: str) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(self.primary.dsn, timeout=5.0)
            try:
                return await connection.fetchval(query)
            finally:
                connection.terminate()

        return await answered(ask)


def _of_all(dsns: list[str]) -> str:
    """Return the DSN of several servers, of which the one that takes writes is wanted."""
    if len(dsns) == 1:
        return dsns[0]
    hosts = [dsn.rpartition("@")[2].partition("/")[0] for dsn in dsns]
    return dsns[0].replace(hosts[0], ",".join(hosts), 1) + _PRIMARY
