"""The leader: one of many processes runs a function, and another one takes over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Literal, Self

from asyncnotify._arguments import check_function, check_seconds, check_takes, is_async
from asyncnotify._errors import ClosedError, describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._owner import OfOneProcess, Owner, leave_to_parent
from asyncnotify._tasks import cancel, retrieve, start
from asyncnotify.lock._errors import LockLostError
from asyncnotify.lock._held import Held
from asyncnotify.lock._lock import Lock
from asyncnotify.lock._locks import Locks, runtime_of
from asyncnotify.lock._names import check_lock_name, key_of, resign_payload
from asyncnotify.lock._serving import TICK
from asyncnotify.typing import Dsn

log = Log("lock")

_JITTER: Final = (0.5, 1.5)
"""By what the pause is multiplied: candidates that were started together do not stay so."""


class Leader(OfOneProcess):
    """
    Leader election: of all processes with a leader of this name, one runs a function.

    ::

        async def run(held: Held) -> None:
            while not held.resigning:
                await one_round(held)

        async with Leader("scheduler", run, dsn):
            ...

    ``run`` is called each time this process becomes the leader, in its own task. It is cancelled
    when the lock is lost. When it returns, or raises (which is logged), the process resigns, and
    competes again after a pause, so that another process can become the leader.

    When ``resign()`` is called, in any process, or this leader is closed, ``held.resigning`` is
    set: ``run`` has ``drain`` seconds to end, and is then cancelled.

    Args:
        name: As for Lock.
        run: An async function that takes a Held.
        dsn: As for Listener; or a ``Locks``.
        pause: Seconds before a process that has resigned competes again, times 0.5 to 1.5.
        drain: Seconds for ``run`` to end when the leader has to resign.

    Raises:
        LockNameError: No lock can have this name.
        TypeError: ``run`` is not such a function, or an argument is of the wrong type.
        ValueError: A number of seconds is not positive and finite.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Held], Awaitable[object]],
        dsn: Dsn | Locks | None = None,
        *,
        pause: float = 2.0,
        drain: float = 5.0,
    ) -> None:
        self._name = check_lock_name(name)
        check_function("run", run)
        if not is_async(run):
            msg = "run must be an async function: the leader is one as long as it runs"
            raise TypeError(msg)
        check_takes("run", run, "the Held")
        check_seconds("pause", pause)
        check_seconds("drain", drain)
        self._run = run
        self._is_own = not isinstance(dsn, Locks)
        self._dsn = None if isinstance(dsn, Locks) else dsn
        self._locks = dsn if isinstance(dsn, Locks) else Locks(dsn)
        self._pause = pause
        self._drain = drain
        self._held: Held | None = None
        self._owner: Owner | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[None] | None = None
        self._closings = 0
        self._ending = asyncio.Event()
        self._warnings = WarningLimit()

    def __repr__(self) -> str:
        state = f"token={self.token}" if self.is_leader else "not leading"
        return f"<Leader {self._name!r} {state}>"

    @property
    def name(self) -> str:
        """The name of the lock by which the leader is found."""
        return self._name

    @property
    def is_leader(self) -> bool:
        """Whether this process leads, as far as it knows: only ``held.check()`` is sure."""
        return self._held is not None and not self._held.lost

    @property
    def token(self) -> int | None:
        """The token of this process while it leads; None otherwise."""
        return self._held.token if self._held is not None and self.is_leader else None

    async def start(self) -> None:
        """
        Stand for leader, in a task; return at once. While it stands, further calls do nothing.

        A start that fails or is cancelled does not affect other calls. In a fork of the process
        that started the leader, it starts again; that of the parent process goes on.

        What no retry can cure is seen here: the session of the server is made, and the table of
        locks looked for.

        Raises:
            LockNotInstalledError: The database has no table of locks.
            ConfigurationError: The arguments for connecting are wrong.
            PoolerError: A pooler is in between.
            ConnectError: There was no connection within ``start_timeout`` of the Locks.
            ClosedError: ``aclose()`` was called meanwhile.
            WrongLoopError: The leader, or the Locks, are used by another event loop.
            asyncpg.PostgresError: The server refused a statement.
        """
        self._check_owner()
        while self._starting is not None:  # another call: what it finds out may not be true of this
            await asyncio.wait({self._starting})
        if self._task is not None and not self._task.done():
            return
        self._owner = Owner()
        self._starting = asyncio.get_running_loop().create_future()
        try:
            await self._begin()
        except BaseException:
            if self._is_own:
                await self._locks.aclose()
            raise
        finally:
            self._starting.set_result(None)
            self._starting = None

    def _check_owner(self) -> None:
        """Refuse another event loop while it stands in its own; forget what another process has."""
        if self._owner is None:
            return
        if self._owner.is_other_process:
            leave_to_parent(self._task, self._starting, self._held)
        elif not self._owner.loop.is_closed():
            if self._starting is not None or (self._task is not None and not self._task.done()):
                self._owner.check()
            return
        self._owner = self._task = self._starting = self._held = None

    async def _begin(self) -> None:
        closings = self._closings
        runtime = runtime_of(self._locks)
        await runtime.prove()
        if self._closings != closings:
            msg = f"leader {self._name!r} was closed while it was starting"
            raise ClosedError(msg)
        runtime.listen()
        self._ending = asyncio.Event()  # the earlier one belongs to the loop that ran then
        self._task = start(self._stand(), name="asyncnotify leader")
        self._task.add_done_callback(retrieve)

    async def resign(self) -> None:
        """
        Ask the leader of this name, in whichever process, to resign; return once that is sent.

        A leader that is not connected at that moment is not asked. Where this one does not stand,
        and was given a DSN, a session is made for the call.

        Raises:
            ConnectError: There is no connection.
            ConnectionLostError: The connection died: it may have been sent.
            WrongLoopError: The Locks are used by another event loop.
            asyncpg.PostgresError: The server refused the notification.
        """
        payload = resign_payload(self._name)
        if self._stands or not self._is_own:
            await runtime_of(self._locks).notify(payload)
            return
        async with Locks(self._dsn) as locks:
            await runtime_of(locks).notify(payload)

    @property
    def _stands(self) -> bool:
        """Whether it stands for leader, or is about to, in this process: then it will be closed."""
        if self._owner is None or self._owner.is_other_process:
            return False
        return self._starting is not None or (self._task is not None and not self._task.done())

    async def aclose(self) -> None:
        """
        Resign, and stand no more; return once ``run`` has ended, after ``drain`` seconds at most.

        Idempotent. Cancelling the call cancels ``run``.

        Raises:
            WrongLoopError: It was started in another event loop or process.
        """
        if self._owner is None:
            return
        self._owner.check()
        self._closings += 1
        if self._task is None:
            return
        self._ending.set()
        try:
            await asyncio.wait({self._task}, timeout=self._drain + TICK)
        finally:
            await cancel({self._task})
            if self._is_own:
                await self._locks.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- the one task --------------------------------------------------------------------------

    async def _stand(self) -> None:
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            while not self._ending.is_set():
                leading = asyncio.ensure_future(self._lead())
                await self._until(leading, ending)
                pause = self._pause * random.uniform(*_JITTER)  # noqa: S311 - jitter, not a secret
                await asyncio.wait({ending}, timeout=pause)
        finally:
            ending.cancel()

    async def _until(
        self, leading: asyncio.Task[None], ending: asyncio.Task[Literal[True]]
    ) -> None:
        """Wait until it has led; who only waits for the lock need not do so at the end."""
        try:
            await asyncio.wait({leading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if self._held is None:
                leading.cancel()
            await asyncio.wait({leading})
        finally:
            leading.cancel()
            await asyncio.wait({leading})
            retrieve(leading)

    async def _lead(self) -> None:
        try:
            async with Lock(self._locks, self._name) as held:
                self._held = held
                try:
                    await self._work(held)
                finally:
                    self._held = None
        except LockLostError as error:
            text, cause = "leader %r tries to take its lock again: %s", str(error)
            log.warning(self._warnings, cause, text, self._name, cause)
        except Exception as error:  # noqa: BLE001 - whatever it is, it stands again after a pause
            text, cause = "leader %r cannot take its lock; trying again: %s", describe_error(error)
            log.warning(self._warnings, cause, text, self._name, cause)

    async def _work(self, held: Held) -> None:
        work = start(self._called(held), name=f"asyncnotify leader {self._name}")
        resigning = asyncio.ensure_future(self._told_to_resign(held))
        try:
            await asyncio.wait({work, resigning}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait({work}, timeout=self._drain)
        finally:
            resigning.cancel()
            has_ended = work.done()
            work.cancel()
            await asyncio.wait({work})  # two calls of run must not overlap, however long it takes
        if not work.cancelled() and (error := work.exception()) is not None:
            log.error("the function of leader %r raised", self._name, exc_info=error)
        elif work.cancelled() and has_ended:
            text = "the function of leader %r raised CancelledError, though nobody has cancelled it"
            log.error(text, self._name)

    async def _called(self, held: Held) -> None:
        await self._run(held)

    async def _told_to_resign(self, held: Held) -> None:
        """Return once the leader is to resign, by a notification or because it is closed."""
        asked = asyncio.ensure_future(held.resigning.wait())
        closed = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({asked, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            closed.cancel()
        runtime_of(self._locks).ask_to_resign(key_of(held.name))
