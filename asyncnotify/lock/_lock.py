"""The lock: one holder among all processes that use a database."""

from __future__ import annotations

import asyncio
from types import TracebackType

from asyncnotify._arguments import check_timeout
from asyncnotify._errors import describe_error
from asyncnotify._owner import OfOneProcess, Owner
from asyncnotify.lock._errors import LockTimeoutError
from asyncnotify.lock._held import Held, Holding
from asyncnotify.lock._locks import Locks, borrow, give_back, runtime_of
from asyncnotify.lock._names import check_lock_name
from asyncnotify.lock._runtime import Runtime
from asyncnotify.typing import Dsn


class Lock(OfOneProcess):
    """
    A named lock, held by one task among all processes that use a database.

    ::

        async with Lock(dsn, "nightly report") as held:
            ...                                    # cancelled if the lock is lost
            async with connection.transaction():
                await held.check(connection)       # refused if another holder has come
                await connection.execute(...)

    An object may be entered any number of times, by any number of tasks. Tasks of one process get
    the lock in order; among processes there is no order.

    When the lock is lost, the body is cancelled, and ``async with`` raises LockLostError instead of
    the cancellation; another exception of the body is raised unchanged. It exits without an
    exception only if the server has confirmed that the lock was held until the end.

    Waiting for the lock may be cancelled, and leaves nothing behind. Cancelling the task from
    outside while the lock is held propagates, and the lock is released.

    Args:
        dsn: As for Listener; or a ``Locks``.
        name: 1 to 1,024 bytes. Equal names are one lock, in one database.
        timeout: Seconds to wait for the lock; None: forever; 0: one attempt.

    Raises:
        LockNameError: No lock can have this name.
        TypeError: An argument is of the wrong type.
        ValueError: ``timeout`` is not a number of seconds.
    """

    def __init__(self, dsn: Dsn | Locks | None, name: str, *, timeout: float | None = None) -> None:
        self._name = check_lock_name(name)
        check_timeout("timeout", timeout)
        self._timeout = timeout
        self._locks = dsn if isinstance(dsn, Locks) else None
        self._dsn = None if isinstance(dsn, Locks) else dsn
        if self._locks is None:
            hash(self._dsn)
            Locks(self._dsn)  # raises what is wrong with it
        self._entered: dict[asyncio.Task[object], list[_Entered]] = {}

    def __repr__(self) -> str:
        return f"<Lock {self._name!r}>"

    @property
    def name(self) -> str:
        """The name of the lock."""
        return self._name

    async def __aenter__(self) -> Held:
        """
        Wait for the lock.

        Raises:
            LockTimeoutError: It was not free within ``timeout``.
            AlreadyHeldError: This task holds it.
            TooManyLocksError: The process uses as many as are allowed.
            LockNotInstalledError: The database has no table of locks.
            ConfigurationError: The arguments for connecting are wrong.
            PoolerError: A pooler is in between.
            ConnectError: There was no connection within ``start_timeout``.
            ConnectionLostError: The connection died, and ``timeout`` is 0.
            ClosedError: The Locks have been closed meanwhile.
            WrongLoopError: The Locks are used by another event loop.
            asyncpg.PostgresError: The server refused a statement.
        """
        Owner()  # no other loop than asyncio's will do
        task = asyncio.current_task()
        if task is None:
            msg = "a lock is entered by a task"
            raise RuntimeError(msg)
        locks = borrow(self._dsn) if self._locks is None else self._locks
        try:
            runtime = runtime_of(locks)
            holding = await self._acquired(runtime)
        except BaseException:
            await self._left()
            raise
        entered = _Entered(task, runtime, holding)
        self._entered.setdefault(task, []).append(entered)
        return entered.held

    async def _acquired(self, runtime: Runtime) -> Holding:
        if not self._timeout:
            return await runtime.acquire(self._name, once=self._timeout == 0)
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                return await runtime.acquire(self._name, once=False)
        except TimeoutError as error:
            if limit.expired():
                late = LockTimeoutError(self._name, self._timeout)
                if (reason := runtime.why_without_session) is not None:
                    late.add_note(f"there was no session: {describe_error(reason)}")
                raise late from (reason or error)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Release the lock.

        Raises:
            LockLostError: It was lost, and the body has raised nothing else.
            RuntimeError: Another task than those that have entered leaves, and these are several.
        """
        entered = self._innermost_body()
        try:
            await entered.leave(exc)
        finally:
            await self._left()

    def _innermost_body(self) -> _Entered:
        """
        Return what was entered last, mostly by this task, but fixtures may leave in another one.

        Who has lost a lock may have entered it once more in the same body.
        """
        task = asyncio.current_task()
        if task is None or task not in self._entered:
            if len(self._entered) != 1:
                msg = f"lock {self._name!r} is left by a task that has not entered it"
                raise RuntimeError(msg)
            [task] = self._entered
        bodies = self._entered[task]
        entered = bodies.pop()
        if not bodies:
            del self._entered[task]
        return entered

    async def _left(self) -> None:
        if self._locks is None:
            await give_back(self._dsn)


class _Entered:
    """One body that runs while the lock is held; as ``asyncio.timeout()`` cancels its own."""

    def __init__(self, task: asyncio.Task[object], runtime: Runtime, holding: Holding) -> None:
        self.held = Held(holding)
        self._task = task
        self._runtime = runtime
        self._holding = holding
        self._cancelling = task.cancelling()
        self._has_cancelled = False
        holding.on_loss = self._cancel_body

    def _cancel_body(self) -> None:
        self._has_cancelled = True
        self._task.cancel(f"lock {self._holding.name!r} was lost")

    async def leave(self, exc: BaseException | None) -> None:
        """Release the lock, and raise LockLostError if that is what has ended the body."""
        self._holding.on_loss = None
        if self._has_cancelled:
            is_only_ours = self._task.uncancel() <= self._cancelling
            if exc is None or (is_only_ours and isinstance(exc, asyncio.CancelledError)):
                self._raise_loss(exc)
        if exc is None:
            await self._runtime.release(self._holding)
            return
        await self._release_after(exc)

    def _raise_loss(self, exc: BaseException | None) -> None:
        try:
            self._holding.raise_if_lost()
        except Exception as error:
            error.__context__ = exc
            raise

    async def _release_after(self, exc: BaseException) -> None:
        """Release after the body has raised: a loss is noted on that, and does not replace it."""
        try:
            await self._runtime.release(self._holding)
        except Exception as error:  # noqa: BLE001 - what the body has raised comes first
            exc.add_note(str(error))
