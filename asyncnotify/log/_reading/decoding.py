"""From rows to events."""

from __future__ import annotations

import json
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from asyncnotify import Gap, GapReason
from asyncnotify._channels.arguments import channels_of
from asyncnotify._channels.channel import RereadError
from asyncnotify._errors import PayloadDecodeError
from asyncnotify._logs import Log
from asyncnotify.log._values import Event, events_of, with_contents

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncnotify import Channel
    from asyncnotify.log._values import Position
    from asyncnotify.log._walk.cursor import Portion

log = Log("log")

_NO_HEADERS: Final[Mapping[str, str]] = {}
_ONLY_TEXTS: Final = frozenset({str})
_NO_TEXTS: Final = "comes with headers that are no JSON object of texts"


class Undecoded(NamedTuple):
    """
    An event that cannot be decoded.

    Attributes:
        position: Where it stands.
        error: Why.
        appended_at: When it was appended.
    """

    position: Position
    error: PayloadDecodeError
    appended_at: datetime

    @property
    def gap(self) -> Gap:
        """What a reader gets in the place of the event."""
        channel = self.error.channel
        if isinstance(self.error, RereadError):
            return Gap(channel, GapReason.REREAD, self.appended_at, self.error.count)
        return Gap(channel, GapReason.UNDECODABLE, self.appended_at)


Decoded: TypeAlias = Event[Any] | Undecoded


def shown(decoded: Decoded) -> Event[Any] | Gap:
    """Return the event, or a Gap in the place of one that has no payload."""
    return decoded if isinstance(decoded, Event) else decoded.gap


def headers_of(channel: str, headers: str) -> Mapping[str, str]:
    """
    Return the headers of an event from their JSON.

    Raises:
        PayloadDecodeError: They are no object of texts: the owner of the table can store any.
    """
    # The decoder refuses long numbers and deep arrays, which PostgreSQL takes
    try:
        named = json.loads(headers)
    except (ValueError, RecursionError) as error:
        raise PayloadDecodeError(channel, _NO_TEXTS) from error
    if type(named) is not dict or not _ONLY_TEXTS.issuperset(map(type, named.values())):
        raise PayloadDecodeError(channel, _NO_TEXTS)
    texts: Mapping[str, str] = named
    return texts


class Decoder:
    """
    Makes events of rows, with the channels that a reader has named.

    Args:
        log: The name of the log.
        channels: Names and Channels; none: all, with payloads as texts.

    Raises:
        ChannelNameError: One of them cannot be a channel.
        TypeError: A channel is given in two forms.
    """

    def __init__(self, log: str, channels: tuple[object, ...]) -> None:
        self._log = log
        self._channels: dict[str, Channel[Any]] = channels_of(channels)
        self.names: list[str] | None = list(self._channels) or None
        self.undecodable: int = 0

    def decoded(self, portion: Portion) -> list[Decoded]:
        """Return the events of a portion, or why one cannot be decoded."""
        events, headers = self._texts(portion), portion.columns.headers
        if not self._channels and headers.count(None) == len(headers):
            return events
        return list(map(self._event, events, headers))

    def _texts(self, portion: Portion) -> list[Any]:
        """Return the events as they would be without headers, their payloads as texts."""
        epoch, ticks, columns = portion
        return events_of(
            *(repeat(self._log), repeat(epoch), ticks, columns.ids, columns.uids),
            *(columns.channels, columns.payloads, columns.keys, repeat(_NO_HEADERS)),
            columns.times,
        )

    def _event(self, event: Event[str], headers: str | None) -> Decoded:
        channel = self._channels.get(event.channel)
        if channel is None and headers is None:
            return event
        try:
            payload = event.payload if channel is None else channel.decode(event.payload)
            named = _NO_HEADERS if headers is None else headers_of(event.channel, headers)
        except RereadError as error:
            return Undecoded(event.position, error, event.appended_at)
        except PayloadDecodeError as error:
            self.undecodable += 1
            log.error("event %s at %s cannot be decoded: %s", event.id, event.position, error)  # noqa: TRY400 - its traceback may quote the payload
            return Undecoded(event.position, error, event.appended_at)
        return with_contents(event, payload, named)
