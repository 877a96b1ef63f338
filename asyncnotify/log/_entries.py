"""Entries: events as they are appended, checked before any statement is sent."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from asyncnotify._channels.channel import Channel, encoded_up_to
from asyncnotify._channels.names import check_channel, check_payload
from asyncnotify._errors import ChannelNameError, PayloadError
from asyncnotify.log._errors import EntryError

PAYLOAD_LIMIT: Final = 256_000_000
"""Bytes. PostgreSQL reads a literal of less than 512 MiB, in which a byte may take two."""

KEY_LIMIT: Final = 1_024
HEADERS_LIMIT: Final = 65_536


class Entry(NamedTuple):
    """
    An event that is to be appended, all of it as texts.

    Attributes:
        channel: The checked name of the channel.
        payload: The coded payload.
        key: The key, if any.
        headers: JSON of the headers, if any.
        id: The identity that the event will have.
    """

    channel: str
    payload: str
    key: str | None
    headers: str | None
    id: UUID

    @property
    def size(self) -> int:
        """About how many bytes it takes to send it."""
        return 100 + len(self.payload) + len(self.key or "") + len(self.headers or "")


def entry_of(
    channel: str | Channel[Any],
    payload: object,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Entry:
    """
    Return the entry for what a caller wants to append.

    Raises:
        ChannelNameError: The name is empty, over 63 bytes, or holds NUL or a lone surrogate.
        EntryError: The key or the headers cannot be stored.
        PayloadError: The payload cannot be encoded, or holds NUL or a lone surrogate.
        PayloadTooLargeError: The payload is over 256 MB.
    """
    if isinstance(channel, Channel):
        name, text = channel.name, encoded_up_to(channel, payload, PAYLOAD_LIMIT)
    else:
        _check_one(channel)
        name = check_channel(channel)
        text = check_payload(name, payload, PAYLOAD_LIMIT)
    return Entry(name, text, _checked_key(key), _coded_headers(headers), uuid4())


def _check_one(channel: object) -> None:
    if not isinstance(channel, str):
        reason = f"is of type {type(channel).__name__}, not str: an event has one channel, a name"
        raise ChannelNameError(channel, reason)


def _checked_key(key: object) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str):
        part, reason = "key", f"is of type {type(key).__name__}, not str: give a text, as str(key)"
        raise EntryError(part, reason)
    return _checked("key", key, KEY_LIMIT)


def _coded_headers(headers: object) -> str | None:
    if headers is None:
        return None
    if not isinstance(headers, Mapping):
        part, reason = "headers", f"are of type {type(headers).__name__}, not a mapping"
        raise EntryError(part, reason)
    for what, texts in (("name", headers.keys()), ("value", headers.values())):
        for text in texts:
            _check_text(what, text)
            _checked("headers", text, HEADERS_LIMIT)
    return _checked("headers", json.dumps(dict(headers), ensure_ascii=False), HEADERS_LIMIT)


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        kind = type(text).__name__
        part, reason = "headers", f"hold a {what} of type {kind}, not str: both are texts"
        raise EntryError(part, reason)


def _checked(what: str, text: object, limit: int) -> str:
    try:
        return check_payload(what, text, limit)
    except PayloadError as error:
        raise EntryError(what, error.reason) from None
