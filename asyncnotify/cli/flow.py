"""The numbered flow: what was sent, what two subscriptions saw of it, and the judgement."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from asyncnotify.testing.history import History, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from asyncnotify.cli.screen import Row

Subscription: TypeAlias = Literal["handler", "stream"]
SUBSCRIPTIONS: Final[tuple[Subscription, ...]] = ("handler", "stream")

_A_MILLISECOND: Final = 0.001
_SHOWN: Final = 8


class Flow:
    """
    Takes down, as it happens, what the writer sends and what each subscription sees.

    Attributes:
        view: What the handler has made of it: the numbers it was told of or has read.
        absences: From which to which number the listener may have missed, being away. What is
            missing elsewhere was lost while it listened, even if a Gap stands beside it.
    """

    def __init__(self) -> None:
        self.view: set[int] = set()
        self.absences: list[tuple[int, int]] = []
        self._away_from = 1
        self._history = History()
        self._under_way = self._sent = 0
        self._highest = dict.fromkeys(SUBSCRIPTIONS, 0)
        self._gaps = dict.fromkeys(SUBSCRIPTIONS, 0)
        self._received: dict[Subscription, list[int]] = {name: [] for name in SUBSCRIPTIONS}
        self._news = asyncio.Event()

    @property
    def sent(self) -> int:
        """The highest number that is committed; all that are smaller are so too."""
        return self._sent

    def sending(self, number: int) -> None:
        """Note that a number is about to be sent."""
        self._under_way = number

    def committed(self, number: int) -> None:
        """Note that a number was sent."""
        self._history.published(number)
        self._sent = number
        self._news.set()

    def settle(self, table: Collection[int]) -> None:
        """
        Note which numbers are in the table at the end: those were sent, and no others.

        So nothing is left in doubt, not even a commit whose connection died in flight.
        """
        self._history.published(*table)

    def saw(self, subscription: Subscription, number: int) -> None:
        """Note a number that a subscription received."""
        self._history.saw(subscription, number)
        self._highest[subscription] = max(self._highest[subscription], number)
        self._received[subscription].append(number)
        self._news.set()

    def gap(self, subscription: Subscription) -> None:
        """Note a Gap at this place of a subscription."""
        self._history.gap(subscription)
        self._gaps[subscription] += 1
        self._news.set()

    def listener_lost(self) -> None:
        """Note that the connection was lost: what nobody has seen by now may be missed."""
        self._away_from = min(self._highest.values()) + 1
        self._news.set()

    def listener_listens(self) -> None:
        """Note that LISTEN is in force: only what was being sent by now may have been missed."""
        self.absences.append((self._away_from, self._under_way))
        self._news.set()

    def read(self, numbers: Collection[int]) -> int:
        """Make the view anew from the table; return how many numbers it did not have."""
        news = len(set(numbers) - self.view)
        self.view = set(numbers)
        return news

    def noticed(self) -> None:
        """Let whoever waits look again: something happened that is not taken down here."""
        self._news.set()

    def received(self, subscription: Subscription) -> int:
        """Return how many notifications a subscription has received."""
        return len(self._received[subscription])

    def count(self, subscription: Subscription, first: int, last: int) -> int:
        """Return how many of the numbers from one to another a subscription has received."""
        return sum(first <= number <= last for number in self._received[subscription])

    def everybody_saw(self, number: int) -> bool:
        """Tell whether both subscriptions have come as far as this number."""
        return min(self._highest.values()) >= number

    def gaps_told(self) -> int:
        """Return how many Gaps both subscriptions have seen."""
        return min(self._gaps.values())

    async def until(self, fact: Callable[[], bool], *, within: float) -> bool:
        """Wait until something is true; return whether it became so in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not fact():
                    self._news.clear()
                    await self._news.wait()
        return fact()

    def verdicts(self) -> dict[Subscription, Verdict]:
        """Judge both subscriptions; one that saw nothing is judged as well."""
        return {name: self._history.verdict(name) for name in SUBSCRIPTIONS}


@dataclass(frozen=True, slots=True)
class Recovery:
    """
    An outage, and how long the listener took.

    Attributes:
        what: What happened, as in "after ...".
        seconds: From when the server could be connected to until LISTEN was in force again;
            None: it never was.
        outage: From the loss until LISTEN was in force again.
    """

    what: str
    seconds: float | None
    outage: float = 0.0

    def __str__(self) -> str:
        if self.seconds is None:
            return f"never again after {self.what}"
        told = f"{_milliseconds(self.seconds)} after {self.what}"
        away = self.outage - self.seconds
        return f"{told}; it was away for {away:.2f} s" if away > 0 else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    Everything the promise is measured by.

    Attributes:
        verdicts: What became of the numbers, for each subscription.
        table: The numbers in the table at the end.
        view: The numbers in the view that the handler keeps.
        recoveries: The outages, in order.
        reconnects: How many connections the listener made anew.
        absences: From which to which number it may have missed.
        troubles: What else went wrong.
    """

    verdicts: dict[Subscription, Verdict]
    table: Collection[int]
    view: Collection[int]
    recoveries: Sequence[Recovery]
    reconnects: int
    absences: Sequence[tuple[int, int]]
    troubles: Sequence[str] = ()

    @property
    def gaps_promised(self) -> int:
        """How many Gaps each subscription should have seen: at the start, and per reconnect."""
        return 1 + self.reconnects

    @property
    def view_is_complete(self) -> bool:
        """Whether the view holds what the table holds."""
        return set(self.view) == set(self.table)

    def lost_while_listening(self, verdict: Verdict) -> list[int]:
        """Return the numbers that a Gap covers by its place, but that it cannot excuse."""
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

    def problems(self) -> list[str]:
        """Return every promise that was not kept, in words."""
        found = list(self.troubles)
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
            "lost in silence": verdict.untold,
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
