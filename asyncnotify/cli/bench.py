"""The command ``bench``: what this server does, from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asyncnotify.cli.options import Dsn, JsonObject, seconds_option
from asyncnotify.cli.texts import about, examples

if TYPE_CHECKING:
    from asyncnotify.cli.measuring import Figures

__all__ = ["ABOUT", "EXAMPLES", "bench"]

ABOUT = about("""
Measure this server, from this machine: round trip, notifications in a second, and fan-out.

Round trip: from notify() to its arrival, one at a time, so it holds a commit and two ways through
the network. Notifications: sent in transactions of up to 1,000 and received by one listener.
Fan-out: the same, received by several listeners, each on a connection of its own.

The notifications are sent on a channel of a random name, to nobody else. Each notifying commit
takes a lock of the whole server: beside a busy service, keep --seconds small.
""")
EXAMPLES = examples(
    "asyncnotify bench", "asyncnotify bench --seconds 1 --listeners 50 --json | jq .round_trip_ms"
)


def bench(
    *,
    dsn: Dsn = None,
    seconds: Annotated[
        float, seconds_option(at_least=0.1, at_most=600, of="For each measurement.")
    ] = 3.0,
    listeners: Annotated[int, typer.Option(min=1, max=1_000, help="Of the fan-out.")] = 10,
    size: Annotated[int, typer.Option(min=8, max=7_900, help="Bytes of a payload.")] = 100,
    json: JsonObject = False,
) -> None:
    """Measure this server."""
    from asyncnotify.cli.running import run

    run(lambda: _bench(dsn, seconds, listeners, size, json=json))


async def _bench(dsn: str | None, seconds: float, listeners: int, size: int, *, json: bool) -> int:
    from asyncnotify.cli.measuring import PARTS, measure
    from asyncnotify.cli.output import print_json
    from asyncnotify.cli.progress import progress

    with progress(seconds * len(PARTS)) as advance:
        figures = await measure(dsn, seconds, listeners, size, advance)
    if json:
        print_json(figures.as_dict())
    else:
        _show(figures)
    return 0


def _show(figures: Figures) -> None:
    from asyncnotify.cli.output import show_table

    fan_out = f"fan-out, received by {figures.listeners} listeners"
    rows = [
        ("round trip, median", f"{figures.median_ms:,.2f} ms"),
        ("round trip, 99 of 100 within", f"{figures.p99_ms:,.2f} ms"),
        ("notifications, sent and received", f"{figures.notifications_per_second:,.0f}/s"),
        (fan_out, f"{figures.fan_out_per_second:,.0f}/s"),
    ]
    show_table(f"{figures.server}, payloads of {figures.size} bytes", ("", "measured"), rows)
