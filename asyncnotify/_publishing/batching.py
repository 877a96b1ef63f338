"""Notifications in batches of the size of one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._channels.arguments import encoded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

BATCH_COUNT: Final = 1_000
"""Notifications in one transaction, at most."""

BATCH_CHARACTERS: Final = 1_000_000
"""Characters of payload in one transaction; the notification that exceeds them is its last."""


class _Batch:
    """A batch that is being filled: names of channels, and their payloads."""

    __slots__ = ("_count", "_size", "channels", "payloads")

    def __init__(self, count: int) -> None:
        self._count = count
        self._size = 0
        self.channels: list[str] = []
        self.payloads: list[str] = []

    def add(self, pair: Any) -> bool:  # noqa: ANN401 - any wrong type is refused
        """Add a pair of channel and payload; return whether the batch is full."""
        try:
            channel, payload = pair
            if isinstance(pair, str | bytes):
                raise TypeError  # noqa: TRY301 - two characters unpack like a pair
        except (TypeError, ValueError):
            size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
            msg = (
                "a pair must be a channel and a payload, as ('orders', '1'), not a"
                f" {type(pair).__name__}{size}"
            )
            raise TypeError(msg) from None
        name, text = encoded(channel, payload)
        self.channels.append(name)
        self.payloads.append(text)
        self._size += len(text)
        return len(self.channels) >= self._count or self._size > BATCH_CHARACTERS


async def in_batches(
    pairs: Iterable[Any] | AsyncIterable[Any], count: int
) -> AsyncGenerator[tuple[list[str], list[str]], None]:
    """
    Yield channels and payloads in batches of at most ``count``, checked and encoded.

    Raises:
        ChannelNameError: The name of a channel is not valid.
        ChannelDirectionError: A Channel was made without ``encode``.
        PayloadError: A payload cannot be encoded, or cannot be sent.
        TypeError: An item is not a pair.
    """
    if not isinstance(pairs, AsyncIterable):
        for batch in _batches_of(pairs, count):
            yield batch.channels, batch.payloads
        return
    batch = _Batch(count)
    async for pair in pairs:
        if batch.add(pair):
            yield batch.channels, batch.payloads
            batch = _Batch(count)
    if batch.channels:
        yield batch.channels, batch.payloads


def _batches_of(pairs: Iterable[Any], count: int) -> Iterator[_Batch]:
    batch = _Batch(count)
    for pair in pairs:
        if batch.add(pair):
            yield batch
            batch = _Batch(count)
    if batch.channels:
        yield batch
