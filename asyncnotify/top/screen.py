"""The screen: the only module that needs rich."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from asyncnotify._escaping import escaped
from asyncnotify._logs import silenced
from asyncnotify.top import _texts as texts
from asyncnotify.top._sections import WIDE, Section, sections_of, server_line

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from rich.console import ConsoleOptions, RenderResult

    from asyncnotify.top._model import Snapshot

_HEAD: Final = 3
"""Lines above the tables."""

_LEAST: Final = 3
"""Lines of a table that is cut: its heading, a row, and how many more there are."""

_LEAST_TEXT: Final = 14
"""Characters of a text."""

_NO_SERVICE: Final = "no service reports: asyncnotify.ext.reporting says how"
_ENDLESS: Final = 1_000_000


class View:
    """A snapshot, drawn in the size that there is."""

    def __init__(self, snapshot: Snapshot, *, cut: bool = True) -> None:
        self._snapshot = snapshot
        self._cut = cut

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        snapshot, width = self._snapshot, options.max_width
        height = (options.height or console.height) if self._cut else _ENDLESS
        is_stale = snapshot.state != "connected"
        yield _title(snapshot)
        line, is_bad = server_line(snapshot.server)
        style = "dim" if is_stale else "bold red" if is_bad else ""
        yield Text(line, style, no_wrap=True, overflow="ellipsis")
        sections = sections_of(snapshot)
        if not snapshot.services:
            yield Text(_NO_SERVICE, "yellow", no_wrap=True, overflow="ellipsis")
        for section, lines in zip(sections, _shares(sections, height - _HEAD), strict=True):
            yield Text("")
            yield _table(section, lines, width, is_stale=is_stale)


def _title(snapshot: Snapshot) -> Text:
    server = snapshot.server
    of_server = (
        ""
        if server is None
        else f"  {escaped(server.database)}, PostgreSQL {escaped(server.version)}"
    )
    title = Text.assemble(("asyncnotify top", "bold"), of_server, "  ")
    if snapshot.state == "connected":
        title.append(f"{snapshot.taken_at.astimezone():%H:%M:%S}  q quits", "dim")
    else:
        title.append(
            f" reconnecting: stale for {texts.duration(snapshot.stale_for)} ", "reverse red"
        )
    if snapshot.error:
        title.append(f"  {escaped(snapshot.error)}", "red")
    title.no_wrap, title.overflow = True, "ellipsis"
    return title


def _shares(sections: list[Section], height: int) -> list[int]:
    """Return how many lines each table gets, its heading included: first few, then in turns."""
    wanted = [1 + len(section.rows) + (section.more > 0) for section in sections]
    shares = [min(_LEAST, lines) for lines in wanted]
    room = height - len(sections) - sum(shares)  # a blank line above each
    while room > 0 and shares != wanted:
        for number, lines in enumerate(wanted):
            if shares[number] < lines and room > 0:
                shares[number] += 1
                room -= 1
    return shares


def _shown(section: Section, width: int) -> list[int]:
    """Return the numbers of the columns for which there is room: the last ones go first."""
    columns = section.columns
    shown = [n for n, column in enumerate(columns) if width >= WIDE or not column.wide]
    while sum((columns[n].width or _LEAST_TEXT) + 1 for n in shown) > width and len(shown) > 1:
        shown.pop()
    return shown


def _table(section: Section, lines: int, width: int, *, is_stale: bool) -> Table:
    shown = _shown(section, width)
    table = Table(
        box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold cyan"
    )
    for number in shown:
        column = section.columns[number]
        is_text = column.width is None or column.title == "STATE"
        table.add_column(
            column.title,
            justify="left" if is_text else "right",
            width=column.width,
            ratio=1 if column.width is None else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    is_whole = not section.more and len(section.rows) < lines
    rows = section.rows if is_whole else section.rows[: max(1, lines - 2)]
    for row in rows:
        style = "dim" if is_stale else "red" if row.is_bad else ""
        table.add_row(*(Text(row.cells[number], style) for number in shown))
    if left := len(section.rows) - len(rows) + section.more:
        table.add_row(Text(f"and {left} more", "dim"))
    return table


class _OwnConsole(Console):
    def on_broken_pipe(self) -> None:
        """Tell the caller that the reader has left: rich would end the program."""
        raise BrokenPipeError


class Screen:
    """
    Shows one snapshot after another: on a terminal in place, elsewhere one below the other.

    Args:
        console: Where; None: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = _OwnConsole(highlight=False) if console is None else console
        self.is_gone: bool = False  # whether there is no terminal any more
        self._stack = contextlib.ExitStack()
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._stack.enter_context(silenced())  # lines would stand in the middle of the tables
            with self._noticing_its_end():
                self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            with self._stack, self._noticing_its_end():
                self._live.stop()

    @contextlib.contextmanager
    def _noticing_its_end(self) -> Generator[None]:
        try:
            yield
        except OSError:
            self.is_gone = True
        if not self._console.is_terminal:  # it was one: rich would keep silent from now on
            self.is_gone = True

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        if self._live is None:
            self._console.print(View(snapshot, cut=False))
        else:
            with self._noticing_its_end():
                self._live.update(View(snapshot), refresh=True)

    def redraw(self) -> None:
        """Draw the last snapshot again, in the size that the terminal has now."""
        if self._live is not None:
            with self._noticing_its_end():
                self._live.refresh()
