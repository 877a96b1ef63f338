"""A session on a fake connection."""

from __future__ import annotations

import asyncio

from asyncnotify._asyncpg.listen_check import ListenCheck
from asyncnotify._asyncpg.session import ListeningSession
from tests.unit.fake_connection import FakeConnection

Notified = tuple[int, str, str]


class SessionHarness:
    """A session on a fake connection, with a command timeout of five seconds."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.connection = FakeConnection()
        self.last_contact = 0.0
        self.arrived: list[Notified] = []
        self.losses = 0
        self.listen_check = ListenCheck()
        self.listen_check.is_due = False
        self.session = ListeningSession(
            self.connection,
            on_notification=lambda pid, channel, payload: self.arrived.append(
                (pid, channel, payload)
            ),
            on_lost=self.lose,
            last_contact=lambda: self.last_contact,
            timeout=5.0,
            listen_check=self.listen_check,
        )

    def session_that_wants(self, role: str) -> ListeningSession:
        """Return another session on the connection, for a server of this kind."""
        return ListeningSession(
            self.connection,
            on_notification=lambda _pid, _channel, _payload: None,
            on_lost=self.lose,
            last_contact=lambda: self.last_contact,
            timeout=5.0,
            listen_check=self.listen_check,
            wanted=role,
        )

    def lose(self) -> None:
        """Be told of the loss."""
        self.losses += 1

    def set_last_contact(self) -> None:
        """Let the server be heard now."""
        self.last_contact = self.loop.time()

    @property
    def now(self) -> float:
        """Seconds since the test began."""
        return self.loop.time() - self.began
