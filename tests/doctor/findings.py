"""What a report has found, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify.doctor import Severity

if TYPE_CHECKING:
    from asyncnotify.doctor import Finding, Report

BAD = (Severity.WARNING, Severity.ERROR, Severity.UNKNOWN)


def bad(report: Report) -> list[Finding]:
    """Return the findings that are no good news."""
    return [finding for finding in report.findings if finding.severity in BAD]


def of(report: Report, check: str) -> list[Finding]:
    """Return what one check has found."""
    return [finding for finding in report.findings if finding.check == check]


def one(report: Report, check: str, severity: Severity) -> Finding:
    """Return the only finding of a check with this severity."""
    [finding] = [f for f in of(report, check) if f.severity is severity]
    return finding


def text_of(finding: Finding) -> str:
    """Return all of a finding in one text."""
    return "\n".join([finding.title, *finding.evidence, finding.cure])
