"""
Decoding the payloads of typed channels, when a consumer takes them and not when they arrive.

So a slow decoder delays its own subscription only, and a payload that is dropped or replaced
before is never decoded.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncnotify._channels.channel import bare_decoder, undecodable
from asyncnotify._model import Notification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.mailbox import Item
    from asyncnotify._delivery.registry import Subscriber
    from asyncnotify._errors import PayloadDecodeError

logger = logging.getLogger("asyncnotify.handler")

_LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines of one subscription: any sender can send wrong payloads."""

_new_tuple = tuple.__new__


class Undecodable:
    """A notification whose payload could not be decoded, and the error."""

    __slots__ = ("error", "notification")

    def __init__(self, error: PayloadDecodeError, notification: Notification[str]) -> None:
        self.error = error
        self.notification = notification


Taken: TypeAlias = "Item | Undecodable"


def decoder_of(channels: Iterable[Channel[Any]]) -> Callable[[Item], Taken] | None:
    """Return a function that decodes items of these channels; None if all payloads are texts."""
    found = {channel.name: bare_decoder(channel) for channel in channels}
    decoders = {name: decoder for name, decoder in found.items() if decoder is not None}
    if not decoders:
        return None

    def decode(item: Item) -> Taken:
        if not isinstance(item, Notification):
            return item
        channel, payload, pid = item
        decoder = decoders.get(channel)
        if decoder is None:
            return item
        try:
            return _new_tuple(Notification, (channel, decoder(payload), pid))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - also a decoder's CancelledError
            return Undecodable(undecodable(channel, error), item)

    return decode


def taking(
    take: Callable[[], Item | None], decode: Callable[[Item], Taken] | None
) -> Callable[[], Taken | None]:
    """Return a function that takes an item and decodes it; None if nothing waits."""
    if decode is None:
        return take

    def take_decoded() -> Taken | None:
        item = take()
        return None if item is None else decode(item)

    return take_decoded


class DecodeErrors:
    """Counts and logs the payloads of one subscription that cannot be decoded."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._unlogged = 0
        self._quiet_until = 0.0

    def note(self, item: Undecodable) -> None:
        """Count and log. Neither payload nor decoder's message is logged: that may quote it."""
        self._subscriber.decode_errors += 1
        now = time.monotonic()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        more = f"; {self._unlogged} more since the last line" if self._unlogged else ""
        self._unlogged, self._quiet_until = 0, now + _LOG_INTERVAL
        pid = item.notification.pid
        logger.error("%s (sent by backend %d)%s", item.error, pid, more)
