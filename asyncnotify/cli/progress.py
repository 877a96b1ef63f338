"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["progress"]


@contextlib.contextmanager
def progress(seconds: float) -> Generator[Callable[[str, float], None]]:
    """Show how far a command is that takes a known time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:  # an older rich ends a bar that it does not show with a line feed
        yield lambda _name, _by: None
        return
    columns = (TextColumn("{task.description:13}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=seconds)
    with bar:
        yield lambda name, by: bar.update(task, description=name, advance=by)
