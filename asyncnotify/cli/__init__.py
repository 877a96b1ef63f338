"""The command line: ``asyncnotify``, or ``python -m asyncnotify``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_NOT_INSTALLED = "the command line needs typer and rich: pip install 'asyncnotify-pg[cli]'"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command; return the exit status, which ``asyncnotify --help`` explains.

    Args:
        argv: The arguments. None: those of the process.
    """
    from asyncnotify.cli.streams import open_missing_streams

    open_missing_streams()
    try:
        import rich
        import typer
    except ImportError:
        print(_NOT_INSTALLED, file=sys.stderr)
        return 2
    del rich, typer
    from asyncnotify.cli.application import run

    return run(argv)
