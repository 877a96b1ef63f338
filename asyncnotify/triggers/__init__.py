"""
Triggers that tell of every change of a table, without any PL/pgSQL written by hand.

``Table`` makes them; what they send arrives on ``Table.changes``. The module's path is its API,
with the names in ``__all__``.
"""

from asyncnotify.triggers._blocking import BlockingTable
from asyncnotify.triggers._changes import Change
from asyncnotify.triggers._errors import (
    DefinitionError,
    LockTimeoutError,
    NotInstalledError,
    TriggerError,
    UnknownTableError,
)
from asyncnotify.triggers._status import Status, TriggerState
from asyncnotify.triggers._table import Table

__all__ = [
    "BlockingTable",
    "Change",
    "DefinitionError",
    "LockTimeoutError",
    "NotInstalledError",
    "Status",
    "Table",
    "TriggerError",
    "TriggerState",
    "UnknownTableError",
]

for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
