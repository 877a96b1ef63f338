"""
Decoding the payloads of typed channels, when a consumer takes them and not when they arrive.

So a slow decoder delays its own subscription only, and a payload that is dropped or replaced
before is never decoded.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from asyncnotify._channels.channel import bare_decoder, context_reader, undecodable
from asyncnotify._delivery.mailbox import merge_gaps
from asyncnotify._interrupts import is_interrupt
from asyncnotify._logs import Log
from asyncnotify._model import Gap, GapReason, Notification, Reread, in_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.mailbox import Item
    from asyncnotify._delivery.registry import Subscriber
    from asyncnotify._errors import PayloadDecodeError
    from asyncnotify._logs import WarningLimit

log = Log("handler")

_LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines of one subscription: any sender can send wrong payloads."""

_OF_RUNS: Final = (GapReason.UNDECODABLE, GapReason.REREAD)
"""Reasons for which one Gap stands for all that adjacent payloads tell of."""

_DECODED_AT_ONCE: Final = 32
"""Payloads that are decoded between two looks at the clock."""

_new_tuple = tuple.__new__


class PassedOver:
    """A notification that is not handed over. For who wants gaps, a Gap stands in its place."""

    __slots__ = ("count", "notification", "reason")

    def __init__(
        self, reason: GapReason, notification: Notification[str], count: int | None = None
    ) -> None:
        self.reason = reason  # of the Gap
        self.notification = notification
        self.count = count  # for the Gap


class Undecodable(PassedOver):
    """A notification whose payload could not be decoded, and the error."""

    __slots__ = ("error",)

    def __init__(self, error: PayloadDecodeError, notification: Notification[str]) -> None:
        super().__init__(GapReason.UNDECODABLE, notification)
        self.error = error


Taken: TypeAlias = "Item | PassedOver"


class Counter(Protocol):
    """What counts the items taken."""

    taken: int


class Counted:
    """For what ``take()`` has counted already."""

    taken = 0


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
            decoded = decoder(payload)
            if decoded.__class__ is Reread:
                return PassedOver(GapReason.REREAD, item, decoded.count)
            return _new_tuple(Notification, (channel, decoded, pid))
        except BaseException as error:  # also a decoder's CancelledError
            if is_interrupt(error):
                raise
            return Undecodable(undecodable(channel, error), item)

    return decode


def with_contexts(
    decode: Callable[[Item], Taken], channels: Iterable[Channel[Any]]
) -> Callable[[Item], Taken]:
    """Return a function that also keeps what notifications were sent with, where any may be."""
    found = {channel.name: context_reader(channel) for channel in channels}
    readers = {name: reader for name, reader in found.items() if reader is not None}
    if not readers:
        return decode

    def decode_with_context(item: Item) -> Taken:
        taken = decode(item)
        if not isinstance(taken, Notification) or not isinstance(item, Notification):
            return taken
        read = readers.get(item.channel)
        context = "" if read is None else read(item.payload)
        return in_context(taken, context) if context else taken

    return decode_with_context


class Decoding:
    """
    Takes items from a mailbox and decodes them.

    A payload that cannot be decoded counts as a loss, and one that says "read again" tells of one.
    For a consumer that wants gaps, one Gap follows adjacent payloads of the same kind, before what
    comes next. It waits in the mailbox like any other, so that nothing overtakes it or is
    overtaken, however the next item is taken.

    An item leaves the mailbox at the very end, when it is decoded: whatever is raised before, it
    stays.
    """

    __slots__ = (
        "_decode",
        "_mailbox",
        "_peek",
        "_subscriber",
        "_unreported",
        "_wants_gaps",
        "_warnings",
        "ran_out",
    )

    def __init__(
        self,
        subscriber: Subscriber,
        peek: Callable[[], Item | None],
        decode: Callable[[Item], Taken],
        *,
        wants_gaps: bool,
        warnings: WarningLimit,
    ) -> None:
        """
        Decode what a subscription takes.

        Args:
            subscriber: The subscription, whose notifications that are passed over are counted.
            peek: Returns what comes next, and lets it stay; None if nothing can be taken now.
            decode: Returns an item decoded, or what is passed over.
            wants_gaps: Whether a Gap follows what is passed over.
            warnings: The limit of warnings that nobody is told to read again.
        """
        self._subscriber = subscriber
        self._mailbox = subscriber.mailbox
        self._peek = peek
        self._decode = decode
        self._wants_gaps = wants_gaps
        self._warnings = warnings
        self._unreported: list[Undecodable] = []
        self.ran_out: bool = False

    # The traceback of a decoder's error refers to the frames of its callers. If a local variable
    # here still referred to the error, only the garbage collector could free the two.

    def take(self) -> Taken | None:
        """
        Return the next item, or what has been passed over; None if nothing can be taken now.

        What cannot be decoded is returned until failure() has been called for it.
        """
        if self._unreported:
            return self._unreported[0]
        gap: Gap | None = None
        raw = self._peek()
        if raw is None:
            return None
        if isinstance(raw, Gap) and raw.reason in _OF_RUNS:
            gap = raw  # more may belong to it
            raw = next(islice(self._mailbox, 1, None), None)
        taken: Any = None if raw is None else self._decode(raw)
        try:
            if taken.__class__ is Notification and gap is None:
                self._mailbox.take()  # nearly always
                return taken
            if isinstance(taken, PassedOver) and (gap is None or gap.reason is taken.reason):
                return self._pass_over(taken, gap)
            self._mailbox.take()
            # It is gone, so nothing is called any more: a signal handler may raise after each call
            if gap is not None:
                return gap
            return taken  # type: ignore[no-any-return]  # cast() would be a call
        finally:
            del taken

    def _pass_over(self, taken: PassedOver, gap: Gap | None) -> PassedOver:
        """Let a gap come instead of the next notification, and merge it with the one before."""
        failed = (taken,) if isinstance(taken, Undecodable) else ()
        errors = len(failed)
        if self._wants_gaps:
            self._mailbox.replace(self._with_one_more(gap, taken))
        else:
            self._warn_of(taken)
            self._mailbox.take()
        # As in take(): nothing is called any more
        self._unreported += failed
        self._subscriber.decode_errors += errors
        self._subscriber.rereads += 1 - errors
        return taken

    def take_many(self, limit: int, seconds: float) -> list[Item]:
        """
        Return what comes next, decoded: at most ``limit`` items, and for so long at most.

        Afterwards ``ran_out`` says whether time was what ended it.
        """
        decoded = self._decoded(limit, seconds)
        try:
            items, gaps = decoded.items, decoded.gaps_among_items
            if gaps and not self._wants_gaps:
                items[:] = [item for item in items if not isinstance(item, Gap)]
            errors, rereads = len(decoded.failed), decoded.rereads
            self._mailbox.remove(decoded.count)
            # As in take(): nothing is called any more
            self._unreported += decoded.failed
            self._subscriber.decode_errors += errors
            self._subscriber.rereads += rereads
            self._subscriber.gaps_taken += gaps
            self._mailbox.gaps += decoded.new_gaps
            self._mailbox.taken += decoded.new_gaps
            return items
        finally:
            del decoded

    def _decoded(self, limit: int, seconds: float) -> _Decoded:
        """Decode what comes next, and let it stay."""
        decoded, decode = _Decoded(), self._decode
        append = decoded.items.append
        taken: Any = None
        ends = time.monotonic() + seconds
        self.ran_out = False
        count = 0
        try:
            for count, raw in enumerate(islice(self._mailbox, limit), 1):
                taken = decode(raw)
                if taken.__class__ is Notification and decoded.gap is None:
                    append(taken)  # nearly always
                else:
                    self._add(taken, decoded)
                taken = None
                if not count % _DECODED_AT_ONCE and time.monotonic() > ends:
                    self.ran_out = True
                    break
            decoded.count = count
            decoded.end_run(None)
            return decoded
        finally:
            del decoded, taken

    def _add(self, taken: Taken, decoded: _Decoded) -> None:
        if isinstance(taken, PassedOver):
            decoded.count_passed_over(taken)
            if self._wants_gaps:
                decoded.begin_run(taken.reason)
                decoded.gap = self._with_one_more(decoded.gap, taken)
            else:
                self._warn_of(taken)
        elif decoded.gap is None and isinstance(taken, Gap) and taken.reason in _OF_RUNS:
            decoded.gap = taken  # more may belong to it
        else:
            decoded.end_run(taken)

    def _with_one_more(self, gap: Gap | None, taken: PassedOver) -> Gap:
        """Return the gap of a run that has become longer by one; of a new run for None."""
        label, since = self._subscriber.label, self._mailbox.since
        return merge_gaps(gap, Gap(label, taken.reason, since, taken.count))

    def _warn_of(self, taken: PassedOver) -> None:
        """Warn that nobody is told to read again. on_error is told of what cannot be decoded."""
        if taken.reason is not GapReason.REREAD:
            return
        channel, _, pid = taken.notification
        log.warning(
            self._warnings,
            ("reread", self._subscriber.label),
            'a payload on channel %r says "read again"%s, and this subscription takes no Gaps:'
            " pass resync= to listen(), or gaps=True to stream() (sent by backend %d)",
            channel,
            "" if taken.count is None else f", for {taken.count} changes",
            pid,
            channel=channel,
            pid=pid,
        )

    @property
    def has_failed(self) -> bool:
        """Whether there is something that failure() has not returned so far."""
        return bool(self._unreported)

    def failure(self) -> Undecodable:
        """Return the next item that could not be decoded; each is returned once."""
        failed = self._unreported[0]
        del self._unreported[0]
        return failed


class _Decoded:
    """What is going to be taken at once, decoded."""

    def __init__(self) -> None:
        self.count = 0  # of what was looked at
        self.items: list[Item] = []
        self.failed: list[Undecodable] = []
        self.rereads = 0
        self.gap: Gap | None = None  # of the run that may become longer
        self.new_gaps = 0

    @property
    def gaps_among_items(self) -> int:
        return sum(isinstance(item, Gap) for item in self.items)

    def count_passed_over(self, taken: PassedOver) -> None:
        """Count it, and keep it if it is to be reported."""
        if isinstance(taken, Undecodable):
            self.failed.append(taken)
        else:
            self.rereads += 1

    def begin_run(self, reason: GapReason) -> None:
        """End a run of another reason; count a new one."""
        if self.gap is not None and self.gap.reason is not reason:
            self.end_run(None)
        self.new_gaps += self.gap is None

    def end_run(self, follower: Item | None) -> None:
        """Add the gap of the run, if there is one, and what follows it."""
        self.items += [item for item in (self.gap, follower) if item is not None]
        self.gap = None


def decoding_of(
    subscriber: Subscriber,
    peek: Callable[[], Item | None],
    channels: Iterable[Channel[Any]],
    warnings: WarningLimit,
    *,
    wants_gaps: bool,
    keeps_context: bool = True,
) -> Decoding | None:
    """
    Return what takes and decodes, as Decoding says; None if all payloads are texts.

    With ``keeps_context`` notifications may be of a subclass, which streams do not take.
    """
    several = tuple(channels)
    decode = decoder_of(several)
    if decode is None:
        return None
    if keeps_context:
        decode = with_contexts(decode, several)
    return Decoding(subscriber, peek, decode, wants_gaps=wants_gaps, warnings=warnings)


class DecodeErrors:
    """Logs the payloads of one subscription that cannot be decoded."""

    def __init__(self) -> None:
        self._unlogged = 0
        self._quiet_until = 0.0

    def log(self, item: Undecodable) -> None:
        """Log at times. Neither payload nor decoder's message is logged: that may quote it."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        more = f"; {self._unlogged} more since the last line" if self._unlogged else ""
        self._unlogged, self._quiet_until = 0, now + _LOG_INTERVAL
        pid = item.notification.pid
        channel = item.notification.channel
        text = "%s (sent by backend %d)%s"
        log.error(text, item.error, pid, more, channel=channel, pid=pid)
