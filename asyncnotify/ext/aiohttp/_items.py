"""What a client is sent for each item of a stream: one JSON object, by WebSocket or as an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from asyncnotify import Gap, Notification

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.log import Event

    Item: TypeAlias = Notification[Any] | Event[Any] | Gap
    Dumps: TypeAlias = Callable[[Any], str]


def object_of(item: Item) -> dict[str, Any]:
    """Return the object for an item: with ``payload``, or for a Gap with ``gap``, its reason."""
    if isinstance(item, Gap):
        return {"channel": item.channel, "gap": str(item.reason), "dropped": item.dropped}
    return {"channel": item.channel, "payload": item.payload}
