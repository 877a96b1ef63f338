"""The fixtures of ``tests/faults`` that the tests here need as well."""

from __future__ import annotations

from tests.faults.conftest import (
    battered_server,
    connects_by,
    database,
    own_database,
    spare_databases,
    spare_dsn,
)

__all__ = [
    "battered_server",
    "connects_by",
    "database",
    "own_database",
    "spare_databases",
    "spare_dsn",
]
