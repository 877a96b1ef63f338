"""The figures of a run, and what does not hold."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from asyncnotify.testing.history import Verdict

__all__ = ["Outcome", "spread"]

_LINES = 40
"""What is shown of one kind of fault found: the rest is like it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of everything, summed up over all subscriptions."""

    seed: int
    seconds: float
    faults: Counter[str]
    sent: int
    recoveries: tuple[float, ...]
    verdicts: tuple[tuple[str, Verdict], ...]
    misplaced_starts: int
    rereads: int
    fences: int
    consumers: int
    failed_resyncs: int
    wrong_rows: tuple[str, ...]
    gaps_judged: int
    late_since: tuple[str, ...]

    @property
    def broken(self) -> list[str]:
        """What does not hold, a line each; empty if all does."""
        lines = [f"{channel}: {verdict}" for channel, verdict in self.verdicts if not verdict.holds]
        if self.misplaced_starts:
            lines.append(f"{self.misplaced_starts} subscriptions did not begin with their Gap")
        return [*lines[:_LINES], *self.wrong_rows[:_LINES], *self.late_since[:_LINES]]

    @property
    def _counts(self) -> dict[str, int]:
        verdicts = [verdict for _, verdict in self.verdicts]
        return {
            "sent": self.sent,
            "subscriptions": len(verdicts),
            "received, over all subscriptions": sum(v.received for v in verdicts),
            "covered by a Gap": sum(len(v.covered) for v in verdicts),
            "untold": sum(len(v.untold) for v in verdicts),
            "duplicated": sum(len(v.duplicated) for v in verdicts),
            "reordered": sum(len(v.reordered) for v in verdicts),
            "told to read again": self.rereads,
            "resyncs that failed": self.failed_resyncs,
            "copies compared with the table": self.fences * self.consumers,
            "wrong rows": len(self.wrong_rows),
            "losses whose since was judged": self.gaps_judged,
            "since after a loss": len(self.late_since),
        }

    def __str__(self) -> str:
        """Return the figures, a line each."""
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        head = (
            f"{self.faults.total()} faults of {len(self.faults)} kinds in {self.seconds:.0f} s,"
            f" seed {self.seed}: {kinds}"
        )
        lines = [f"{name:<34}{count:>10,}" for name, count in self._counts.items()]
        last = f"{'recoveries':<34}{len(self.recoveries):>10,}{spread(self.recoveries)}"
        return "\n".join([head, *lines, last])


def spread(seconds: Sequence[float]) -> str:
    """Return median, 95th percentile and maximum; nothing where there are fewer than two."""
    if len(seconds) < 2:
        return ""
    p95 = statistics.quantiles(seconds, n=20)[-1]
    median, longest = statistics.median(seconds), max(seconds)
    return f"   median {median:.3f} s, p95 {p95:.3f} s, longest {longest:.3f} s"
