"""Which channel names and payloads are allowed, and how a name is quoted in SQL text."""

from __future__ import annotations

from typing import Final

from asyncnotify._errors import ChannelNameError, PayloadError, PayloadTooLargeError

CHANNEL_LIMIT = 63
"""Bytes: NAMEDATALEN - 1. LISTEN cuts longer names without an error; pg_notify refuses them."""

PAYLOAD_LIMIT = 7_999
"""Bytes: NOTIFY_PAYLOAD_MAX_LENGTH - 1 in the server's async.c."""


def check_channel(channel: object) -> str:
    """Return ``channel`` if the server takes it unchanged, else raise ChannelNameError."""
    if (
        type(channel) is str
        and channel.isascii()
        and 0 < len(channel) <= CHANNEL_LIMIT
        and "\0" not in channel
    ):
        return channel  # the common case
    if not isinstance(channel, str):
        name = type(channel).__name__
        raise ChannelNameError(channel, f"is of type {name}, not str{_remedy_of_name(channel)}")
    if not channel:
        raise ChannelNameError(channel, f"is empty; 1 to {CHANNEL_LIMIT} bytes are allowed")
    if "\0" in channel:
        raise ChannelNameError(channel, "contains a NUL character")
    size = _size_in_utf8(channel)
    if size is None:
        raise ChannelNameError(channel, "contains a lone surrogate, which UTF-8 cannot hold")
    if size > CHANNEL_LIMIT:
        raise ChannelNameError(channel, f"is {size} bytes; at most {CHANNEL_LIMIT} are allowed")
    return str.__str__(channel)  # the value of a StrEnum, not its name


def check_payload(channel: str, payload: object, limit: int = PAYLOAD_LIMIT) -> str:
    """Return ``payload`` if the server takes it, else raise PayloadError, without its text."""
    if type(payload) is str and payload.isascii() and len(payload) <= limit and "\0" not in payload:
        return payload  # the common case
    if not isinstance(payload, str):
        name = type(payload).__name__
        raise PayloadError(channel, f"is of type {name}, not str: {_remedy(channel, payload)}")
    if "\0" in payload:
        raise PayloadError(channel, "contains a NUL character")
    size = _size_in_utf8(payload)
    if size is None:
        raise PayloadError(channel, "contains a lone surrogate, which UTF-8 cannot hold")
    if size > limit:
        raise PayloadTooLargeError(channel, size, limit)
    return str.__str__(payload)


def _remedy_of_name(channel: object) -> str:
    """Return what to do with an object that is no name, where that can be guessed."""
    if isinstance(channel, list | tuple | set | frozenset):
        return ": give one channel for each call; stream() takes several, as stream('a', 'b')"
    if isinstance(channel, bytes):
        return ": decode it"
    if isinstance(channel, type):
        return f": a name comes first, as Channel('orders', {channel.__name__})"
    if isinstance(channel, dict) or callable(channel):
        return (
            ": the channel comes first, as in @listener.on('orders') and listen('orders', handler);"
            " stream() takes channels only"
        )
    return next((_BY_MEMBER[name] for name in _BY_MEMBER if hasattr(channel, name)), "")


_BY_MEMBER: Final = {
    "cancel": ": to end one subscription use its cancel()",
    "changes": ": the channel of a Table is its changes",
}
"""What to do with objects of ours, by what they have."""


def _remedy(channel: str, payload: object) -> str:
    """Return what to do with a payload that is no text."""
    if payload is None:
        return "leave it out, to send none"
    if isinstance(payload, bytes | bytearray | memoryview):
        return "decode it, or use a Channel with encode= and decode="
    return f"to send it as JSON use Channel({channel!r}, {type(payload).__name__})"


def quote_identifier(name: str) -> str:
    """Quote a checked name for SQL text: LISTEN takes no parameter."""
    return '"' + name.replace('"', '""') + '"'


def _size_in_utf8(text: str) -> int | None:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None
