"""Channels as callers give them: by name, or as a Channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from asyncnotify._channels.channel import Channel
from asyncnotify._channels.names import check_channel, check_payload

if TYPE_CHECKING:
    from collections.abc import Iterable

_of_texts: Final[WeakValueDictionary[str, Channel[str]]] = WeakValueDictionary()


def channel_of(channel: object) -> Channel[Any]:
    """Return the channel that was meant; raise ChannelNameError if it cannot be one."""
    return channel if isinstance(channel, Channel) else _of_text(check_channel(channel))


def _of_text(name: str) -> Channel[str]:
    """Return one object for all streams of a channel that live: ten thousand may wait for it."""
    channel = _of_texts.get(name)
    if channel is None:
        channel = _of_texts[name] = Channel(name)
    return channel


def channels_of(channels: Iterable[object]) -> dict[str, Channel[Any]]:
    """
    Return the channels that were meant, by name.

    Raises:
        ChannelNameError: One of them cannot be a channel.
        TypeError: One is given in two forms: nobody could say which payload is of which.
    """
    meant: dict[str, Channel[Any]] = {}
    as_given: dict[str, object] = {}
    for channel in channels:
        name = name_of(channel)
        form = channel if isinstance(channel, Channel) else None
        if as_given.setdefault(name, form) is not form:
            msg = f"channel {name!r} is given in two forms: take a stream for each"
            raise TypeError(msg)
        meant.setdefault(name, channel_of(channel))
    return meant


def name_of(channel: object) -> str:
    """Return the name of the channel that was meant; raise ChannelNameError if it is none."""
    return channel.name if isinstance(channel, Channel) else check_channel(channel)


def encoded(channel: object, payload: object) -> tuple[str, str]:
    """
    Return the name of the channel, and the payload as the text that the server takes.

    Raises:
        ChannelNameError: The server would refuse or cut the name.
        PayloadError: The payload cannot be encoded, or not be sent.
    """
    if isinstance(channel, Channel):
        return channel.name, channel.encode(payload)
    name = check_channel(channel)
    return name, check_payload(name, payload)
