"""What a diagnosis says: findings, and the report that holds them."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    """The check found nothing wrong."""
    INFO = "info"
    """Good to know; nothing has to be done."""
    UNKNOWN = "unknown"
    """The check could not find out: a privilege is missing, or it failed. Not the same as ok."""
    WARNING = "warning"
    """Works now, and will fail or be slow under some condition."""
    ERROR = "error"
    """Notifications do not arrive, or cannot be sent."""


SERIOUS_FIRST: Final = tuple(reversed(Severity))
"""The severities, the worst first."""

_EXIT_STATUSES: Final = {
    Severity.OK: 0,
    Severity.INFO: 0,
    Severity.ERROR: 1,
    Severity.WARNING: 5,
    Severity.UNKNOWN: 6,
}
_UNREACHABLE: Final = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What one check has found.

    Attributes:
        check: The name of the check.
        severity: How bad this is.
        title: What was found, in one sentence.
        evidence: What was seen, one line each: values of the server's, pids, names.
        cure: What to do about it; empty where nothing has to be done.
    """

    check: str
    severity: Severity
    title: str
    evidence: tuple[str, ...] = ()
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a diagnosis has found.

    Attributes:
        target: Where it connected, without a password.
        server_version: What the server calls its version; None without a connection.
        seconds: How long the diagnosis took.
        findings: The worst first.
    """

    target: str
    server_version: str | None
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def is_reachable(self) -> bool:
        """Whether there was a connection."""
        return self.server_version is not None

    @property
    def severity(self) -> Severity:
        """The severity of the worst finding."""
        found = {finding.severity for finding in self.findings}
        return next((one for one in SERIOUS_FIRST if one in found), Severity.OK)

    @property
    def exit_status(self) -> int:
        """
        The status with which a command ends.

        0: nothing worse than info. 1: an error. 3: no connection. 5: warnings, and no error.
        6: neither, but a check could not find out. 2 is left to wrong arguments.
        """
        return _EXIT_STATUSES[self.severity] if self.is_reachable else _UNREACHABLE

    def to_json(self) -> dict[str, Any]:
        """Return the report as what ``json.dumps()`` takes."""
        return {
            "target": self.target,
            "server_version": self.server_version,
            "seconds": round(self.seconds, 3),
            "severity": self.severity.value,
            "exit_status": self.exit_status,
            "findings": [asdict(finding) for finding in self.findings],
        }
