"""One task that owns the session: it takes, numbers and releases the locks of a process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncnotify._asyncpg import failures
from asyncnotify._backoff import Delays
from asyncnotify._errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    PoolerError,
    describe_error,
)
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._owner import Owner
from asyncnotify._tasks import cancel, retrieve, start
from asyncnotify.lock._errors import AlreadyHeldError, LockNotInstalledError
from asyncnotify.lock._names import key_of
from asyncnotify.lock._queue import Queue, Waiter
from asyncnotify.lock._serving import CLOSED, Request, Serving
from asyncnotify.lock._wake_ups import WakeUps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import Listener
    from asyncnotify._backoff import Backoff
    from asyncnotify.lock._held import Holding
    from asyncnotify.lock._session import LockSession

log = Log("lock")

_SETTLED: Final = 5.0
"""Seconds after which a session has worked: its loss is a new outage."""

_PERMANENT: Final = (ConfigurationError, PoolerError, LockNotInstalledError)


@dataclass(frozen=True, slots=True)
class Options:
    """
    How a process holds its locks.

    Attributes:
        open: Opens a session.
        target: The server, as logs name it.
        life: Seconds after which the server ends the session of a process that is frozen.
        limit: How many names may be used at once.
        start_timeout: Seconds for which the first session is tried; None: forever.
    """

    open: Callable[[], Awaitable[LockSession]]
    target: str
    listener: Listener | None
    new_listener: Callable[[], Listener]
    life: float
    limit: int
    backoff: Backoff
    start_timeout: float | None


class Runtime:
    """The locks of one process, or of one of its event loops, in one session of the server."""

    def __init__(self, options: Options) -> None:
        self.owner = Owner()
        self._options = options
        self.queue = Queue(options.limit)
        self.wake_ups = WakeUps(
            options.listener, options.new_listener, self._woken, self.ask_to_resign
        )
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._serving = Serving(self.queue, self.listen)
        self._is_closing = False
        self._has_connected = self._has_session = False
        self._deadline: float | None = None
        self._warnings = WarningLimit()
        self._cause: BaseException | None = None
        self._task = start(self._run(), name="asyncnotify locks")
        self._task.add_done_callback(self._ended)

    # -- what callers ask for -----------------------------------------------------------------

    async def acquire(self, name: str, *, once: bool) -> Holding:
        """
        Wait for a lock; a cancelled call leaves nothing behind.

        Raises:
            AlreadyHeldError: The task holds it.
            TooManyLocksError: The process uses as many as are allowed.
            LockTimeoutError: It was not free, and ``once`` is True.
            LockNotInstalledError: The database has no table of locks.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died, and ``once`` is True.
            ClosedError: The locks are being closed.
            asyncpg.PostgresError: The server refused a statement.
        """
        self.check_open()
        task = asyncio.current_task()
        while True:
            entry = self.queue.entry(name)
            if entry.is_held_by(task):
                raise AlreadyHeldError(name)
            waiter = Waiter(self._loop.create_future(), once)
            if once and entry.is_taken:
                entry.waiters.append(waiter)
                entry.busy()
            else:
                entry.waiters.append(waiter)
                entry.due = 0.0
            self._news.set()
            try:
                holding = await waiter.done
            except asyncio.CancelledError:
                self._withdraw(waiter)
                raise
            if not holding.lost.is_set():
                holding.task = task
                return holding

    def _withdraw(self, waiter: Waiter) -> None:
        done = waiter.done
        if done.done() and not done.cancelled() and done.exception() is None:
            self._let_go(done.result())
        self.queue.forget_unused()
        self._news.set()

    def _let_go(self, holding: Holding) -> asyncio.Future[None] | None:
        """Have a lock released; return what waits for that, None if it is lost."""
        entry = self.queue.get(key_of(holding.name))
        if entry is None or entry.holding is not holding:
            return None
        entry.released = self._loop.create_future()
        entry.released.add_done_callback(retrieve)
        self._news.set()
        return entry.released

    async def release(self, holding: Holding) -> None:
        """
        Release a lock; return once the server has confirmed that it was held until now.

        A cancelled call leaves the lock to be released.

        Raises:
            LockLostError: It was lost before.
        """
        released = self._let_go(holding)
        if released is not None:
            await released
        holding.raise_if_lost()

    async def notify(self, payload: str) -> None:
        """Send a notification on the channel of locks; return once it has been committed."""
        await self._request(lambda session: session.notify(payload), once=True)

    async def prove(self) -> None:
        """Return once there is a session, and a table of locks."""
        await self._request(lambda session: session.check_installed(), once=False)

    async def _request(self, send: Callable[[LockSession], Awaitable[None]], *, once: bool) -> None:
        self.check_open()
        request = Request(send, self._loop.create_future(), once)
        self._serving.requests.append(request)
        self._news.set()
        await request.done

    def listen(self) -> None:
        """Begin to listen for wake-ups, if that has not begun."""
        self.wake_ups.begin()

    def check_open(self) -> None:
        """Raise ClosedError if the locks are being closed."""
        if self._is_closing or self._task.done():
            raise ClosedError(CLOSED)

    @property
    def why_without_session(self) -> BaseException | None:
        """What has ended the last session, or kept it from being made; None while there is one."""
        return None if self._has_session else self._cause

    @property
    def runs(self) -> bool:
        """Whether something of it would go on without anyone to close it."""
        return not (self._task.done() or self.owner.is_other_process or self._loop.is_closed())

    async def aclose(self, timeout: float) -> None:
        """Release what has been let go, lose what has not, and close; within these seconds."""
        self._is_closing = True
        for entry in self.queue:
            if entry.holding is not None and entry.released is None:
                entry.holding.lose(CLOSED)
                self._let_go(entry.holding)
        self._news.set()
        try:
            if self._has_session:
                await asyncio.wait({self._task}, timeout=timeout)
        finally:
            await cancel({self._task})
            await self.wake_ups.aclose(timeout)

    # -- what wakes ----------------------------------------------------------------------------

    def _woken(self, key: int | None) -> None:
        if key is None:
            self._serving.try_all()
        elif (entry := self.queue.get(key)) is not None and not entry.is_taken:
            entry.due = 0.0
        self._news.set()

    def ask_to_resign(self, key: int) -> None:
        """Let the leader of a name know that it is to resign, if it is here."""
        entry = self.queue.get(key)
        if entry is not None and entry.holding is not None:
            entry.holding.resigning.set()

    # -- the one task --------------------------------------------------------------------------

    async def _run(self) -> None:
        delays = Delays(self._options.backoff)
        while await self._is_needed():
            began = self._loop.time()
            try:
                await self._hold_one_session()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next session is tried
                self._cause = error
                self._lost(error)
            if self._loop.time() - began > _SETTLED:
                delays = Delays(self._options.backoff)
            await self._pause(delays.next() if self._has_work else 0.0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Lose what is held, and fail who waits: also if the task was cancelled before it began."""
        retrieve(task)
        self._is_closing = True
        self._serving.lose_all(CLOSED, self._cause)
        self._serving.fail_all(ClosedError(CLOSED))

    async def _is_needed(self) -> bool:
        """Wait for work; return whether there is some, or False at the end."""
        while not (self._has_work or self._is_closing):
            self._deadline = None
            self._news.clear()
            await self._news.wait()
        if self._deadline is None and self._options.start_timeout is not None:
            self._deadline = self._loop.time() + self._options.start_timeout
        return not self._is_closing

    @property
    def _has_work(self) -> bool:
        return bool(self.queue or self._serving.requests)

    async def _pause(self, delay: float) -> None:
        end = self._loop.time() + delay
        while (left := end - self._loop.time()) > 0 and not self._is_closing:
            self._news.clear()
            await self._news_within(left)

    async def _hold_one_session(self) -> None:
        session = await self._options.open()
        try:
            self._has_connected = self._has_session = True
            session.on_end(self._news.set)
            self._serving.try_all()
            await self._serve(session)
            await session.close(session.timeout)
        finally:
            self._has_session = False
            session.terminate()

    async def _serve(self, session: LockSession) -> None:
        """Give the commands of one session, until the locks are closed or it is lost."""
        while True:
            self._news.clear()
            await self._serving.release(session)
            if self._is_closing:
                return
            await self._serving.work(session)
            await self._news_within(self._serving.rest_of(session))
            if session.lost:
                msg = "the server has ended the session of the locks"
                raise ConnectionLostError(msg)

    async def _news_within(self, seconds: float) -> None:
        waiting = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({waiting}, timeout=seconds)
        finally:
            waiting.cancel()

    # -- failures ------------------------------------------------------------------------------

    def _lost(self, error: Exception) -> None:
        """Lose what the session had, and fail those who wait where waiting does not help."""
        self._serving.lose_all(f"the session has ended: {describe_error(error)}", error)
        cause = error.__cause__
        is_permanent = isinstance(error, _PERMANENT) or (
            not self._has_connected and cause is not None and failures.is_permanent(cause)
        )
        late = self._deadline is not None and self._loop.time() > self._deadline
        if is_permanent or (late and not self._has_connected):
            self._serving.fail_all(error)
            self._deadline = None
            return
        self._serving.fail_all(error, only_once=True)
        described, target = describe_error(error), self._options.target
        text = "the session of the locks at %s was lost, or could not be opened; trying again: %s"
        log.warning(self._warnings, described, text, target, described, target=target)
