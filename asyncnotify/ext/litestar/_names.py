"""The channels of PostgreSQL that stand for channels of Litestar, whose names may be any text."""

from __future__ import annotations

import hashlib
from typing import Final

from asyncnotify._channels.names import CHANNEL_LIMIT, check_channel
from asyncnotify._errors import ChannelNameError

_HASHED: Final = "hash:"
_DIGEST_SIZE: Final = 20
"""Bytes: 160 bits, in 40 hexadecimal digits."""

PREFIX_LIMIT: Final = CHANNEL_LIMIT - len(_HASHED) - 2 * _DIGEST_SIZE
"""Bytes."""


def check_prefix(prefix: str) -> str:
    """
    Return the prefix if every name that begins with it can be that of a channel.

    Raises:
        ChannelNameError: The prefix holds NUL or a lone surrogate, or is too long.
    """
    if not prefix:
        return prefix
    if len(check_channel(prefix).encode()) > PREFIX_LIMIT:
        raise ChannelNameError(prefix, f"is a prefix of more than {PREFIX_LIMIT} bytes")
    return prefix


def name_in_postgres(prefix: str, channel: str) -> str:
    """
    Return the name that PostgreSQL can take: the prefix and the channel, if they are one.

    Litestar tells nobody when a subscription has failed, and counts the subscriber all the same.
    So no name is refused: a hash stands for one that is empty, over 63 bytes or not to be encoded.
    """
    name = prefix + channel
    try:
        checked = check_channel(name)
    except ChannelNameError:
        return prefix + _hash_of(channel)
    return prefix + _hash_of(channel) if not channel or channel.startswith(_HASHED) else checked


def _hash_of(channel: str) -> str:
    data = channel.encode("utf-8", "surrogatepass")
    return _HASHED + hashlib.blake2b(data, digest_size=_DIGEST_SIZE).hexdigest()
