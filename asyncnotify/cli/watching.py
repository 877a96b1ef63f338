"""The command ``top``: what happens now, on a screen, or once for a script."""

from __future__ import annotations

from typing import Annotated

import typer

from asyncnotify.cli.options import Dsn, seconds_option
from asyncnotify.cli.texts import about, examples

__all__ = ["ABOUT", "EXAMPLES", "top"]

ABOUT = about("""
Show what happens now: services with their channels, the queue, the lock of NOTIFY, logs.

On a terminal the screen follows, until q or Ctrl-C. Services are seen with their channels if they
report: docs/top.md says how. With --once the command looks once, for about --every seconds.
""")
EXAMPLES = examples("asyncnotify top", "asyncnotify top --once --json | jq .server.queue_usage")

_DEFAULT_CHANNEL = "asyncnotify.reports"


def top(
    *,
    dsn: Dsn = None,
    every: Annotated[float, seconds_option(at_least=0.2, of="Seconds between two looks.")] = 1.0,
    channel: Annotated[str, typer.Option(help="Where services report.")] = _DEFAULT_CHANNEL,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON; with --once only.")] = False,
) -> None:
    """Show what happens now."""
    from asyncnotify.cli.running import run

    if json and not once:
        msg = "--json needs --once"
        raise typer.BadParameter(msg)
    if once:
        run(lambda: _once(dsn, every, channel, json=json))
    run(lambda: _screen(dsn, every, channel))


async def _screen(dsn: str | None, every: float, channel: str) -> int:
    from asyncnotify import top

    await top.run(dsn, every=every, channel=channel)
    return 0


async def _once(dsn: str | None, seconds: float, channel: str, *, json: bool) -> int:
    from asyncnotify import top

    now = await top.snapshot(dsn, seconds=seconds, channel=channel)
    if json:
        print(now.to_json(), flush=True)
        return 0
    from rich.console import Console

    from asyncnotify.top.screen import View

    Console(highlight=False).print(View(now, cut=False))
    return 0
