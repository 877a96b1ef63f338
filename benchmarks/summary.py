"""Several sections of one kind as a single table: peers down, circumstances across."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.results import Report, Section

_AGAINST: Final = "asyncpg add_listener"


@dataclass(frozen=True, slots=True)
class Summary:
    """
    A table of one figure.

    Attributes:
        title: What it shows.
        columns: The circumstances.
        rows: For each peer its figure in each of them, None where it has none.
        digits: How many of them are shown behind the point.
    """

    title: str
    columns: list[str]
    rows: dict[str, list[float | None]]
    digits: int


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    prefix: str
    label: str
    digits: int
    value: Callable[[Section, str], float | None]


def _median(figure: str) -> Callable[[Section, str], float | None]:
    return lambda section, peer: section.named(peer).median(figure)


def _advantage(section: Section, peer: str) -> float | None:
    return None if peer == _AGAINST else section.ratio(_AGAINST, peer)


SUMMARIES: Final = {
    "loops": _Kind("On other loops and Pythons", "burst on ", "{}", 2, _advantage),
    "recovery": _Kind(
        "After the backend was killed", "recovery, ", "{} channels", 1, _median("back")
    ),
    "publishing": _Kind("Publishing", "publishing, ", "{} tasks", 0, _median("rate")),
    "writers": _Kind("Commits with NOTIFY", "writers, ", "{} writers", 0, _median("rate")),
    "latency p50": _Kind("Latency, median", "latency, ", "{}", 0, _median("p50")),
    "latency p99": _Kind("Latency, 99 of 100", "latency, ", "{}", 0, _median("p99")),
    "log append": _Kind(
        "Appending one event a transaction", "log append, ", "{} writers", 0, _median("rate")
    ),
    "log consume": _Kind(
        "Consuming, each batch committed", "log consume, ", "{} a batch", 0, _median("rate")
    ),
    "log latency p50": _Kind("Latency, median", "log latency, ", "{}", 2, _median("p50")),
    "log latency p99": _Kind("Latency, 99 of 100", "log latency, ", "{}", 2, _median("p99")),
}


def summarise(report: Report, name: str) -> Summary | None:
    """Return the table of this name, None if the report has nothing for it."""
    kind = SUMMARIES[name]
    sections = [section for section in report.sections if section.key.startswith(kind.prefix)]
    peers = dict.fromkeys(series.peer for section in sections for series in section.series)
    rows = {peer: [kind.value(section, peer) for section in sections] for peer in peers}
    columns = [_label(kind, section) for section in sections]
    return Summary(kind.title, columns, rows, kind.digits) if sections else None


def _label(kind: _Kind, section: Section) -> str:
    what = section.key.removeprefix(kind.prefix)
    label = kind.label.format(what)
    return label.removesuffix("s") if what == "1" else label
