"""The results as tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.results import ratio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from benchmarks.results import Claim, Column, Section, Series

_VERDICTS = {True: "[green]met[/]", False: "[red]MISSED[/]", None: "[yellow]not measured[/]"}
HEADINGS = ("spread", "rounds", "note")


def cells(section: Section, series: Series) -> list[str]:
    """Return a row: the peer, its ratio, its figures, and what else there is to say."""
    main = section.columns[0]
    times = ratio(series, section.named(section.reference), main.figure)
    spread = series.spread(main.figure)
    return [
        series.peer,
        "" if times is None else f"{times:.2f}",
        *(figure_of(series, column) for column in section.columns),
        "" if spread is None else f"{number(spread[0], main)} to {number(spread[1], main)}",
        str(len(series.good) or ""),
        series.trouble,
    ]


def figure_of(series: Series, column: Column) -> str:
    """Return the median of a figure, in digits."""
    median = series.median(column.figure)
    return "" if median is None else number(median, column)


def number(value: float, column: Column) -> str:
    """Return a figure in digits."""
    return f"{value:,.{column.digits}f}"


def show_section(console: Console, section: Section) -> None:
    """Print one table."""
    table = Table(
        "peer", "ratio", title=section.title, title_justify="left", caption=section.remark
    )
    for heading in (*(column.heading for column in section.columns), *HEADINGS):
        table.add_column(heading, justify="left" if heading == "note" else "right")
    for series in section.series:
        row = cells(section, series)
        table.add_row(*row, style="bold" if series.peer == section.reference else None)
    console.print(table)


def show_claims(console: Console, claims: Iterable[Claim]) -> None:
    """Print what had to be shown, beside what was."""
    table = Table("target", "must be", "is", "", title="Targets", title_justify="left")
    for claim in claims:
        limit = f"{'≥' if claim.at_least else '≤'} {claim.limit:,g}"
        measured = "" if claim.measured is None else f"{claim.measured:,.4g}"
        table.add_row(claim.text, limit, measured, _VERDICTS[claim.met])
    console.print(table)
