"""Notifications, events and Gaps as lines of output."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncnotify import Gap, Notification
from asyncnotify._escaping import escaped
from asyncnotify.cli.output import as_json
from asyncnotify.log import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

__all__ = ["Item", "describe_gap", "fields_of", "line_maker"]

Item: TypeAlias = Notification[str] | Event[str] | Gap


def fields_of(item: Item) -> dict[str, Any]:
    """Return what a line of JSON says of an item."""
    match item:
        case Gap():
            since = None if item.since is None else item.since.isoformat()
            return {
                "gap": item.reason.value,
                "channel": item.channel,
                "since": since,
                "dropped": item.dropped,
            }
        case Notification():
            return {"channel": item.channel, "payload": item.payload, "pid": item.pid}
        case Event():
            return {
                "position": str(item.position),
                "id": str(item.id),
                "channel": item.channel,
                "key": item.key,
                "payload": item.payload,
                "headers": dict(item.headers),
                "appended_at": item.appended_at.isoformat(),
            }


def describe_gap(gap: Gap) -> str:
    """Return what a Gap says, in words."""
    where = "all channels" if gap.channel is None else gap.channel
    since = "" if gap.since is None else f" since {gap.since.astimezone():%H:%M:%S}"
    dropped = "" if gap.dropped is None else f"; lost: {gap.dropped:,}"
    return f"gap ({gap.reason}): something may be missing on {where}{since}{dropped}"


def line_maker(*, coloured: bool) -> Callable[[Item], str]:
    """Return what makes lines of items: JSON, or colours for a terminal."""
    return _coloured_line_maker() if coloured else lambda item: as_json(fields_of(item)) + "\n"


def _coloured_line_maker() -> Callable[[Item], str]:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)

    def line(item: Item) -> str:
        with console.capture() as capture:
            console.print(_coloured(item))
        return capture.get()

    return line


def _coloured(item: Item) -> Text:
    from rich.text import Text

    if isinstance(item, Gap):
        shown = escaped(describe_gap(item))
        return Text.assemble((_time_of_day(), "dim"), "  ", (shown, "bold yellow"))
    if isinstance(item, Notification):
        where, about = _time_of_day(), f"pid {item.pid}"
    else:
        where, about = str(item.position), "" if item.key is None else f"key {item.key}"
    return Text.assemble(
        (f"{where}  ", "dim"),
        (escaped(item.channel), "bold cyan"),
        f"  {escaped(item.payload)}  ",
        (escaped(about), "dim"),
    )


def _time_of_day() -> str:
    return f"{datetime.now(UTC).astimezone():%H:%M:%S}"
