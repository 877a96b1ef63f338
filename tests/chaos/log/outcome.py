"""The figures of a run with a log, and what does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from tests.chaos.judge.log_history import Verdict
    from tests.chaos.judge.log_seeks import SeekVerdict

__all__ = ["LogOutcome"]

_LINES: Final = 40
"""What is shown of what does not hold: the rest is like it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOutcome:
    """
    What became of everything.

    Attributes:
        server: The version of PostgreSQL.
        seed: Which faults were drawn.
        seconds: How long it took, with the end.
        faults: How many of each kind were injected.
        kills: Processes that consume and were killed, by name.
        transactions: Of the writers, by what became of them.
        events: How many were committed.
        emptied: Partitions that retention has emptied.
        streams: How many streams the readers have read with, each after a stored position.
        verdicts: One for each reader, and each consumer that only goes on.
        sought: That of the consumer whose cursor was moved.
        contradictions: In the one order.
        made_up: Events that were not committed, and came.
    """

    server: str
    seed: int
    seconds: float
    faults: Counter[str]
    kills: Mapping[str, int]
    transactions: Mapping[str, int]
    events: int
    emptied: int
    streams: int
    verdicts: Sequence[Verdict]
    sought: SeekVerdict
    contradictions: Sequence[str]
    made_up: Sequence[str]

    @property
    def broken(self) -> list[str]:
        """What does not hold, a line each; empty if all does."""
        lines = [fault for verdict in self.verdicts for fault in verdict.faults]
        lines += [f"sought: {fault}" for fault in self.sought.faults]
        lines += self.contradictions
        lines += [f"made up: {name!r} was not committed" for name in self.made_up]
        return lines[:_LINES]

    def _count(self, word: str) -> int:
        faults = [fault for verdict in self.verdicts for fault in verdict.faults]
        return sum(word in fault for fault in [*faults, *self.contradictions])

    @property
    def verdict(self) -> str:
        """One line."""
        inversions = self._count("inversion") + self._count("elsewhere") + self._count("one place")
        doubled = self._count("doubled")
        missing = self._count("missing") + self._count("Gap told")
        return (
            f"PostgreSQL {self.server}: {self.events:,} events,"
            f" {sum(self.kills.values())} consumers killed, {self.faults.total()} faults in"
            f" {self.seconds:.0f} s: {missing} missing or untold, {inversions} inversions,"
            f" {doubled} doubled, {len(self.made_up)} made up,"
            f" {len(self.sought.faults)} seeks or pauses not heeded:"
            f" {'BROKEN' if self.broken else 'holds'}"
        )

    def __str__(self) -> str:
        """Return the figures, a line each."""
        sought = self.sought
        return "\n".join(
            [
                f"seed {self.seed}; faults: {_listed(self.faults)}",
                f"transactions: {_listed(self.transactions)}",
                f"killed: {_listed(self.kills)}",
                f"partitions emptied: {self.emptied}; streams: {self.streams}",
                f"{'':<16}{'received':>10}{'again':>8}{'at once':>9}{'gaps':>6}{'removed':>9}",
                *map(_line, self.verdicts),
                f"sought: {sought.batches} batches, {sought.seeks} seeks, {sought.pauses} pauses",
                self.verdict,
            ]
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def _line(verdict: Verdict) -> str:
    return (
        f"{verdict.name:<16}{verdict.received:>10,}{verdict.again:>8,}{verdict.longest:>9,}"
        f"{verdict.gaps:>6,}{verdict.removed:>9,}"
    )
