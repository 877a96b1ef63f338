"""The results as drawings, one SVG file each."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
from typing import TYPE_CHECKING, Any, Final

from benchmarks.queues import OLD_SNAPSHOT
from benchmarks.results import ratio
from benchmarks.summary import Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from benchmarks.results import Column, Report, Section, Series

OURS: Final = "#0b6e99"
OTHERS: Final = "#b8bec5"
_COLOURS: Final = (OURS, "#e07b39", "#7a5195", "#5b8c5a", "#b8bec5", "#8c564b")
_STYLE: Final = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "both",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "asyncnotify",  # the same figures give the same file
}
_SEPARATOR: Final = " · "


def draw(report: Report, directory: Path) -> list[Path]:
    """Draw what there are figures for; return the files. Without matplotlib: none."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update(_STYLE)
    plots: Any = importlib.import_module("matplotlib.pyplot")
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, paint in _CHARTS.items():
        figure: Any = plots.figure(figsize=(8, 4.5), layout="constrained")
        if paint(report, figure):
            file = directory / f"{name}.svg"
            figure.savefig(file, metadata={"Date": None})
            files.append(file)
        plots.close(figure)
    return files


def _burst(report: Report, figure: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """Draw how many times the CPU of our stream each peer takes."""
    section = _section(report, "burst")
    if section is None:
        return False
    reference = section.named(section.reference)
    times = {one.peer: ratio(one, reference, "cpu") for one in section.series}
    shown = sorted((value, peer) for peer, value in times.items() if value is not None)
    axes = figure.subplots()
    colours = [OURS if _is_ours(peer) else OTHERS for _, peer in shown]
    bars = axes.barh([peer for _, peer in shown], [value for value, _ in shown], color=colours)
    axes.bar_label(bars, [f"{value:.2f}" for value, _ in shown], padding=3)
    axes.set_xscale("log")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12, y=0.02)
    _plain_numbers(axes)
    axes.set_xlabel(f"CPU for each notification, {section.reference} = 1")
    axes.set_title(section.title)
    return bool(shown)


def _bars(
    table_of: Callable[[Report], Summary | None],
    label: str,
    scale: str,
    report: Report,
    figure: Any,  # noqa: ANN401 - matplotlib's
) -> bool:
    """Draw a summary as groups of bars."""
    table = table_of(report)
    if table is not None:
        _grouped(figure.subplots(), table, label, scale)
    return table is not None


def _summary(name: str) -> Callable[[Report], Summary | None]:
    return functools.partial(summarise, name=name)


def _beside_old_snapshot(report: Report) -> Summary | None:
    sections = [one for one in report.sections if one.key.startswith("log pinned, ")]
    if not sections:
        return None
    batches = [one.key.removeprefix("log pinned, ") for one in sections]
    columns = [
        f"{batch} a batch, {how}"
        for batch in batches
        for how in ("no old snapshot", "old snapshot")
    ]
    peers = [one.peer for one in sections[0].series if not one.peer.endswith(OLD_SNAPSHOT)]
    rows = {
        peer: [
            section.named(f"{peer}{how}").median("rate")
            for section in sections
            for how in ("", OLD_SNAPSHOT)
        ]
        for peer in peers
    }
    return Summary("Consuming beside an old snapshot", columns, rows, 0)


def _log_consumers(report: Report, figure: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """Draw what each of several consumers costs."""
    section = _section(report, "log consumers")
    if section is None:
        return False
    peers = [one.peer for one in section.series]
    axes = figure.subplots(1, len(section.columns))
    for column, part in zip(section.columns, axes, strict=True):
        values = [one.median(column.figure) or 0.0 for one in section.series]
        bars = part.bar([peer.partition(" ")[0] for peer in peers], values, color=OURS)
        part.bar_label(bars, [f"{value:.{column.digits}f}" for value in values], padding=2)
        part.grid(visible=False, axis="x")
        part.set_xlabel("consumers")
        part.set_title(column.heading.replace(", ", "\n"), fontsize=9)
    return bool(peers)


def _log_growth(report: Report, figure: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """Draw what the log costs by the number of events that it holds."""
    section = _section(report, "log growth")
    if section is None:
        return False
    for column, axes in zip(section.columns, figure.subplots(1, len(section.columns)), strict=True):
        _draw_lines(axes, section, column)
        axes.set_title(column.heading.replace(", ", "\n"), fontsize=9)
    return True


def _growth(report: Report, figure: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """Draw each kind of growth, size against cost, both by tens."""
    keys = ("burst", "channels", "fan-out", "recovery")
    sections = [_section(report, f"growth of the {key}") for key in keys]
    shown = [section for section in sections if section is not None]
    figure.set_size_inches(8, 6.5)
    for section, axes in zip(shown, figure.subplots(2, 2).flat, strict=False):
        _draw_lines(axes, section, section.columns[0])
        axes.set_ylabel(section.columns[0].heading)
        axes.set_title(section.title.replace(", ", "\n"), fontsize=9)
    return bool(shown)


def _draw_lines(axes: Any, section: Section, column: Column) -> None:  # noqa: ANN401 - matplotlib's
    """Draw a line for each peer, size against a figure."""
    for (name, line), colour in zip(_lines(section.series).items(), _COLOURS, strict=False):
        sizes, values = _points(line, column.figure)
        if sizes:
            axes.plot(sizes, values, marker="o", label=name, color=colour)
    axes.set(xscale="log", yscale="log")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 3, high * 3)
    _plain_numbers(axes)
    axes.legend(fontsize=8)


def _plain_numbers(axes: Any) -> None:  # noqa: ANN401 - matplotlib's
    """Write the numbers along both axes out, and only whole powers of ten."""
    ticker: Any = importlib.import_module("matplotlib.ticker")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(ticker.FuncFormatter(_in_words))
            axis.set_minor_formatter(ticker.NullFormatter())


def _in_words(number: float, _: object) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def _lines(series: Iterable[Series]) -> dict[str, list[Series]]:
    lines: dict[str, list[Series]] = {}
    for one in series:
        lines.setdefault(one.peer.partition(_SEPARATOR)[0], []).append(one)
    return lines


def _points(line: Sequence[Series], figure: str) -> tuple[list[float], list[float]]:
    medians = [(one.median("n"), one.median(figure)) for one in line]
    points = [(size, value) for size, value in medians if size is not None and value is not None]
    return [size for size, _ in points], [value for _, value in points]


def _grouped(
    axes: Any,  # noqa: ANN401 - matplotlib's
    table: Summary,
    label: str,
    scale: str,
) -> None:
    """Draw a group of bars for each column."""
    peers = [peer for peer, cells in table.rows.items() if any(cells)]
    width = 0.8 / max(1, len(peers))
    for number, (peer, colour) in enumerate(zip(peers, _colours(peers), strict=True)):
        places = [
            (place + number * width, cell)
            for place, cell in enumerate(table.rows[peer])
            if cell is not None
        ]
        axes.bar(
            [place for place, _ in places],
            [cell for _, cell in places],
            width,
            label=peer,
            color=colour,
        )
    centre = width * (len(peers) - 1) / 2
    labels = [column.replace(", ", "\n") for column in table.columns]
    axes.set_xticks([place + centre for place in range(len(labels))], labels)
    axes.set_yscale(scale)
    _plain_numbers(axes)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(label)
    axes.set_title(table.title)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _colours(peers: Sequence[str]) -> list[str]:
    """Return a colour for each peer; of more than ten, some have the same."""
    ours = ("#0b6e99", "#4ba3c7", "#9fd0e5")
    others = ("#e07b39", "#7a5195", "#5b8c5a", "#b8bec5", "#8c564b", "#d4b106", "#c2185b")
    return list(itertools.islice(itertools.cycle(ours + others), len(peers)))


def _is_ours(peer: str) -> bool:
    return peer.startswith("asyncnotify")


def _section(report: Report, key: str) -> Section | None:
    return next((section for section in report.sections if section.key == key), None)


_EVENTS: Final = "events a second"
_AGE: Final = "ms from append to handler, median"
_LESS: Final = "times less CPU than asyncpg add_listener"
_BACK: Final = "ms until listening again"
_SENT: Final = "notifications a second"

_CHARTS: Final[dict[str, Callable[[Report, Any], bool]]] = {
    "burst": _burst,
    "loops": functools.partial(_bars, _summary("loops"), _LESS, "linear"),
    "recovery": functools.partial(_bars, _summary("recovery"), _BACK, "log"),
    "publishing": functools.partial(_bars, _summary("publishing"), _SENT, "log"),
    "writers": functools.partial(_bars, _summary("writers"), "commits a second", "linear"),
    "growth": _growth,
    "log-append": functools.partial(_bars, _summary("log append"), _EVENTS, "log"),
    "log-consume": functools.partial(_bars, _summary("log consume"), _EVENTS, "log"),
    "log-pinned": functools.partial(_bars, _beside_old_snapshot, _EVENTS, "log"),
    "log-latency": functools.partial(_bars, _summary("log latency p50"), _AGE, "log"),
    "log-consumers": _log_consumers,
    "log-growth": _log_growth,
}
