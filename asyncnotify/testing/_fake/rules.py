"""What PostgreSQL takes, and what it folds: rules without state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncnotify import ChannelNameError, PayloadError, PayloadTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable

CHANNEL_LIMIT: Final = 63
PAYLOAD_LIMIT: Final = 7_999


def check(channel: Any, payload: Any) -> None:  # noqa: ANN401 - of users, who may be wrong
    """
    Refuse what ``pg_notify()`` refuses.

    Raises:
        ChannelNameError: The name is empty or too long, or is no text for the server.
        PayloadTooLargeError: The payload is over 7,999 bytes.
        PayloadError: The payload is no text for the server.
    """
    check_name(channel)
    if not isinstance(payload, str):
        raise PayloadError(channel, f"is of type {type(payload).__name__}, not str: encode it")
    if (size := _size(payload)) is None:
        raise PayloadError(channel, "contains a NUL character or a lone surrogate")
    if size > PAYLOAD_LIMIT:
        raise PayloadTooLargeError(channel, size, PAYLOAD_LIMIT)


def check_name(channel: Any) -> None:  # noqa: ANN401 - as above
    """Raise ChannelNameError if the server refuses the name, or truncates it."""
    if not isinstance(channel, str):
        raise ChannelNameError(channel, f"is of type {type(channel).__name__}, not str")
    if not channel:
        raise ChannelNameError(channel, f"is empty; 1 to {CHANNEL_LIMIT} bytes are allowed")
    if (size := _size(channel)) is None:
        raise ChannelNameError(channel, "contains a NUL character or a lone surrogate")
    if size > CHANNEL_LIMIT:
        raise ChannelNameError(channel, f"is {size} bytes; at most {CHANNEL_LIMIT} are allowed")


def _size(text: str) -> int | None:
    """Return how many bytes the server would store; None: it stores no such text."""
    try:
        return None if "\0" in text else len(text.encode())
    except UnicodeEncodeError:
        return None


def folded(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return each pair once, in the order in which they came first."""
    return list(dict.fromkeys(pairs))
