"""Reading the counters of a listener in another thread than that of its event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncnotify import BlockingListener, Listener, Stats

_ATTEMPTS: Final = 10


def stats_of(listener: Listener | BlockingListener) -> Stats | None:
    """
    Return the counters; None if the loop has changed the subscriptions during each attempt.

    Collectors of metrics have threads of their own, and subscriptions come and go meanwhile.
    """
    for _ in range(_ATTEMPTS):
        try:
            return listener.stats()
        except RuntimeError:  # a dict has changed its size while it was iterated over
            continue
    return None
