"""Channels as callers give them: by name, or as a Channel."""

from __future__ import annotations

from typing import Any

from asyncnotify._channel import Channel
from asyncnotify._names import check_channel, check_payload


def channel_of(channel: object) -> Channel[Any]:
    """Return the channel that was meant; raise ChannelNameError if it cannot be one."""
    return channel if isinstance(channel, Channel) else Channel(check_channel(channel))


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
