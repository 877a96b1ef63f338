"""A report in colours: needs rich, of the extra ``cli``."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.text import Text

from asyncnotify._escaping import escaped
from asyncnotify.doctor._findings import Finding, Report, Severity
from asyncnotify.doctor._text import headline, shown, summary

__all__ = ["print_report"]

_STYLES: Final = {
    Severity.OK: "green",
    Severity.INFO: "cyan",
    Severity.UNKNOWN: "magenta",
    Severity.WARNING: "yellow",
    Severity.ERROR: "bold red",
}


def print_report(report: Report, console: Console, *, everything: bool = False) -> None:
    """
    Print a report; texts of the server's have no control characters and no markup.

    Args:
        report: What ``diagnose()`` has returned.
        console: Where to print.
        everything: Whether to show the checks that found nothing, too.

    Raises:
        OSError: The console cannot be written to.
    """
    console.print(Text(headline(report), style="bold"))
    for finding in shown(report, everything=everything):
        console.print(_printed(finding))
    console.print(Text(summary(report), style=_STYLES[report.severity]))


def _printed(finding: Finding) -> Text:
    text = Text.assemble(
        (f"{finding.severity:9}", _STYLES[finding.severity]),
        escaped(f"{finding.check}: {finding.title}"),
    )
    for line in finding.evidence:
        text.append(f"\n         {escaped(line)}", style="dim")
    if finding.cure:
        text.append(f"\n         cure: {escaped(finding.cure)}")
    return text
