"""From rows to events."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import Gap, GapReason
from asyncnotify._channels.arguments import channels_of
from asyncnotify._errors import PayloadDecodeError
from asyncnotify.log._values import Event, Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncnotify import Channel
    from asyncnotify.log._walk.cursor import Portion

logger = logging.getLogger("asyncnotify.log")

_NO_HEADERS: Final[Mapping[str, str]] = {}


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
        self.names = list(self._channels) or None
        self.undecodable = 0

    def events(self, portion: Portion) -> Iterator[Event[Any] | Gap]:
        """Yield the events; in place of one that cannot be decoded a Gap."""
        tick = portion.tick
        for row in portion.rows:
            position = Position(self._log, tick.epoch, tick.number, row["id"])
            yield self._event(position, row)

    def _event(self, position: Position, row: Any) -> Event[Any] | Gap:  # noqa: ANN401 - a record of the driver's
        name: str = row["channel"]
        channel = self._channels.get(name)
        headers = row["headers"]
        try:
            payload = row["payload"] if channel is None else channel.decode(row["payload"])
        except PayloadDecodeError as error:
            self.undecodable += 1
            logger.error("event %s at %s cannot be decoded: %s", row["uid"], position, error)  # noqa: TRY400 - its traceback may quote the payload
            return Gap(name, GapReason.UNDECODABLE, row["appended_at"])
        return Event(
            position,
            row["uid"],
            name,
            payload,
            row["key"],
            _NO_HEADERS if headers is None else json.loads(headers),
            row["appended_at"],
        )
