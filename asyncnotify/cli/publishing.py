"""The command ``notify``: one notification, or one for each line of standard input."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from asyncnotify.cli.options import Dsn
from asyncnotify.cli.texts import about, examples

if TYPE_CHECKING:
    from asyncnotify import Notifier
    from asyncnotify.cli.input import Lines

__all__ = ["ABOUT", "EXAMPLES", "notify"]

ABOUT = about("""
Send a notification; or, with - as the payload, one for each line of standard input.

Returns once the server has committed. Lines are sent in transactions of up to 1,000, as they come,
each of them: also those that are equal, of which PostgreSQL would deliver one per transaction. The
rate is told on standard error. A line may have 7,999 bytes of UTF-8.
""")
EXAMPLES = examples(
    "asyncnotify notify orders 42",
    "jq -c '.[]' orders.json | asyncnotify notify orders -",
    "tail -F access.log | asyncnotify notify access -",
)


def notify(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", show_default=False)],
    payload: Annotated[
        str, typer.Argument(metavar="[PAYLOAD|-]", show_default=False, help="A text, or -.")
    ] = "",
    *,
    dsn: Dsn = None,
) -> None:
    """Send notifications."""
    from asyncnotify.cli.running import run

    if payload == "-":
        run(lambda: _notify_lines(channel, dsn))
    run(lambda: _notify(channel, payload, dsn))


async def _notify(channel: str, payload: str, dsn: str | None) -> int:
    from asyncnotify import Notifier

    async with Notifier(dsn, start_timeout=1.0) as notifier:
        await notifier.notify(channel, payload)
    return 0


async def _notify_lines(channel: str, dsn: str | None) -> int:
    from asyncnotify import Notifier
    from asyncnotify.cli.input import Lines

    async with Notifier(dsn, start_timeout=1.0) as notifier:
        sending = _Sending(notifier, channel)
        try:
            await sending.send(Lines())
        finally:
            sending.tell("sent")
    return 0


class _Sending:
    """Sends lines, and tells how fast."""

    def __init__(self, notifier: Notifier, channel: str) -> None:
        self._notifier = notifier
        self._channel = channel
        self._sent = 0
        self._began = self._told_at = time.monotonic()

    async def send(self, lines: Lines) -> None:
        """Send all lines, in their order: a transaction has no two that are equal."""
        from asyncnotify.cli.input import portions

        async for chunk in lines:
            for portion in portions(chunk):
                pairs = [(self._channel, line) for line in portion]
                self._sent += await self._notifier.notify_many(pairs)
            if time.monotonic() - self._told_at >= 1:
                self._told_at = time.monotonic()
                self.tell("sent so far:")

    def tell(self, word: str) -> None:
        """Say how many have been sent, and how many in a second."""
        from asyncnotify.cli.output import say

        seconds = time.monotonic() - self._began
        rate = self._sent / max(seconds, 0.001)
        say(f"{word} {self._sent:,} notifications in {seconds:.1f} s ({rate:,.0f}/s)")
