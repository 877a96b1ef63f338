"""The conditions of the network between the fault proxy's clients and its server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Cutoff:
    """A cut that is due once ``left`` more bytes have passed."""

    left: int
    action: Callable[..., object]  # called with the connection; this module does not know its type


@dataclass(slots=True)
class Conditions:
    """
    What the network does to one direction now; all connections of a proxy share it.

    Attributes:
        black_hole: Pass nothing.
        hold_ending: Pass bytes, but neither EOF nor RST.
        delay: Seconds from reading to passing on.
        chunk_size: How many bytes to pass at once, at most; None: no limit.
        interval: Seconds between two chunks.
        cutoff: The cut that is due, if any.
        passed: How many bytes were passed, over all connections.
    """

    black_hole: bool = False
    hold_ending: bool = False
    delay: float = 0.0
    chunk_size: int | None = None
    interval: float = 0.0
    cutoff: Cutoff | None = None
    passed: int = 0

    def heal(self) -> None:
        """Pass everything at once again; the count of bytes stays."""
        self.black_hole = self.hold_ending = False
        self.delay = self.interval = 0.0
        self.chunk_size = self.cutoff = None
