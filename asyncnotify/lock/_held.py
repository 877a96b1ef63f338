"""A lock that is held, what tells of its loss, and the check in the user's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg.statements import literal
from asyncnotify._asyncpg.transactions import Call, call_within, explaining, sqlstate_of
from asyncnotify._owner import OfOneProcess
from asyncnotify.lock._errors import LACKS_PRIVILEGE, LockLostError, LockNotInstalledError
from asyncnotify.lock._names import SCHEMA
from asyncnotify.lock._schema import LOST

if TYPE_CHECKING:
    from collections.abc import Callable

_CHECK: Final = (
    f"SELECT {SCHEMA}.lock_check(CAST({{}} AS pg_catalog.text), CAST({{}} AS pg_catalog.int8))"
)

_NO_PRIVILEGE: Final = "42501"
_NOT_INSTALLED: Final = ("3F000", "42883", "42P01")
"""There is no such schema, function or table."""

_NO_TRANSACTION: Final = (
    "the connection is in no transaction, and outside of one a check holds for nothing: begin one"
    " first, and check and write in it"
)


class Signal:
    """
    Something that happens once. ``await signal`` waits for it; ``if signal`` asks.

    Waiting may be cancelled at any time.
    """

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def __bool__(self) -> bool:
        return self._event.is_set()

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether it has happened."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once it has happened. Raises nothing."""
        await self._event.wait()


class Holding:
    """What is known of a lock that a session has, until it is lost or released."""

    def __init__(self, name: str, token: int) -> None:
        self.name = name
        self.token = token
        self.lost: asyncio.Event = asyncio.Event()
        self.resigning: asyncio.Event = asyncio.Event()
        self._cause: LockLostError | None = None
        self.on_loss: Callable[[], object] | None = None
        self.task: asyncio.Task[object] | None = None

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Note that the lock is lost."""
        if self._cause is not None:
            return
        self._cause = LockLostError(self.name, self.token, reason)
        self._cause.__cause__ = cause
        self.lost.set()
        if self.on_loss is not None:
            self.on_loss()

    def raise_if_lost(self) -> None:
        """Raise LockLostError if the lock is lost: an error of its own for each caller."""
        if self._cause is not None:
            error = LockLostError(*self._cause.args)
            error.__cause__ = self._cause.__cause__
            raise error


class Held(OfOneProcess):
    """
    A lock while it is held, as ``async with Lock(…) as held`` gives it.

    Attributes:
        name: The name of the lock.
        token: Larger than the token of everyone who has held the lock before.
        lost: Happens when the lock is lost; the body is cancelled at the same moment.
        resigning: Happens when the leader of this name is asked to resign.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self.name: str = holding.name
        self.token: int = holding.token
        self.lost: Signal = Signal(holding.lost)
        self.resigning: Signal = Signal(holding.resigning)

    def __repr__(self) -> str:
        state = "lost" if self.lost else "held"
        return f"<Held {self.name!r} token={self.token} {state}>"

    async def check(self, connection: object) -> None:
        """
        Return if the lock is held, and let the next holder wait for the end of this transaction.

        The row of the token is locked (``FOR SHARE``) in the transaction of ``connection``. The
        next holder's token is written to that row first, so transactions that two holders have
        checked never overlap. Call it in each transaction that writes what the lock protects,
        before the commit, and outside of savepoints: rolling back to one that was set before the
        check takes the check back, and the next holder no longer waits. A failed check leaves the
        transaction aborted.

        There is no deadline but those of the connection.

        Args:
            connection: An asyncpg Connection (also one acquired from a pool), SQLAlchemy's
                AsyncConnection or AsyncSession, or psycopg's AsyncConnection, in a transaction.

        Raises:
            LockLostError: The lock is no longer held with this token.
            LockNotInstalledError: The database of the connection has no table of locks.
            TypeError: ``connection`` is of another kind.
            ValueError: ``connection`` is in no transaction, as one of SQLAlchemy's is that has the
                isolation level AUTOCOMMIT.
            Exception: What the server, or the driver of ``connection``, raises.
        """
        self._holding.raise_if_lost()
        _check_in_transaction(connection)
        try:
            with explaining(connection, "checked", {_NO_PRIVILEGE: LACKS_PRIVILEGE}):
                await call_within(connection, self._call())
        except Exception as error:
            state = _state_of(error)
            if state == LOST:
                reason = "another holder has taken it"
                raise LockLostError(self.name, self.token, reason) from error
            if state in _NOT_INSTALLED:
                raise LockNotInstalledError from error
            raise

    def _call(self) -> Call:
        text = _CHECK.format(literal(self.name), self.token)
        return Call(_CHECK, (self.name, self.token), lambda: text, outside=_NO_TRANSACTION)


def _state_of(error: Exception) -> object:
    """Return the SQLSTATE; psycopg has those that it does not know in another place."""
    original = getattr(error, "orig", error)
    return sqlstate_of(error) or getattr(getattr(original, "diag", None), "sqlstate", None)


def _check_in_transaction(connection: Any) -> None:  # noqa: ANN401 - of any driver
    """Raise ValueError, before anything is sent, where a driver knows of no transaction."""
    if callable(asking := getattr(connection, "is_in_transaction", None)):
        is_within = asking()
    elif (info := getattr(connection, "info", None)) is not None and hasattr(
        info, "transaction_status"
    ):
        is_within = not connection.autocommit or info.transaction_status.name != "IDLE"
    else:
        return
    if not is_within:
        raise ValueError(_NO_TRANSACTION)
