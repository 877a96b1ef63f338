"""What was measured: a series of rounds for each peer, and what is claimed of them."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Figures: TypeAlias = "dict[str, float]"
"""What one run of a peer measured, by the name of the figure."""


@dataclass(slots=True)
class Series:
    """All rounds of one peer; a round that failed is None, and ``trouble`` says why."""

    peer: str
    rounds: list[Figures | None] = field(default_factory=list)
    trouble: str = ""

    @property
    def good(self) -> list[Figures]:
        """The rounds that came to their end."""
        return [figures for figures in self.rounds if figures is not None]

    def median(self, figure: str) -> float | None:
        """Return the median of a figure, None if there is none."""
        values = [figures[figure] for figures in self.good if figure in figures]
        return statistics.median(values) if values else None

    def spread(self, figure: str) -> tuple[float, float] | None:
        """Return the smallest and the largest value of a figure."""
        values = [figures[figure] for figures in self.good if figure in figures]
        return (min(values), max(values)) if values else None


def ratio(above: Series, below: Series, figure: str) -> float | None:
    """
    Return how many times the figure of one peer is that of the other.

    It is the median of the ratios within each round, in which both ran side by side: what the
    machine does besides changes from round to round, and falls out.
    """
    pairs = [
        (first[figure], second[figure])
        for first, second in zip(above.rounds, below.rounds, strict=False)
        if first is not None and second is not None and figure in first and figure in second
    ]
    ratios = [first / second for first, second in pairs if second]
    return statistics.median(ratios) if ratios else None


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a table: its name, its heading, and how many digits are shown."""

    figure: str
    heading: str
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that a section has to show, and what it shows."""

    text: str
    limit: float
    measured: float | None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether it holds; None when it could not be measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(slots=True)
class Section:
    """
    One table: peers under the same workload.

    ``columns[0]`` is the figure that the ratios are of, and ``reference`` the peer that has
    the ratio 1.
    """

    key: str
    title: str
    reference: str
    columns: Sequence[Column]
    series: list[Series]
    claims: list[Claim] = field(default_factory=list)
    remark: str = ""

    def named(self, peer: str) -> Series:
        """Return the series of a peer, an empty one if it did not take part."""
        return next((one for one in self.series if one.peer == peer), Series(peer))

    def ratio(self, above: str, below: str, figure: str | None = None) -> float | None:
        """Return how many times the figure of one peer is that of the other."""
        return ratio(self.named(above), self.named(below), figure or self.columns[0].figure)

    def claim(
        self, text: str, limit: float, measured: float | None, *, at_least: bool = True
    ) -> None:
        """Note what has to be shown, beside what is."""
        self.claims.append(Claim(text, limit, measured, at_least))


@dataclass(slots=True)
class Report:
    """A whole run: where it was measured, and its sections."""

    circumstances: Mapping[str, str]
    sections: list[Section] = field(default_factory=list)

    def put(self, section: Section) -> None:
        """Add a section, in place of an older one of the same key."""
        keys = [one.key for one in self.sections]
        if section.key in keys:
            self.sections[keys.index(section.key)] = section
        else:
            self.sections.append(section)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        document = asdict(self)
        for section, told in zip(self.sections, document["sections"], strict=True):
            for claim, entry in zip(section.claims, told["claims"], strict=True):
                entry["met"] = claim.met
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> Report:
    """Return the report that was written to a file."""
    document = json.loads(file.read_text(encoding="utf-8"))
    return Report(document["circumstances"], [_section(told) for told in document["sections"]])


def _section(told: dict[str, Any]) -> Section:
    claims = [
        Claim(**{name: value for name, value in claim.items() if name != "met"})
        for claim in told["claims"]
    ]
    return Section(
        key=told["key"],
        title=told["title"],
        reference=told["reference"],
        columns=[Column(**column) for column in told["columns"]],
        series=[Series(**series) for series in told["series"]],
        claims=claims,
        remark=told["remark"],
    )
