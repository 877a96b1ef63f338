"""The two calls: one snapshot, or a screen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncnotify._arguments import check_number, check_seconds
from asyncnotify.top._collector import Collector
from asyncnotify.top._model import Snapshot
from asyncnotify.top._terminal import Terminal

if TYPE_CHECKING:
    from rich.console import Console

    from asyncnotify.top.screen import Screen
else:
    Console: TypeAlias = Any  # of an extra: a snapshot is taken without it

DEFAULT_CHANNEL: Final = "asyncnotify.reports"
_LEAST: Final = 0.2
_SETTLING: Final = 0.3
"""Seconds for the answers of the services to arrive."""


async def snapshot(
    dsn: str | None = None, *, seconds: float = 1.0, channel: str = DEFAULT_CHANNEL
) -> Snapshot:
    """
    Return what happens now, with the rates of about the last second.

    Only services that run ``asyncnotify.ext.reporting.Reporting`` are seen with their channels.
    The server is only read from, except that the services are asked by a NOTIFY, and that a log
    takes a tick if it has new events, as it does for each reader.

    Args:
        dsn: ``postgresql://user:password@host:port/database``; None: as PGHOST and the other
            variables of libpq say.
        seconds: How long to look: the rates are of this time.
        channel: Where the services report.

    Raises:
        ValueError: ``seconds`` is not a positive number.
        ChannelNameError: The name of the channel is not valid.
        AsyncNotifyError: There is no connection within 10 s, as the start of a Listener raises it.
    """
    check_seconds("seconds", seconds)
    async with Collector(dsn, every=seconds, channel=channel, logs_every=0) as collector:
        await collector.ask()
        await asyncio.sleep(_SETTLING)
        await collector.snapshot()
        await asyncio.sleep(seconds)
        await collector.ask()
        await asyncio.sleep(_SETTLING)
        return await collector.snapshot()


async def run(
    dsn: str | None = None,
    *,
    every: float = 1.0,
    console: Console | None = None,
    channel: str = DEFAULT_CHANNEL,
) -> None:
    """
    Show what happens on a terminal, until ``q``, Ctrl-C, SIGTERM or SIGHUP; then return.

    Where the server restarts, the last figures stay, marked as stale, until it answers again. The
    terminal is left as it was found. Needs rich (the extra ``cli``).

    Args:
        dsn: As for ``snapshot()``.
        every: Seconds between two looks, at least 0.2.
        console: Where to show it; None: standard output.
        channel: Where the services report.

    Raises:
        ValueError: ``every`` is not such a number.
        ChannelNameError: The name of the channel is not valid.
        AsyncNotifyError: There is no connection within 10 s, as the start of a Listener raises it.
        ImportError: rich is not installed.
        OSError: Standard output is no terminal, and cannot be written to.
    """
    from asyncnotify.top.screen import Screen  # noqa: PLC0415 - rich is an extra

    check_number("every", every, minimum=_LEAST)
    async with Collector(dsn, every=every, channel=channel) as collector:
        with Screen(console) as screen, Terminal(screen.redraw) as terminal:
            await terminal.until_ended(_show(collector, screen, every))


async def _show(collector: Collector, screen: Screen, every: float) -> None:
    while not screen.is_gone:
        await collector.ask()
        screen.show(await collector.snapshot())
        await asyncio.sleep(every)
