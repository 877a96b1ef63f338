"""
What happens now: services, their channels, the notification queue, locks, and logs.

``snapshot()`` returns it once, ``run()`` shows it until it is ended. The module's path is its API,
with the names in ``__all__``.
"""

from asyncnotify.top._model import (
    ChannelFigures,
    LockWaiter,
    LogFigures,
    PossibleListener,
    ServerFigures,
    ServiceFigures,
    Snapshot,
)
from asyncnotify.top._run import run, snapshot

__all__ = [
    "ChannelFigures",
    "LockWaiter",
    "LogFigures",
    "PossibleListener",
    "ServerFigures",
    "ServiceFigures",
    "Snapshot",
    "run",
    "snapshot",
]

for _public in map(globals().__getitem__, __all__):
    _public.__module__ = __name__  # the name in tracebacks, pickles and docs
