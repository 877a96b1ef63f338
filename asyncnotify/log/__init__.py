"""
The durable log: events in rows, appended in the caller's transaction, and read in one order.

NOTIFY only wakes those who read. The module's path is its API, with the names in ``__all__``.
"""

from asyncnotify.log._errors import (
    LogError,
    LogNameError,
    NotInstalledError,
    PositionError,
    SchemaVersionError,
    StandbyError,
)

__all__ = [
    "LogError",
    "LogNameError",
    "NotInstalledError",
    "PositionError",
    "SchemaVersionError",
    "StandbyError",
]
