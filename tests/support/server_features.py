"""What versions of PostgreSQL have: tests of what one lacks are skipped, and say so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

__all__ = ["can_fill_queue", "major_of", "needs_small_queue", "needs_version", "small_queue"]

SMALL_QUEUE_SINCE = 17


def major_of(version: str) -> int:
    """Return the major version of ``17.11``, ``19rc1`` or what a server says of itself."""
    found = re.search(r"\d+", version)
    assert found is not None, version
    return int(found[0])


def needs_version(version: str, since: int, feature: str) -> None:
    """Skip the test where a server of this version is too old for a feature."""
    if major_of(version) < since:
        pytest.skip(f"PostgreSQL {version} has no {feature}, which {since} brought")


def small_queue(server: PostgresServer) -> dict[str, str]:
    """Return the settings of a server like this one with a small queue of notifications, if any."""
    return {"max_notify_queue_pages": "64"} if can_fill_queue(server) else {}


def can_fill_queue(server: PostgresServer) -> bool:
    """Return whether its queue can be made small: before 17 every queue takes 8 GB."""
    return major_of(server.version) >= SMALL_QUEUE_SINCE


def needs_small_queue(server: PostgresServer) -> None:
    """Skip the test where the queue of notifications is too large to be filled."""
    needs_version(server.version, SMALL_QUEUE_SINCE, "max_notify_queue_pages")
