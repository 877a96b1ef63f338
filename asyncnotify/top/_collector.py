"""Collects from services, server and logs; goes on, with old figures, while the server is away."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from asyncnotify import Listener
from asyncnotify._errors import describe_error
from asyncnotify.ext.reporting import Reports
from asyncnotify.top._logs import Logs
from asyncnotify.top._model import LogFigures, ServerFigures, Snapshot
from asyncnotify.top._rates import Rates
from asyncnotify.top._server import ANSWER_TIMEOUT, APPLICATION_NAME, Server

if TYPE_CHECKING:
    from types import TracebackType

START_TIMEOUT: Final = 10.0
_ASKING: Final = 1.0
"""Seconds for a NOTIFY: longer where its lock is not to be had, which the snapshot then shows."""

_SILENT_AFTER: Final = 3
"""Reports that a service may leave out before it counts as silent."""


class Collector:
    """
    Takes one snapshot after another.

    Args:
        dsn: The server and the database; None: as PGHOST and the other variables of libpq say.
        every: Seconds between two snapshots.
        channel: Where the services report.
        logs_every: Seconds between two looks at the logs, at least: a look may take a tick of each.
    """

    def __init__(
        self, dsn: str | None, *, every: float, channel: str, logs_every: float = 2.0
    ) -> None:
        self._rates = Rates(_SILENT_AFTER * max(every, 1.0))
        self._listener = Listener(
            dsn,
            start_timeout=START_TIMEOUT,
            heartbeat=max(every, 1.0),
            server_settings={"application_name": APPLICATION_NAME},
        )
        self._reports = Reports(self._listener, channel=channel, on_report=self._rates.add)
        self._server = Server(dsn)
        self._logs = Logs(self._server)
        self._stack = AsyncExitStack()
        self._answered_at = time.monotonic()
        self._logs_every = logs_every
        self._logs_at = -math.inf
        self._asking_error: str | None = None
        self._figures: ServerFigures | None = None
        self._log_figures: tuple[LogFigures, ...] = ()

    async def __aenter__(self) -> Self:
        """Connect; raises what the start of a Listener raises."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._listener)
            await stack.enter_async_context(self._reports)
            stack.push_async_callback(self._close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _close(self) -> None:
        try:
            with contextlib.suppress(Exception):  # they may be gone already
                await self._logs.aclose()
                await self._server.aclose()
        finally:
            self._logs.terminate()
            self._server.terminate()

    async def ask(self) -> None:
        """Ask the services to report; the next snapshot tells what went wrong."""
        self._asking_error = None
        if not self._listener.is_connected:
            return
        try:
            async with asyncio.timeout(_ASKING):
                await self._reports.ask()
        except TimeoutError:
            self._asking_error = f"the services could not be asked: no NOTIFY within {_ASKING:g} s"
        except Exception as error:  # noqa: BLE001 - shown: the next attempt may go well
            self._asking_error = f"the services could not be asked: {describe_error(error)}"

    async def snapshot(self) -> Snapshot:
        """Return what is known now; takes 3 s at most, and raises nothing."""
        error = await self._look()
        self._rates.keep({report.id for report in self._reports.newest})
        now = time.monotonic()
        is_fresh = error is None and self._listener.is_connected
        if is_fresh:
            self._answered_at = now
        return Snapshot(
            taken_at=datetime.now(UTC),
            state="connected" if is_fresh else "reconnecting",
            stale_for=0.0 if is_fresh else now - self._answered_at,
            error=error or self._asking_error,
            server=self._figures,
            services=self._rates.figures(),
            logs=self._log_figures,
        )

    async def _look(self) -> str | None:
        """Ask the server; return what went wrong."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                known = {report.backend_pid for report in self._reports.newest} - {None}
                self._figures = await self._server.figures([one for one in known if one])
                if time.monotonic() - self._logs_at >= self._logs_every:
                    self._log_figures = await self._logs.figures(await self._server.logs())
                    self._logs_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - shown: the next look may go well
            return describe_error(error)
        return None
