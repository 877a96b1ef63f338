"""What several checks say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.doctor._findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncnotify.doctor._server import Row

MOST_SHOWN: Final = 10
"""Lines of evidence: of hundreds of sessions the first ones will do."""

TELLS: Final = r"p.prosrc ~* '\m(pg_notify|notify)\M|\masyncnotify\.\w+_append'"
"""The condition that a function, ``p``, notifies or appends to a log."""

HIDDEN: Final = "<insufficient privilege>"
"""What pg_stat_activity shows instead of what another role's session does."""


def fine(check: str, title: str, *evidence: str) -> Finding:
    """Return that a check has found nothing wrong."""
    return Finding(check, Severity.OK, title, evidence)


def needs_monitor(check: str, what: str) -> Finding:
    """Return that the role may not see other roles' sessions."""
    return Finding(
        check,
        Severity.UNKNOWN,
        f"needs pg_monitor: the role may not see {what}",
        (f"other roles' sessions show {HIDDEN}",),
        "GRANT pg_monitor TO the role that runs the doctor, or run it as a superuser",
    )


def first_of(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the first lines, and how many there are more."""
    rest = len(lines) - MOST_SHOWN
    return (*lines[:MOST_SHOWN], *([f"and {rest} more"] if rest > 0 else []))


def joined(names: Iterable[object]) -> str:
    """Return names or numbers in one line."""
    return ", ".join(map(str, names))


def named(row: Row) -> str:
    """Return a session, of a row with pid, application_name, usename, datname, state, seconds."""
    age = row.get("seconds")
    told = [f"pid {row['pid']}", repr(row["application_name"] or "")[:80]]
    told += [f"role {row['usename']}", f"database {row['datname']}"]
    told += [str(row["state"])] if row["state"] else []
    told += [f"waits for {row['wait_event']}"] if row["wait_event"] else []
    told += [f"for {age:.0f} s"] if age is not None else []
    return ", ".join(told)
