"""What a run of the demo came to: the figures, and the promises that were not kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncnotify.cli.demo.orders import SUBSCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from asyncnotify.cli.demo.orders import Subscription
    from asyncnotify.cli.demo.screen import Row
    from asyncnotify.testing.history import Verdict

_A_MILLISECOND: Final = 0.001
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Recovery:
    """
    An outage, and how long the listener took to listen again.

    Attributes:
        what: What happened, as in "after ...".
        seconds: From when the server could be connected to until LISTEN was in effect again;
            None: it never was.
        outage: From the loss until LISTEN was in effect again.
    """

    what: str
    seconds: float | None
    outage: float = 0.0

    def __str__(self) -> str:
        if self.seconds is None:
            return f"never again after {self.what}"
        told = f"{_milliseconds(self.seconds)} after {self.what}"
        away = self.outage - self.seconds
        return f"{told}; the outage lasted {away:.2f} s" if away > 0 else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What a run of the scenario came to.

    Attributes:
        verdicts: What became of the numbers, for each subscription.
        table: The numbers in the table at the end.
        view: The numbers in the view that the handler keeps.
        recoveries: The outages, in order.
        reconnects: How often the listener has reconnected.
        absences: From which to which number it may have missed.
        failures: What else went wrong.
    """

    verdicts: dict[Subscription, Verdict]
    table: Collection[int]
    view: Collection[int]
    recoveries: Sequence[Recovery]
    reconnects: int
    absences: Sequence[tuple[int, int]]
    failures: Sequence[str] = ()

    @property
    def gaps_promised(self) -> int:
        """How many Gaps each subscription should have seen: at the start, and per reconnect."""
        return 1 + self.reconnects

    @property
    def view_is_complete(self) -> bool:
        """Whether the view holds what the table holds."""
        return set(self.view) == set(self.table)

    def lost_while_listening(self, verdict: Verdict) -> list[int]:
        """Return the numbers that a Gap covers by its place, though the listener listened then."""
        return [
            number
            for number in verdict.covered
            if not any(first <= number <= last for first, last in self.absences)
        ]

    def figures(self) -> tuple[Row, list[Row]]:
        """Return the header and the rows of the table that shows it, with what was promised."""
        judged = [self.verdicts[name] for name in SUBSCRIPTIONS]

        def row(what: str, figures: Iterable[int], promised: str = "") -> Row:
            return (what, *(f"{figure:,}" for figure in figures), promised)

        header = ("orders", *SUBSCRIPTIONS, "promised")
        return header, [
            row("sent", (v.sent for v in judged)),
            row("received", (v.received for v in judged)),
            row("covered by a Gap", (len(v.covered) for v in judged)),
            row("silently lost", (len(v.untold) for v in judged), "0"),
            row("lost while listening", map(len, map(self.lost_while_listening, judged)), "0"),
            row("duplicated", (len(v.duplicated) for v in judged), "0"),
            row("reordered", (len(v.reordered) for v in judged), "0"),
            row(
                f"Gaps: start, {self.reconnects} losses",
                (v.gaps for v in judged),
                f"{self.gaps_promised}",
            ),
            ("in the view", f"{len(self.view):,}", "", f"{len(self.table):,}"),
        ]

    def notes(self) -> list[str]:
        """Return how long each recovery took."""
        return [f"listening again {recovery}" for recovery in self.recoveries]

    def problems(self) -> list[str]:
        """Describe every promise that was not kept."""
        found = list(self.failures)
        for name, verdict in self.verdicts.items():
            found.extend(f"{name}: {problem}" for problem in self._problems_of(verdict))
        if not self.view_is_complete:
            wrong = set(self.view) ^ set(self.table)
            found.append(f"the view differs from the table in {len(wrong):,} rows: {_some(wrong)}")
        found.extend(
            f"not listening again after {r.what}" for r in self.recoveries if r.seconds is None
        )
        return found

    def _problems_of(self, verdict: Verdict) -> Iterable[str]:
        wrong = {
            "lost silently": verdict.untold,
            "lost while listening": self.lost_while_listening(verdict),
            "duplicated": verdict.duplicated,
            "reordered": verdict.reordered,
            "received, but never sent": verdict.foreign,
        }
        for what, numbers in wrong.items():
            if numbers:
                yield f"{len(numbers):,} {what}: {_some(numbers)}"
        if verdict.sent != len(self.table):
            yield f"{verdict.sent:,} were committed, but the table has {len(self.table):,} rows"
        accounted = verdict.received + len(verdict.covered) + len(verdict.untold)
        if verdict.sent != accounted - len(verdict.foreign):
            yield f"of {verdict.sent:,} sent, {accounted:,} are accounted for"
        if verdict.gaps != self.gaps_promised:
            yield f"{verdict.gaps} Gaps instead of {self.gaps_promised}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds >= _A_MILLISECOND else "less than 1 ms"


def _some(numbers: Iterable[int]) -> str:
    """Return the first few numbers."""
    first = sorted(numbers)
    return ", ".join(map(str, first[:_SHOWN])) + (", ..." if len(first) > _SHOWN else "")
