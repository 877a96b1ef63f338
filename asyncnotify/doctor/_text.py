"""A report as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify._arguments import check_present
from asyncnotify._escaping import escaped
from asyncnotify.doctor._findings import SERIOUS_FIRST, Finding, Report, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH: Final = 9
_INDENT: Final = " " * _WIDTH


def as_text(report: Report, *, everything: bool = False) -> str:
    """
    Return a report as text for a terminal, without colours; no line has control characters.

    Args:
        report: What ``diagnose()`` has returned.
        everything: Whether to show the checks that found nothing, too.

    Raises:
        TypeError: ``report`` is no Report.
    """
    check_present("report", report, Report)
    return "\n".join(_lines(report, everything=everything)) + "\n"


def shown(report: Report, *, everything: bool) -> list[Finding]:
    """Return the findings to be shown, the worst first."""
    return [f for f in report.findings if everything or f.severity is not Severity.OK]


def headline(report: Report) -> str:
    """Return which server it was."""
    version = report.server_version
    return escaped(f"{report.target}: " + (f"PostgreSQL {version}" if version else "no connection"))


def summary(report: Report) -> str:
    """Return how many findings there are of each severity, and how long it took."""
    severities = [finding.severity for finding in report.findings]
    counts = [(one, severities.count(one)) for one in SERIOUS_FIRST]
    told = ", ".join(f"{count} {one}" for one, count in counts if count)
    return f"{told}; {report.seconds:.1f} s"


def _lines(report: Report, *, everything: bool) -> Iterator[str]:
    yield headline(report)
    for finding in shown(report, everything=everything):
        yield escaped(f"{finding.severity:{_WIDTH}}{finding.check}: {finding.title}")
        for line in finding.evidence:
            yield _INDENT + escaped(line)
        if finding.cure:
            yield _INDENT + escaped(f"cure: {finding.cure}")
    yield summary(report)
