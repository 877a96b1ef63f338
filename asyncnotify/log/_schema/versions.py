"""The versions of a log's schema, and the statements that lead from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.log._names import Names, check_log_name
from asyncnotify.log._schema.functions import functions_of
from asyncnotify.log._schema.tables import REGISTRY, SHARED_TABLES, tables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncnotify.log._settings import Settings

    Change = Callable[[Names, Settings], Iterable[str]]

CHANGES: Final[tuple[Change, ...]] = (lambda names, settings: tables_of(names, settings.ring),)
"""How the tables change: the first makes those of version 1, each later one makes the next."""


def newest_version() -> int:
    """Return the newest version that this library knows."""
    return len(CHANGES)


def check_since(since: object) -> None:
    """Raise ValueError unless it is 0, or a version that this library knows."""
    newest = newest_version()
    is_number = isinstance(since, int) and not isinstance(since, bool)
    if not is_number or since not in range(newest + 1):
        msg = f"since must be a version of the schema, 0 to {newest}, not {since!r}"
        raise ValueError(msg)


def statements_of(
    log: str, settings: Settings, *, since: int = 0, changes: Sequence[Change] = CHANGES
) -> list[str]:
    """
    Return the statements that bring a log from a version to the newest, in their order.

    They belong in one transaction. The tables change only where the version does; the functions
    are replaced in any case, with the settings that are in their texts.

    Args:
        log: The name of the log.
        settings: How long events are kept. ``ring`` counts at the first installation only.
        since: The version in the database; 0 if the log is not there.
        changes: How the tables change, from version 1 on.

    Raises:
        LogNameError: No log can have this name.
    """
    names = Names(check_log_name(log))
    statements: list[str] = [*SHARED_TABLES] if since == 0 else []
    for change in changes[since:]:
        statements.extend(change(names, settings))
    statements.extend(functions_of(names, settings))
    statements.append(_registered(log, settings, len(changes)))
    return statements


def _registered(log: str, settings: Settings, version: int) -> str:
    limit = "NULL" if settings.limit is None else _interval(settings.limit.total_seconds())
    kept = _interval(settings.retention.total_seconds())
    return f"""
    INSERT INTO {REGISTRY} (name, version, retention, keep_at_most, ring)
    VALUES ('{log}', {version}, {kept}, {limit}, {settings.ring})
    ON CONFLICT (name) DO UPDATE SET version = excluded.version,
        retention = excluded.retention, keep_at_most = excluded.keep_at_most
    """


def _interval(seconds: float) -> str:
    return f"pg_catalog.make_interval(secs => {seconds:.6f})"
