"""
Triggers that tell of every change of a table, without any PL/pgSQL written by hand.

``Table`` makes them; what they send arrives on ``Table.changes``. The module's path is its API,
with the names in ``__all__``.

For programs in other languages: a payload is a JSON object with

* ``op``: ``insert``, ``update``, ``delete`` or ``truncate``;
* ``n``: the number of the statement within its transaction. Not in a log;
* ``columns``: the names of the columns, those of the key first;
* ``types``: the oids of their types, of a domain those of the type below. Those of PostgreSQL's own
  types are the same in every database;
* ``rows``: an array for each row, with a value for each column, as ``to_json()`` writes it. The
  rows of one statement may come in several payloads; deletes come first, then inserts.

A truncate has ``op`` and ``n`` only. With ``reread``, the number of rows or null, it says "read
again": too many rows, or one that no payload can hold, or something failed. A row that is too large
comes alone, with the columns of its key only.
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
