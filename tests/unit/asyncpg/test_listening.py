from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify._asyncpg._connecting.dial import Dialer
from asyncnotify._asyncpg.listening import ListeningConnections
from asyncnotify._keepalive import Keepalive
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from asyncnotify._asyncpg.session import ListeningSession

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def ignore(pid: int, channel: str, payload: str) -> None:
    """Deliver nothing."""


class Connections:
    """Listening connections over fake connections of the driver."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        dialer = Dialer(None, self._connect, {}, timeout=10.0)
        self.listening = ListeningConnections(dialer, Keepalive(), timeout=5.0)

    async def _connect(self) -> FakeConnection:
        return self.connection

    async def open(self) -> ListeningSession:
        """Open a session that delivers nothing."""
        return await self.listening.open(
            on_notification=ignore, on_lost=lambda: None, last_contact=lambda: 0.0
        )


@pytest.mark.parametrize(("rows", "behind_pooler"), [("SELECT 1", False), ("SELECT 0", True)])
async def test_another_backend_pid_says_that_a_pooler_is_in_between(
    rows: str, *, behind_pooler: bool
) -> None:
    """The session is asked for its pid in the statement that sets keepalive; once more if not."""
    connections = Connections()
    connections.connection.answer = rows
    session = await connections.open()
    assert session.behind_pooler is behind_pooler
    assert session.pid == (0 if behind_pooler else 7)  # what a pooler tells is invented
    statement, *again = connections.connection.statements
    assert len(again) == behind_pooler
    assert "tcp_keepalives_idle" in statement
    assert "pg_backend_pid() OPERATOR(pg_catalog.=) 7" in statement


@pytest.mark.parametrize("cancelled", [False, True])
async def test_r32_a_session_that_cannot_be_opened_leaves_no_connection(*, cancelled: bool) -> None:
    """Lost while it is introduced, or cancelled then: the connection is terminated."""
    connections = Connections()
    connections.connection.answer = LOST
    connections.connection.answer_time = None if cancelled else 0.0
    opening = asyncio.create_task(connections.open())
    await asyncio.sleep(1)
    opening.cancel()
    (outcome,) = await asyncio.gather(opening, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError if cancelled else type(LOST))
    assert connections.connection.terminated


async def test_a_second_connection_notifies_and_stays_open() -> None:
    """Without a payload and in the simple protocol, which every pooler passes."""
    connections = Connections()
    other: Any = await connections.listening.notify_by_another("probe", timeout=2.0)
    assert connections.connection.statements == ['NOTIFY "probe"']
    assert not other.lost


async def test_a_second_connection_that_may_not_notify_is_terminated() -> None:
    """The error is the caller's."""
    connections = Connections()
    connections.connection.answer = asyncpg.InsufficientPrivilegeError("denied")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connections.listening.notify_by_another("probe", timeout=2.0)
    assert connections.connection.terminated


async def test_a_second_connection_that_does_not_answer_is_given_up_in_time() -> None:
    """TimeoutError; the connection is terminated."""
    connections = Connections()
    connections.connection.answer_time = None
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await connections.listening.notify_by_another("probe", timeout=2.0)
    assert loop.time() - began == pytest.approx(2.0, abs=0.1)
    assert connections.connection.terminated
