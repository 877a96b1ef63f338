"""The command line as a whole: help, the version, wrong arguments, what is not installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, get_args, get_type_hints

import pytest

from asyncnotify import __version__
from asyncnotify.cli import main
from asyncnotify.cli.application import app
from asyncnotify.cli.exits import MEANINGS
from tests.support.demo_runs import ENVIRONMENT, PYTHON, TIME_LIMIT

if TYPE_CHECKING:
    import typer

WITHOUT = """
import sys
sys.modules[{module!r}] = None
from asyncnotify.cli import main
sys.exit(main(["--help"]))
"""


def options_of_seconds(of: typer.Typer = app, *path: str) -> list[tuple[str, ...]]:
    """Return each option that takes a number that need not be whole, with its command before."""
    found = list[tuple[str, ...]]()
    for group in of.registered_groups:
        assert group.typer_instance is not None
        found += options_of_seconds(group.typer_instance, *path, str(group.name))
    for command in of.registered_commands:
        assert command.callback is not None
        for name, hint in get_type_hints(command.callback).items():
            if float in (hint, *get_args(hint)):
                found.append((*path, command.name or command.callback.__name__, f"--{name}"))
    return found


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a command line, 80 columns wide."""
    return subprocess.run(
        [*PYTHON, *command],
        env={**ENVIRONMENT, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "demo"),
        (["demo", "-h"], 0, "asyncnotify demo log --plain"),
        (["--version"], 0, f"asyncnotify-pg {__version__}"),
    ],
)
def test_help_and_version_go_to_standard_output(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Help with its examples, and the version, are results."""
    assert main(arguments) == status
    shown = capsys.readouterr()
    assert words in shown.out
    assert shown.err == ""


def test_what_is_no_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """By every command, with the option's name: also infinity, and what compares with nothing."""
    options = options_of_seconds()
    assert ("doctor", "--timeout") in options
    assert ("trigger", "remove", "--timeout") in options
    for option in options:
        for value in ("nan", "inf", "-inf", "0", "1e300", "soon"):
            assert main([*option, value]) == 2, (option, value)
            shown = capsys.readouterr()
            assert f"'{option[-1]}'" in shown.err
            assert shown.out == ""


def test_a_wrong_command_is_told_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With status 2, and the command that may have been meant."""
    assert main(["dmeo"]) == 2
    shown = capsys.readouterr()
    assert "'demo'" in shown.err
    assert shown.out == ""


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Who tries the program first learns what it can do; that is no error."""
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "See what happens when things break" in shown.out


def test_the_help_explains_every_exit_status() -> None:
    """Each on a line of its own, also at 80 columns."""
    shown = ran("-m", "asyncnotify", "--help").stdout
    lines = [line.strip() for line in shown.splitlines()]
    rows = [f"{status}  {text}" for status, text in MEANINGS.items()]
    at = lines.index(rows[0])
    assert lines[at : at + len(rows)] == rows


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_typer_or_rich_one_line_says_what_to_install(module: str) -> None:
    """With status 2, and no traceback."""
    run = ran("-c", WITHOUT.format(module=module))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == (
        "the command line needs typer and rich: pip install 'asyncnotify-pg[cli]'\n"
    )


def test_the_library_imports_neither_typer_nor_rich() -> None:
    """`import asyncnotify` needs none of what belongs to the command line."""
    script = "import asyncnotify, sys; sys.exit(bool({'typer', 'rich'} & sys.modules.keys()))"
    assert ran("-c", script).returncode == 0


def test_the_help_names_the_program_as_it_was_called() -> None:
    """As a module here; the command that pip installs is called asyncnotify."""
    shown = ran("-m", "asyncnotify", "--help").stdout
    assert "python -m asyncnotify [OPTIONS] COMMAND" in shown
    assert sys.executable not in shown
