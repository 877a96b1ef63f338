"""What an agent may note of asyncnotify, and what it may not: judged while a use is tried."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asyncnotify import ConnectionEvent
    from tests.tracing.agents import Agent, Noted

OURS: Final = ('LISTEN "', "listening_channels", "set_config", "pg_backend_pid")
"""Words of the statements by which a session is kept, and that send nothing."""

OTHERS: Final[dict[tuple[str, str], str]] = {
    ("datadog", "listener_connect"): "postgres.connect",
    ("datadog", "notifier_connect"): "postgres.connect",
    ("datadog", "notifier_pool"): "UNLISTEN *",
    ("datadog", "log_pool"): "UNLISTEN *",
    ("sentry", "notifier_pool"): "UNLISTEN *",
    ("sentry", "log_pool"): "UNLISTEN *",
    ("sentry", "*"): "breadcrumb: connect",
}
"""By agent and use, what others do, and what is therefore noted outside of requests: the caller's
``connect=``, and the pool, which resets a connection that it gets back. A breadcrumb of Sentry's
outside of a request is kept with nothing."""

_LOSE: Final = b"""
    SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
"""


class TracedUse:
    """
    One use under one agent.

    Args:
        agent: Which one.
        use: Which one.
        dsn: The database.
    """

    def __init__(self, agent: Agent, use: str, dsn: str) -> None:
        self.agent = agent
        self.dsn = dsn
        self.wrong: list[str] = []
        name = type(agent).__name__.lower()
        self._others = [text for key in (use, "*") if (text := OTHERS.get((name, key)))]
        self._traces: set[str] = set()

    @contextlib.contextmanager
    def quiet_request(self) -> Generator[None]:
        """Run as a request in which nothing is to be noted."""
        yield from self._request(lambda _noted, _trace: False)

    @contextlib.contextmanager
    def sending_request(self) -> Generator[None]:
        """Run as a request in which its own statements, and those that send, may be noted."""
        yield from self._request(_is_child)

    def _request(self, may_be: Callable[[Noted, str], bool]) -> Generator[None]:
        self.look("before a request")
        with self.agent.request() as trace:
            self._traces.add(trace)
            yield
        for noted in self.agent.take():
            if not may_be(noted, trace) and not self._is_of_others(noted):
                self.wrong.append(f"in a request: {noted}")

    def look(self, where: str) -> None:
        """Find wrong whatever has been noted outside of requests."""
        for noted in self.agent.take():
            if not self._is_of_others(noted):
                self.wrong.append(f"{where}: {noted}")

    def _is_of_others(self, noted: Noted) -> bool:
        is_known = any(text in noted.text for text in self._others)
        return noted.trace not in self._traces and is_known

    def check_context(self, where: str) -> None:
        """Find it wrong that this runs in the trace of a request."""
        if self.agent.current() in self._traces:
            self.wrong.append(f"{where} is in the trace of a request")

    def on_event(self, event: ConnectionEvent) -> None:
        """Take an event of a listener's, which happens in nobody's context."""
        self.check_context(f"on_event({type(event).__name__})")

    def lose_all(self) -> None:
        """Let the server end every connection; this one goes past all that agents replace."""
        connection = pq.PGconn.connect(self.dsn.encode())
        connection.exec_(_LOSE)
        connection.finish()


def _is_child(noted: Noted, trace: str) -> bool:
    return noted.trace == trace and not any(word in noted.text for word in OURS)
