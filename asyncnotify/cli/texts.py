"""The texts of help, as typer shows them: with rich's markup, and a line for each line."""

from __future__ import annotations

from asyncnotify.cli.exits import MEANINGS

__all__ = ["about", "examples", "exit_statuses"]


def about(text: str) -> str:
    """Return paragraphs without the ends of their lines: the terminal's width decides."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def examples(*commands: str) -> str:
    """Return command lines to be copied, each on a line of its own."""
    lines = [command.replace("[", r"\[") for command in commands]
    return "\n".join(["[bold]Examples[/bold]", *lines])


def exit_statuses() -> str:
    """Return the table of exit statuses."""
    rows = [f"{status:>4}  {meaning}" for status, meaning in MEANINGS.items()]
    return "\n".join(["[bold]Exit status[/bold]", *rows])
