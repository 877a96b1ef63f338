"""The judge of publishing: whether each call of a notifier told what has become of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Call", "Ledger", "Outcome"]


class Outcome(StrEnum):
    """What a call has told."""

    RETURNED = "returned"
    """It has been sent."""
    REFUSED = "not sent"
    """ConnectError or NotifyTimeoutError: it has not been sent."""
    IN_DOUBT = "in doubt"
    """ConnectionLostError, or cancelled: it may have been sent."""
    UNEXPECTED = "unexpected error"
    """Any other exception: none is expected here."""


@dataclass(frozen=True, slots=True)
class Call:
    """One notification, and what was told of it."""

    payload: str
    outcome: Outcome
    repeats: bool = False
    """Whether it may arrive more than once, because it was tried again."""
    told: str = ""
    """The exception, if there was one."""


@dataclass(slots=True)
class Ledger:
    """What was told of each notification, and what a listener at the server has heard."""

    calls: list[Call] = field(default_factory=list[Call])
    heard: list[str] = field(default_factory=list[str])
    foreign_rows: int = 0
    """Rows that the statement of another program wrote though that program did not run it."""

    @property
    def counts(self) -> Counter[str]:
        """How many calls there were of each outcome."""
        return Counter(call.outcome.value for call in self.calls)

    @property
    def false(self) -> list[str]:
        """A line for each call that did not tell what became of it."""
        heard = Counter(self.heard)
        lines = [line for call in self.calls if (line := _fault(call, heard[call.payload]))]
        unknown = heard.keys() - {call.payload for call in self.calls}
        lines += [f"{payload!r} was heard, and sent by nobody" for payload in sorted(unknown)]
        if self.foreign_rows:
            lines.append(f"{self.foreign_rows} rows were written by a statement of somebody else")
        return lines + self._out_of_order()

    def _out_of_order(self) -> list[str]:
        """Return a line for each that overtook one which the same task had sent before."""
        place = {payload: place for place, payload in enumerate(self.heard)}
        newest: dict[str, int] = {}
        lines = []
        for call in self.calls:
            if call.outcome is Outcome.RETURNED and not call.repeats and call.payload in place:
                task = call.payload.rpartition(" ")[0]
                if place[call.payload] < newest.get(task, -1):
                    lines.append(f"{call.payload!r} was heard before one sent earlier")
                newest[task] = place[call.payload]
        return lines


def _fault(call: Call, times: int) -> str | None:
    """Return what is wrong with a call of which so many notifications were heard."""
    if call.outcome is Outcome.UNEXPECTED:
        return f"{call.payload!r} raised {call.told}"
    if call.outcome is Outcome.RETURNED and not times:
        return f"{call.payload!r} was never heard, though the call returned"
    if call.outcome is Outcome.REFUSED and times:
        return f"{call.payload!r} was heard, though the call raised {call.told}"
    if times > 1 and not call.repeats:
        return f"{call.payload!r} was heard {times} times"
    return None
