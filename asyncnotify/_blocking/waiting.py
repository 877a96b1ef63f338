"""
Waiting for other threads, and taking what they bring, whatever a signal handler raises.

Python runs signal handlers in the main thread: after a call, at the beginning of a function and at
the end of a loop's turn. What a handler raises there, such as Ctrl-C or the time limit of a job,
can leave a threading.Condition locked for ever, and so an Event or a Future, because they lock and
unlock in Python. Here nothing is locked: each wait has a lock of its own, used once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def taking_from(items: deque[T]) -> Iterator[T]:
    """
    Return an iterator that takes from the left of a deque; IndexError while that is empty.

    ``for item in taking: return item`` loses no item: the step of a loop is no call, so no signal
    handler runs between the taking and the return. One runs after ``popleft()``.
    """
    return itertools.starmap(items.popleft, itertools.repeat(()))


class News:
    """Wakes the threads that wait for something to become true."""

    def __init__(self) -> None:
        self._waiters: dict[threading.Lock, None] = {}

    def wait(self, is_true: Callable[[], bool], deadline: float | None = None) -> bool:
        """
        Wait until this is true, or until the deadline of the monotonic clock; return whether it is.

        It is asked again at each ``wake()``.
        """
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters[waiter] = None
        try:
            while not is_true():
                if not waiter.acquire(timeout=_seconds_until(deadline)):
                    return is_true()
            return True
        finally:
            self._waiters.pop(waiter, None)
            del is_true  # an exception that somebody keeps must not keep what it refers to

    def wake(self) -> None:
        """Let all that wait look again. Never waits."""
        for waiter in list(self._waiters):
            with contextlib.suppress(RuntimeError):  # woken already
                waiter.release()


def deadline_after(seconds: float | None) -> float | None:
    """Return when so many seconds will be over, by the monotonic clock; None: never."""
    return None if seconds is None else time.monotonic() + seconds


def _seconds_until(deadline: float | None) -> float:
    """Return the seconds for the ``timeout`` of a lock."""
    if deadline is None:
        return -1
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)


class Outcome(Generic[T]):
    """What a call returns or raises: set once, by the event loop's thread; others wait for it."""

    def __init__(self) -> None:
        self._news = News()
        self._on_done: Callable[[Outcome[T]], object] | None = None
        self._done = False
        self._result: T
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Return whether it has been set."""
        return self._done

    def add_done_callback(self, function: Callable[[Outcome[T]], object]) -> None:
        """Have this function called in the event loop's thread. For one, before the call begins."""
        self._on_done = function

    def set_result(self, result: T) -> None:
        """Let the call have returned this."""
        self._result = result
        self._set()

    def set_exception(self, error: BaseException) -> None:
        """Let the call have raised this."""
        self._error = error
        self._set()

    def _set(self) -> None:
        self._done = True
        self._news.wake()
        if self._on_done is not None:
            self._on_done(self)

    def result(self, timeout: float | None = None) -> T:
        """Wait; return what the call returned, or raise what it raised."""
        error = self.exception(timeout)
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del self, error  # its traceback holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """
        Wait; return what the call raised, or None.

        Raises:
            TimeoutError: It has not ended in this time.
        """
        if not self._news.wait(lambda: self._done, deadline_after(timeout)):
            msg = "the call has not ended in time"
            raise TimeoutError(msg)
        return self._error


class Instances(Generic[T]):
    """The living objects of a kind. Threads may add and list them at the same time."""

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, instance: T) -> None:
        """List this object as long as it lives."""
        forget = functools.partial(_forget, self._references, id(instance))
        self._references[id(instance)] = weakref.ref(instance, forget)

    def __iter__(self) -> Iterator[T]:
        for reference in list(self._references.values()):
            if (instance := reference()) is not None:
                yield instance


def _forget(references: dict[int, weakref.ref[T]], key: int, _: object) -> None:
    references.pop(key, None)
