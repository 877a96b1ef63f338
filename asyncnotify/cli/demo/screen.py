"""The demo's output: with rich on a terminal, in plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.live import Live
    from rich.text import Text

_STYLES: Final = {
    "server": "dim",
    "listening": "green",
    "sent": "blue",
    "received": "green",
    "breaking": "bold red",
    "lost": "red",
    "retry": "yellow",
    "back": "bold green",
    "gap": "bold magenta",
    "caught up": "cyan",
}
_LABEL_WIDTH: Final = max(map(len, _STYLES))
_WIDEST: Final = 100
_REFRESHES: Final = 10.0

Row = tuple[str, ...]


class Screen(Protocol):
    """Where the demo shows what happens. A context manager; nothing shows outside of it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def text(self, text: str) -> None:
        """Show a paragraph."""

    def heading(self, title: str) -> None:
        """Show a heading."""

    def event(self, label: str, text: str) -> None:
        """Show that something happened now, under one of a few labels."""

    def show_status(self, status: Callable[[], str]) -> None:
        """Show a status, updated as long as the screen is open, where a terminal allows it."""

    def table(self, header: Row, rows: Sequence[Row]) -> None:
        """Show a table; all columns but the first hold figures."""

    def conclusion(self, text: str, *, good: bool) -> None:
        """Show the conclusion."""


def open_screen(*, plain: bool) -> Screen:
    """Return the screen that suits the output."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="replace"
        )  # a character that cannot be encoded becomes a question mark
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if plain or not terminal:
        return PlainScreen()
    if importlib.util.find_spec("rich") is None:
        return PlainScreen(hint="In colour with rich: pip install 'asyncnotify-pg[demo]'")
    return RichScreen()


def _judgement(*, good: bool) -> str:
    return "KEPT" if good else "BROKEN"


class PlainScreen:
    """Plain lines, each written at once."""

    def __init__(self, hint: str = "") -> None:
        self._hint = hint
        self._began = time.monotonic()
        self._pipe_closed = False

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._hint:
            self._write(self._hint)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def text(self, text: str) -> None:
        """Show a paragraph."""
        self._write(text)

    def heading(self, title: str) -> None:
        """Show a heading."""
        self._write(f"\n{title}")

    def event(self, label: str, text: str) -> None:
        """Show that something happened now."""
        self._write(f"{time.monotonic() - self._began:8.3f}  {label:<{_LABEL_WIDTH}}  {text}")

    def show_status(self, status: Callable[[], str]) -> None:
        """Show nothing: updating a status needs a terminal."""

    def table(self, header: Row, rows: Sequence[Row]) -> None:
        """Show a table."""
        lines = [header, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for first, *rest in lines:
            figures = (text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))
            self._write("  ".join((f"  {first:<{widths[0]}}", *figures)).rstrip())

    def conclusion(self, text: str, *, good: bool) -> None:
        """Show the conclusion."""
        self._write(f"\n{_judgement(good=good)}: {text}")

    def _write(self, text: str) -> None:
        """
        Print a line, or raise BrokenPipeError if the reader has left, as after ``| head``.

        Every later call raises too: inside a handler, the worker contains the first error.
        """
        if self._pipe_closed:
            raise BrokenPipeError
        try:
            print(text, flush=True)
        except BrokenPipeError:
            self._pipe_closed = True
            # What is left in the buffer goes nowhere, instead of failing when Python exits.
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            raise


class RichScreen:
    """Colours, and a status at the bottom that is updated."""

    def __init__(self) -> None:
        from rich.console import Console

        console = Console(highlight=False)
        self._console = Console(highlight=False, width=min(console.width, _WIDEST))
        self._began = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def text(self, text: str) -> None:
        """Show a paragraph."""
        self._console.print(text, markup=False)

    def heading(self, title: str) -> None:
        """Show a heading."""
        from rich.rule import Rule
        from rich.text import Text

        self._console.print()
        self._console.print(Rule(Text(title, style="bold"), align="left", style="dim"))

    def event(self, label: str, text: str) -> None:
        """Show that something happened now."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=7, justify="right")
        grid.add_column(width=_LABEL_WIDTH)
        grid.add_column()
        style = _STYLES[label]
        grid.add_row(
            Text(f"{time.monotonic() - self._began:.3f}", style="dim"),
            Text(label, style=style),
            Text(text, style="dim" if style == "dim" else ""),
        )
        self._console.print(grid)

    def show_status(self, status: Callable[[], str]) -> None:
        """Show a status at the bottom that is updated."""
        from rich.live import Live
        from rich.text import Text

        def render() -> Text:
            return Text.assemble("\n", (f" {status()} ", "reverse"))

        self._live = Live(
            get_renderable=render,
            console=self._console,
            refresh_per_second=_REFRESHES,
            transient=True,
        )
        self._live.start()

    def table(self, header: Row, rows: Sequence[Row]) -> None:
        """Show a table."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        self._stop_status()
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=True)
        for number, name in enumerate(header):
            table.add_column(name, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def conclusion(self, text: str, *, good: bool) -> None:
        """Show the conclusion."""
        from rich.text import Text

        self._stop_status()
        colour = "green" if good else "red"
        self._console.print()
        self._console.print(
            Text.assemble((f" {_judgement(good=good)} ", f"bold reverse {colour}"), f" {text}")
        )

    def _stop_status(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
