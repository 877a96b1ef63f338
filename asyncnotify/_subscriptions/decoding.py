"""
Decoding the payloads of typed channels, when a consumer takes them and not when they arrive.

So a slow decoder delays its own subscription only, and a payload that is dropped or replaced
before is never decoded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

from asyncnotify._channels.channel import bare_decoder, undecodable
from asyncnotify._delivery.mailbox import merge_gaps
from asyncnotify._logs import Log
from asyncnotify._model import Gap, GapReason, Notification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.mailbox import Item
    from asyncnotify._delivery.registry import Subscriber
    from asyncnotify._errors import PayloadDecodeError

log = Log("handler")

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


class DecodingTaker:
    """
    Takes items from a mailbox and decodes them.

    A payload that cannot be decoded counts as a loss. For a consumer that wants gaps, one Gap
    follows adjacent payloads of this kind, before the next notification. It waits in the mailbox
    like any other, so that nothing overtakes it or is overtaken, however the next item is taken.
    """

    __slots__ = ("_decode", "_label", "_mailbox", "_take", "_wants_gaps")

    def __init__(
        self,
        subscriber: Subscriber,
        take: Callable[[], Item | None],
        decode: Callable[[Item], Taken],
        *,
        wants_gaps: bool,
    ) -> None:
        self._mailbox = subscriber.mailbox
        self._take = take
        self._label = subscriber.label
        self._decode = decode
        self._wants_gaps = wants_gaps

    # The traceback of a decoder's error refers to the frames of its callers. If a local variable
    # here still referred to the error, only the garbage collector could free the two.

    def __call__(self) -> Taken | None:
        """Return the next item; None if nothing waits."""
        raw = self._take()
        if raw is None:
            return None
        if _is_of_undecodable(raw):
            return self._next_of_run(raw)
        taken: Any = self._decode(raw)
        try:
            if self._wants_gaps and isinstance(taken, Undecodable):
                self._mailbox.put_gap_first(self._new_gap())
            return cast("Taken", taken)
        finally:
            del taken

    def _next_of_run(self, gap: Gap) -> Taken:
        """Return the gap; or what cannot be decoded either, and let the gap follow that."""
        raw = self._mailbox.take()
        taken: Any = None if raw is None else self._decode(raw)
        try:
            if isinstance(taken, Undecodable):
                self._mailbox.put_back(merge_gaps(gap, self._new_gap()))
                return taken
            if raw is not None:
                self._mailbox.put_back(raw)
            return gap
        finally:
            del taken

    def take_many(
        self,
        limit: int,
        found: Callable[[Item], object],
        undecodable: Callable[[Undecodable], object],
    ) -> int:
        """Pass on at most ``limit`` items, decoded; return how many were taken."""
        raws = self._mailbox.take_many(limit)
        gap: Gap | None = None
        for raw in raws:
            taken: Any = self._decode(raw)
            if isinstance(taken, Undecodable):
                gap = self._one_more(gap)
                undecodable(taken)
            elif gap is None and _is_of_undecodable(raw):
                gap = raw  # more of its run may follow
            else:
                if gap is not None:
                    found(gap)
                    gap = None
                found(taken)
            taken = None
        if gap is not None:
            found(gap)
        return len(raws)

    def _one_more(self, gap: Gap | None) -> Gap | None:
        """Return the gap of a run that has become longer by one; None if gaps are not wanted."""
        if not self._wants_gaps:
            return None
        if gap is None:
            self._mailbox.gaps += 1
            self._mailbox.taken += 1  # its consumer counts it among the gaps that were taken
        return merge_gaps(gap, self._new_gap())

    def _new_gap(self) -> Gap:
        return Gap(self._label, GapReason.UNDECODABLE, self._mailbox.since)


def _is_of_undecodable(item: Item) -> TypeGuard[Gap]:
    return isinstance(item, Gap) and item.reason is GapReason.UNDECODABLE


def taker_of(
    subscriber: Subscriber,
    take: Callable[[], Item | None],
    channels: Iterable[Channel[Any]],
    *,
    wants_gaps: bool,
) -> Callable[[], Taken | None]:
    """Return a function that takes the next item, decoded if a channel has a type."""
    decode = decoder_of(channels)
    return (
        take if decode is None else DecodingTaker(subscriber, take, decode, wants_gaps=wants_gaps)
    )


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
        log.error("%s (sent by backend %d)%s", item.error, pid, more)
