"""A transaction of another client, with savepoints."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from asyncnotify import ConnectionLostError
from asyncnotify.sources import Transaction
from asyncnotify.testing._fake.rules import check, folded

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from asyncnotify.testing._fake.state import State


class FakeTransaction(Transaction):
    """
    A transaction, on a connection of its own: ``notify(…, connection=)`` takes it.

    It commits when its ``with`` or ``async with`` block ends, and rolls back if that raises. Of
    equal notifications one is delivered, as PostgreSQL does.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.pid: int = state.new_pid()
        self.channels: frozenset[str] = frozenset()
        self._pairs: list[tuple[str, str]] | None = None
        self._lost = False

    def __repr__(self) -> str:
        return f"<FakeTransaction pid={self.pid}>"

    def __enter__(self) -> Self:
        if self._pairs is not None:
            msg = "the transaction has begun already"
            raise RuntimeError(msg)
        self._pairs = []
        self._state.enter(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pairs, self._pairs = self._pairs or [], None
        self._state.leave(self)
        if exc_type is None:
            self._check_connected()
            self._state.process(lambda: self._state.commit(self.pid, pairs))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def pg_notify(self, channel: str, payload: str = "") -> None:
        """
        Send a notification when the transaction commits.

        Raises:
            ChannelNameError: The server would refuse the name.
            PayloadError: The server would refuse the payload.
            ConnectionLostError: The connection has been lost: nothing will be sent.
            RuntimeError: The transaction has not begun, or has ended.
        """
        pairs = self._open()
        check(channel, payload)
        pairs.append((channel, payload))

    @contextlib.contextmanager
    def savepoint(self) -> Generator[None]:
        """Return a context that withdraws what was sent in it if its block raises."""
        outer, self._pairs = self._open(), []
        try:
            yield
        except BaseException:
            self._pairs = outer
            raise
        self._pairs = folded(outer + self._open())

    def _open(self) -> list[tuple[str, str]]:
        self._check_connected()
        if self._pairs is None:
            msg = "the transaction is not open: use it in its `with` block"
            raise RuntimeError(msg)
        return self._pairs

    def _check_connected(self) -> None:
        if self._lost:
            msg = "the connection of the transaction was lost: nothing was sent"
            raise ConnectionLostError(msg)

    # -- the server's side --------------------------------------------------------------------

    def send(self, pid: int, channel: str, payload: str) -> None:
        """Send a notification: none is listened for here."""

    def forget_channels(self) -> None:
        """Listen on nothing: it never does."""

    def pause(self) -> None:
        """Send nothing: nothing is ever sent."""

    def resume(self) -> None:
        """Send again."""

    def cut(self, notice: str | None) -> None:  # noqa: ARG002 - nobody here is told
        """Lose the connection, and the transaction with it."""
        self._lost = True
