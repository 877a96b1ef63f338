"""How a log connects, and how it learns of news."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify import Listener
    from asyncnotify._backoff import Backoff
    from asyncnotify.log._incidents import OnIncident
    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSessions

Wake: TypeAlias = Literal["commit", "after", "poll"]


class Options:
    """
    How a log connects, and how it learns of news.

    Args:
        names: Of the log.
        sessions: Makes connections.
        listener: One that the caller runs, if any.
        new_listener: Makes one that this log runs; None if it cannot.
        wake: How consumers learn of new events, as Log says.
        poll: Seconds after which one who reads looks for news in any case.
        backoff: Of attempts to connect.
        lock_wait: Seconds for which a call waits for a consumer that a transaction holds.
        on_incident: Called with each incident of a reader or consumer, if given.
    """

    def __init__(
        self,
        names: Names,
        sessions: LogSessions,
        listener: Listener | None,
        new_listener: Callable[[], Listener] | None,
        *,
        wake: Wake,
        poll: float,
        backoff: Backoff,
        lock_wait: float,
        on_incident: OnIncident | None = None,
    ) -> None:
        self.names = names
        self.sessions = sessions
        self.listener = listener
        self.new_listener = new_listener
        self.wake: Wake = wake
        self.poll = poll
        self.backoff = backoff
        self.lock_wait = lock_wait
        self.on_incident = on_incident
