"""Stands in for ``asyncnotify.Reread`` until the core has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reread:
    """
    What a payload that says "read again" becomes.

    Attributes:
        count: How many changes the sender left out; None if it does not say.
    """

    count: int | None = None
