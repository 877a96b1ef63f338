"""
Locks among processes, each holder with a larger fencing token than the last; and leaders.

The module's path is its API, with the names in ``__all__``.
"""

from asyncnotify.lock._errors import (
    AlreadyHeldError,
    LockError,
    LockLostError,
    LockNameError,
    LockNotInstalledError,
    LockTimeoutError,
    LockVersionError,
    TooManyLocksError,
)
from asyncnotify.lock._held import Held, Signal
from asyncnotify.lock._leader import Leader
from asyncnotify.lock._lock import Lock
from asyncnotify.lock._locks import Locks

__all__ = [
    "AlreadyHeldError",
    "Held",
    "Leader",
    "Lock",
    "LockError",
    "LockLostError",
    "LockNameError",
    "LockNotInstalledError",
    "LockTimeoutError",
    "LockVersionError",
    "Locks",
    "Signal",
    "TooManyLocksError",
]

for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
