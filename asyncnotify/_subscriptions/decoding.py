"""
Decoding the payloads of typed channels: when a consumer takes them, not when they arrive.

So a slow decoder delays its own subscription only, and what is dropped or replaced before it is
taken is never decoded.
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
"""Seconds between two log lines on payloads of one subscription: their number is up to others."""

_new_tuple = tuple.__new__


class Undecodable:
    """A notification whose payload is not what its channel says."""

    __slots__ = ("error", "notification")

    def __init__(self, error: PayloadDecodeError, notification: Notification[str]) -> None:
        self.error = error
        self.notification = notification


Taken: TypeAlias = "Item | Undecodable"


def decoder_of(channels: Iterable[Channel[Any]]) -> Callable[[Item], Taken] | None:
    """Return what decodes the items of these channels; None if there is nothing to decode."""
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
        except BaseException as error:  # noqa: BLE001 - a decoder's CancelledError as well
            return Undecodable(undecodable(channel, error), item)

    return decode


def taking(
    take: Callable[[], Item | None], decode: Callable[[Item], Taken] | None
) -> Callable[[], Taken | None]:
    """Return what takes an item and decodes it."""
    if decode is None:
        return take

    def take_decoded() -> Taken | None:
        item = take()
        return None if item is None else decode(item)

    return take_decoded


class DecodeErrors:
    """Counts what cannot be decoded of one subscription, and tells of it in the log."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._untold = 0
        self._quiet_until = 0.0

    def note(self, item: Undecodable) -> None:
        """Count it. The payload is not told, nor how it failed in detail: that may quote it."""
        self._subscriber.decode_errors += 1
        now = time.monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        more = f"; {self._untold} more before it" if self._untold else ""
        self._untold, self._quiet_until = 0, now + _LOG_INTERVAL
        pid = item.notification.pid
        logger.error("%s (sent by backend %d)%s", item.error, pid, more)
