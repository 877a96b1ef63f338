"""
Puts the tables of a run into a Markdown page.

Where the page says ``<!-- table: NAME -->``, what stands between that and the next
``<!-- end -->`` is replaced. A name is a section's key, or one of those that ``SUMMARIES`` has, or
``circumstances``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from benchmarks.summary import SUMMARIES, summarise
from benchmarks.table import figure_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.results import Report, Section, Series
    from benchmarks.summary import Summary

_PLACE: Final = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(document: Path, report: Report) -> None:
    """Replace the tables for which there are figures; the others stay as they are."""

    def replacement(place: re.Match[str]) -> str:
        lines = _table(report, place[2])
        return place[0] if lines is None else f"{place[1]}{_joined(lines)}{place[3]}"

    text = document.read_text(encoding="utf-8")
    document.write_text(_PLACE.sub(replacement, text), encoding="utf-8")


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _table(report: Report, name: str) -> list[str] | None:
    if name == "circumstances":
        return [", ".join(f"{what} {value}" for what, value in report.circumstances.items()) + "."]
    section = next((one for one in report.sections if one.key == name), None)
    if section is not None:
        return _of_section(section)
    table = summarise(report, name) if name in SUMMARIES else None
    if table is None:
        return None
    return _of_pivot(table, _never_back(report) if name == "recovery" else set())


def _never_back(report: Report) -> set[str]:
    """Return the peers that were there, and did not come back after a loss."""
    return {
        series.peer
        for section in report.sections
        for series in section.series
        if section.key == "recovery, 1" and not series.good
        if not series.trouble.startswith("not installed")
    }


def _of_section(section: Section) -> list[str]:
    """Return the lines of a table with ratios first."""
    reference = section.named(section.reference)
    columns = [column for column in section.columns if _has(section.series, column.figure)]
    heads = ["", "ratio", *(column.heading for column in columns)]
    rows = [
        [
            series.peer,
            _number(section.ratio(series.peer, reference.peer), 2),
            *(figure_of(series, column) for column in columns),
        ]
        for series in section.series
        if series.good
    ]
    remark = ["", section.remark] if section.remark else []
    return [*_markdown(heads, rows), *remark]


def _has(series: Iterable[Series], figure: str) -> bool:
    return any(one.median(figure) is not None for one in series)


def _of_pivot(table: Summary, never: set[str]) -> list[str]:
    rows = [
        [peer, *(_number(cell, table.digits, "never" if peer in never else "") for cell in cells)]
        for peer, cells in table.rows.items()
        if peer in never or any(cell is not None for cell in cells)
    ]
    return _markdown(["", *table.columns], rows)


def _number(value: float | None, digits: int, absent: str = "") -> str:
    return absent if value is None else f"{value:,.{digits}f}"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    marks = ["---", *("--:" for _ in heads[1:])]
    return [f"| {' | '.join(row)} |" for row in (heads, marks, *rows)]
