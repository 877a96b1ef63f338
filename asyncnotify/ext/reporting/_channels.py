"""The two channels of reporting."""

from __future__ import annotations

from typing import Final

from asyncnotify import Channel

DEFAULT_CHANNEL: Final = "asyncnotify.reports"
"""Where reports go."""


def call_channel(channel: str) -> str:
    """
    Return where roll calls come.

    They have a channel of their own, so that no service receives the reports of the others.

    Raises:
        ChannelNameError: One of the names is not valid for a channel.
    """
    return Channel(f"{Channel(channel).name}.call").name
