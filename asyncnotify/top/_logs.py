"""The durable logs of a database, and how fast they grow."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import asyncpg

from asyncnotify.log import Log, LogError
from asyncnotify.top._model import LogFigures
from asyncnotify.top._rates import rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncnotify.top._server import Server

_SHOWN: Final = 200
"""Characters of what the server says."""


class Logs:
    """
    Asks each log for its status, one after another, on one more connection.

    Args:
        server: Makes the connection.
        clock: Returns seconds that pass evenly.
    """

    def __init__(self, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._before: dict[str, tuple[float, int]] = {}
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def figures(self, names: Iterable[str]) -> tuple[LogFigures, ...]:
        """Return what the logs of these names tell; the connection goes where there is none."""
        return tuple([await self._of(name) for name in names])

    async def _of(self, name: str) -> LogFigures:
        if self._pool is None:
            self._pool = await self._server.pool()
        durable = Log(name, pool=self._pool)
        try:
            status = await durable.status()
        except (asyncpg.PostgresError, LogError) as error:
            return LogFigures(name, None, error=str(error)[:_SHOWN])
        except BaseException:
            self.terminate()
            raise
        finally:
            await durable.aclose(0)
        now = self._clock()
        at, events = self._before.get(name, (now, status.events))
        self._before[name] = (now, status.events)
        return LogFigures(name, status, rate(status.events, events, now - at))

    async def aclose(self) -> None:
        """Close the connection in good order, within 1 s."""
        if self._pool is not None:
            async with asyncio.timeout(1.0):
                await self._pool.close()
        self._pool = None

    def terminate(self) -> None:
        """Close the connection at once."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()
