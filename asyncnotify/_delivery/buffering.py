"""What a subscription does with notifications that its consumer has not taken yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from asyncnotify._arguments import check_count
from asyncnotify._delivery.bounded import BoundedMailbox, Overflow
from asyncnotify._delivery.latest import LatestMailbox

if TYPE_CHECKING:
    from asyncnotify._delivery.mailbox import Mailbox
    from asyncnotify._delivery.router import Router

DEFAULT_BUFFER: Final = 32_768
"""Notifications: more than the 21,845 of the smallest that one read of asyncio's loop brings."""


@dataclass(frozen=True, slots=True)
class Buffering:
    """How much a subscription buffers, and what happens when that is not enough."""

    buffer: int
    overflow: Overflow
    latest: bool

    def __post_init__(self) -> None:
        check_count("buffer", self.buffer)
        if self.overflow not in get_args(Overflow):
            choices = ", ".join(map(repr, get_args(Overflow)))
            msg = f"overflow must be one of {choices}, not {self.overflow!r}"
            raise ValueError(msg)

    def new_mailbox(self, channels: tuple[str, ...], router: Router) -> Mailbox:
        """Return an empty mailbox for a subscription of these channels."""
        if self.latest:
            return LatestMailbox()
        return BoundedMailbox(
            self.buffer,
            self.overflow,
            channel=channels[0] if len(channels) == 1 else None,
            source=router,
        )
