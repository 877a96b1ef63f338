"""Channels as callers give them: by name, or as a Channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from asyncnotify._channels.channel import Channel, check_direction
from asyncnotify._channels.names import check_channel, check_payload

if TYPE_CHECKING:
    from collections.abc import Iterable

# Weak: a name may come from outside, and must not be kept for ever
_plain_channels: Final[WeakValueDictionary[str, Channel[str]]] = WeakValueDictionary()


def channel_of(channel: object) -> Channel[Any]:
    """
    Return the Channel for a name or a Channel to be received on.

    Raises:
        ChannelNameError: It cannot be a channel.
        ChannelDirectionError: It was made without ``decode``.
    """
    if not isinstance(channel, Channel):
        return _plain_channel(check_channel(channel))
    check_direction(channel, "decode")
    return channel


def _plain_channel(name: str) -> Channel[str]:
    """Return one Channel for all users of a name: ten thousand streams may listen on it."""
    channel = _plain_channels.get(name)
    if channel is None:
        channel = _plain_channels[name] = Channel(name)
    return channel


def channels_of(channels: Iterable[object]) -> dict[str, Channel[Any]]:
    """
    Return the Channels for names and Channels to be received on, by name.

    Raises:
        ChannelNameError: One of them cannot be a channel.
        ChannelDirectionError: One was made without ``decode``.
        TypeError: A channel is given in two forms: its payloads have only one.
    """
    meant: dict[str, Channel[Any]] = {}
    as_given: dict[str, object] = {}
    for channel in channels:
        name = name_of(channel)
        form = channel if isinstance(channel, Channel) else None
        if as_given.setdefault(name, form) is not form:
            msg = f"channel {name!r} is given in two forms: use a stream for each"
            raise TypeError(msg)
        meant.setdefault(name, channel_of(channel))
    return meant


def name_of(channel: object) -> str:
    """Return the name of a Channel, or the name itself; raise ChannelNameError for a wrong one."""
    return channel.name if isinstance(channel, Channel) else check_channel(channel)


def encoded(channel: object, payload: object) -> tuple[str, str]:
    """
    Return the name of the channel, and the payload as the text to be sent.

    Raises:
        ChannelNameError: The name is not valid for a channel.
        ChannelDirectionError: The Channel was made without ``encode``.
        PayloadError: The payload cannot be encoded, or cannot be sent.
    """
    if isinstance(channel, Channel):
        return channel.name, channel.encode(payload)
    name = check_channel(channel)
    return name, check_payload(name, payload)
