"""The application that listens: handlers and a stream, which show what they receive."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from asyncnotify import (
    Connected,
    ConnectionEvent,
    ConnectionLost,
    Gap,
    GapReason,
    Listener,
    Notification,
    Reconnected,
    RetryScheduled,
)
from asyncnotify.cli.demo.writer import CHANNEL, read_orders

if TYPE_CHECKING:
    from asyncnotify.cli.demo.orders import OrderRecord
    from asyncnotify.cli.demo.screen import Screen

__all__ = ["Application"]


class Application:
    """
    Maintains a view of the table ``orders``, and shows what a user of asyncnotify sees.

    Attributes:
        backend_pid: The server process that serves the listener's connection now.
        reconnected: Every Reconnected so far, and when it came, by the monotonic clock.
        received: The channels of the notifications that were shown.
        quiet: Whether to stop showing single orders.
    """

    def __init__(self, dsn: str, orders: OrderRecord, screen: Screen) -> None:
        self.backend_pid: int = 0
        self.reconnected: list[tuple[float, Reconnected]] = []
        self.received: list[str] = []
        self.quiet = False
        self._dsn = dsn
        self._orders = orders
        self._screen = screen

    async def listen(self, listener: Listener) -> None:
        """Listen on three channels with a handler each."""
        await listener.listen("news", self._on_news)
        self._screen.event("listening", 'listener.listen("news", on_news)')
        await listener.listen("prices", self._on_price)
        self._screen.event("listening", 'listener.listen("prices", on_price)')
        await listener.listen(CHANNEL, self._on_order, resync=self._read_table)
        self._screen.event(
            "listening", f'listener.listen("{CHANNEL}", on_order, resync=read_table)'
        )

    async def follow(self, listener: Listener) -> None:
        """Follow the same orders as a stream, until the listener is closed."""
        async with listener.stream(CHANNEL, gaps=True) as stream:
            self._screen.event("listening", f'listener.stream("{CHANNEL}", gaps=True)')
            async for item in stream:
                match item:
                    case Notification(payload=number):
                        self._orders.saw("stream", int(number))
                    case Gap():
                        self._screen.event("gap", f"stream: {_description_of(item)}")
                        self._orders.gap("stream")

    def on_event(self, event: ConnectionEvent) -> None:
        """Show how the state of the connection changes."""
        match event:
            case Connected():
                self.backend_pid = event.backend_pid
            case ConnectionLost(cause=cause):
                self._orders.listener_lost()
                self._screen.event("lost", f"the connection: {cause or 'the server closed it'}")
            case RetryScheduled(attempt=attempt, delay=delay, cause=cause):
                again = f"next attempt in {delay * 1000:.0f} ms"
                self._screen.event("retry", f"attempt {attempt}: {_reason(cause)}; {again}")
            case Reconnected():
                self.backend_pid = event.backend_pid
                self.reconnected.append((time.monotonic(), event))
                self._orders.listener_listens()
                self._screen.event(
                    "back",
                    f"listening again on {event.channels} channels after"
                    f" {event.downtime * 1000:,.0f} ms and {_counted(event.attempts, 'attempt')}",
                )
            case _:
                pass

    def _on_news(self, notification: Notification[str]) -> None:
        self._show_received("news", repr(notification.payload))

    def _on_price(self, notification: Notification[str]) -> None:
        price = json.loads(notification.payload)
        self._show_received("prices", f"{price['symbol']} at {price['price']:.2f}, from JSON")

    def _on_order(self, notification: Notification[str]) -> None:
        number = int(notification.payload)
        self._orders.view.add(number)
        self._orders.saw("handler", number)
        if not self.quiet:
            self._show_received(CHANNEL, f"order {number}")

    def _show_received(self, channel: str, text: str) -> None:
        self.received.append(channel)
        self._screen.event("received", f"{channel:<6}  {text}")
        self._orders.wake()

    async def _read_table(self, gap: Gap) -> None:
        """Read the table, at the start and after every Gap: the view is then complete."""
        rows = await read_orders(self._dsn)
        news = self._orders.read(rows)
        told = f"handler: resync read the table, {len(rows):,} rows"
        if gap.reason is not GapReason.START:
            told += f", {news:,} of them new"
        self._orders.gap("handler")
        self._screen.event("caught up", told)


def _description_of(gap: Gap) -> str:
    if gap.since is None:
        return "the start; what was sent before is missing"
    return f"what was sent since {gap.since:%H:%M:%S} UTC may be missing"


def _reason(cause: BaseException) -> str:
    """Return what the system or the server says, without the address, which is always the same."""
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno).lower()
    return str(cause).partition("\n")[0] or type(cause).__name__


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
