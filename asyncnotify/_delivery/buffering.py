"""What a subscription does with notifications that its consumer has not taken yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from asyncnotify._arguments import check_count, check_flag
from asyncnotify._delivery.bounded import BoundedMailbox, Overflow
from asyncnotify._delivery.latest import LatestMailbox

if TYPE_CHECKING:
    from asyncnotify._delivery.mailbox import Mailbox
    from asyncnotify._delivery.router import Router

DEFAULT_BUFFER: Final = 32_768
"""Notifications. One read of asyncio's event loop brings at most 21,845, of the smallest."""


@dataclass(frozen=True, slots=True)
class Buffering:
    """
    How many notifications a subscription buffers, and what it drops when more arrive.

    Raises:
        TypeError: ``latest`` is no bool, or combined with one of the others.
        ValueError: ``buffer`` is no count, or ``overflow`` none of its choices.
    """

    buffer: int | None = None
    overflow: Overflow | None = None
    latest: bool = False

    def __post_init__(self) -> None:
        if self.buffer is not None:
            check_count("buffer", self.buffer)
        if self.overflow is not None and self.overflow not in get_args(Overflow):
            choices = ", ".join(map(repr, get_args(Overflow)))
            msg = f"overflow must be one of {choices}, not {self.overflow!r}"
            raise ValueError(msg)
        check_flag("latest", self.latest)
        if self.latest and not (self.buffer is None and self.overflow is None):
            msg = "latest=True keeps one notification a channel: leave out buffer= and overflow="
            raise TypeError(msg)

    def new_mailbox(self, channels: tuple[str, ...], router: Router) -> Mailbox:
        """Return an empty mailbox for a subscription of these channels."""
        if self.latest:
            return LatestMailbox()
        return BoundedMailbox(
            DEFAULT_BUFFER if self.buffer is None else self.buffer,
            "drop_oldest" if self.overflow is None else self.overflow,
            channel=channels[0] if len(channels) == 1 else None,
            source=router,
        )
