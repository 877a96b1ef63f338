"""
Naming, in a warning, the functions of users that do not return, or block the event loop.

No call pays for that: a timer looks from time to time whether a worker is still at the same call.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import Context
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from asyncnotify._logs import Log, WarningLimit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

log = Log("handler")

DEFAULT_SLOW_AFTER: Final = 30.0
"""Seconds: more than what a handler usually waits for allows itself, such as a request by HTTP."""

_BLOCKING: Final = 1.0
"""Seconds for which a function may block the event loop unnoticed: less than any timeout here."""

_LOOKS: Final = 4
"""Looks within ``slow_after``: a call is named after 1 to 1.25 times that."""

_BEHIND: Final = "the notifications behind it wait"
_BEHIND_RESYNC: Final = "the handler is not called until it has"

_NOT_USERS: Final = {"asyncio", "asyncnotify"}
"""Packages whose frames say nothing of where a user's function waits."""


class RunningCall(NamedTuple):
    """A call that runs now: what tells it from all others, and what it is a call of."""

    key: Hashable
    function: str
    task: asyncio.Task[None] | None


class Worker(Protocol):
    """Who calls the functions of one subscription."""

    slow: SlowWarning

    @property
    def is_busy(self) -> bool:
        """Whether a call may be running."""
        ...

    def running_calls(self) -> Iterable[RunningCall]:
        """Return the calls that have not returned."""
        ...


class SlowWarning:
    """What one subscription allows, and the warnings of it."""

    def __init__(
        self, channel: str | None, slow_after: float | None, warnings: WarningLimit
    ) -> None:
        self.slow_after: float = inf if slow_after is None else slow_after
        self.blocks_after: float = min(_BLOCKING, self.slow_after) if slow_after else inf
        self._channel = channel
        self._warnings = warnings

    def blocked(self, function: str, seconds: float) -> None:
        """Warn of a plain function that has blocked the event loop."""
        log.warning(
            self._warnings,
            self,
            "%s of %r is a plain function, and blocked the event loop for %.1f s, in which nothing"
            " else ran in it: call it with in_thread=True, or make it an async def that awaits",
            function,
            self._channel,
            seconds,
            channel=self._channel,
        )

    def waits(self, call: RunningCall, seconds: float) -> None:
        """Warn of a call that has not returned."""
        behind = _BEHIND_RESYNC if call.function == "resync" else _BEHIND
        log.warning(
            self._warnings,
            self,
            "%s of %r has not returned for %.3g s%s: %s; give what it waits for a timeout"
            " (slow_after= sets when to warn)",
            call.function,
            self._channel,
            seconds,
            place_of(call.task),
            behind,
            channel=self._channel,
        )


class SlowCalls:
    """
    Looks from time to time at what the workers are at.

    Args:
        loop: The event loop of the workers.
        workers: Returns the workers there are.
        wakings: Returns how often workers have been woken. If none has been since the last look,
            when none was busy, there is nothing to look at: ten thousand take 6 ms.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: Callable[[], Iterable[Worker]],
        *,
        wakings: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._wakings = wakings
        self._last_wakings = -1
        self._limit = inf
        self._seen: dict[Hashable, float] = {}
        self._told: set[Hashable] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def is_looking(self) -> bool:
        """Whether there will be another look."""
        return self._timer is not None

    def add(self, worker: Worker) -> None:
        """Look from time to time, at intervals that suit this worker too."""
        if worker.slow.slow_after < self._limit and not self._stopped:
            self._limit = worker.slow.slow_after
            self._look_later()

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, rest = None, self._limit / _LOOKS
        if rest != inf:
            # Set again and again, it would keep the context of whoever listened last
            self._timer = self._loop.call_later(rest, self._look, context=Context())

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if (wakings := self._wakings()) != self._last_wakings:
            someone_is_busy = self._look_at_all(self._loop.time())
            self._last_wakings = -1 if someone_is_busy else wakings
        self._look_later()

    def _look_at_all(self, now: float) -> bool:
        """Warn of what has not returned in time; return whether a worker is busy."""
        seen, told = dict[Hashable, float](), set[Hashable]()
        someone_is_busy, self._limit = False, inf
        for worker in self._workers():
            self._limit = min(self._limit, worker.slow.slow_after)
            if not worker.is_busy:
                continue
            someone_is_busy = True
            for call in worker.running_calls():
                since = seen[call.key] = self._seen.get(call.key, now)
                if call.key in self._told:
                    told.add(call.key)
                elif now - since >= worker.slow.slow_after:
                    told.add(call.key)
                    worker.slow.waits(call, now - since)
        self._seen, self._told = seen, told
        return someone_is_busy


def place_of(task: asyncio.Task[None] | None) -> str:
    """Return where the user's function waits, as `` (at app.py:12, in on_order)``; or nothing."""
    step: Any = None if task is None else task.get_coro()
    while step is not None:
        frame = getattr(step, "cr_frame", None)
        if frame is not None and _is_users(str(frame.f_globals.get("__name__"))):
            where = f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
            return f" (at {where}, in {frame.f_code.co_name})"
        step = getattr(step, "cr_await", None)
    return ""


def _is_users(module: str) -> bool:
    return module.partition(".")[0] not in _NOT_USERS
