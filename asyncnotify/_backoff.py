"""How long to wait before the next attempt: iterators of delays."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """
    Exponential backoff with full jitter; calling it starts a new series of delays.

    The first delay is 0: the first attempt is made at once. The delay before attempt n + 2
    is drawn evenly from 0 to ``min(cap, initial * factor ** n)`` seconds, so that many
    listeners that lost the same server do not come back in one moment.

    Attributes:
        initial: Upper bound of the second delay, in seconds; more than 0.
        factor: Growth of the bound from one attempt to the next; at least 1.
        cap: Largest bound, in seconds; at least ``initial``.

    Raises:
        ValueError: A figure lies outside its bounds.
    """

    initial: float = 0.1
    factor: float = 2.0
    cap: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.cap:
            msg = f"0 < initial <= cap is needed, not initial={self.initial}, cap={self.cap}"
            raise ValueError(msg)
        if self.factor < 1:
            msg = f"factor must be at least 1, not {self.factor}"
            raise ValueError(msg)

    def __call__(self) -> Iterator[float]:
        """Return an endless iterator of delays in seconds, from the beginning."""
        yield 0.0
        bound = self.initial
        while True:
            yield random.uniform(0, bound)  # noqa: S311 - jitter, not a secret
            bound = min(self.cap, bound * self.factor)
