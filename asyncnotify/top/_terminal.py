"""The keys and signals that end the screen, and the terminal as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from types import FrameType, TracebackType

_ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_RESIZED: Final = "SIGWINCH"
_CONTINUED: Final = "SIGCONT"
"""After Ctrl-Z the shell has given the terminal other modes."""

_KEYS: Final = frozenset(b"qQ\x03\x04")
"""q; and Ctrl-C and Ctrl-D, where a terminal hands them over as characters."""


class Terminal:
    """
    While it is entered, ``q`` and the signals that end programs are noticed, and nothing is echoed.

    Where standard input is no terminal, no key is read. Where handlers of signals cannot be set,
    as outside the main thread, they stay as they are.

    Args:
        redraw: Called when the terminal has another size.
    """

    def __init__(self, redraw: Callable[[], None]) -> None:
        self._redraw = redraw
        self._ended = asyncio.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            loop = asyncio.get_running_loop()
            for name in _ENDING:
                stack.enter_context(_handled(loop, name, self._ended.set))
            stack.enter_context(_handled(loop, _RESIZED, self._redraw))
            stack.enter_context(self._reading_keys(loop))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    async def until_ended(self, showing: Coroutine[Any, Any, None]) -> None:
        """Run this until a key or a signal ends it, or until it raises something."""
        tasks = asyncio.create_task(showing), asyncio.create_task(self._wait_for_end())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not tasks[0].cancelled():
            tasks[0].result()

    async def _wait_for_end(self) -> None:
        await self._ended.wait()

    @contextlib.contextmanager
    def _reading_keys(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        if not _is_terminal():
            yield
            return
        import termios  # noqa: PLC0415 - Windows has none
        import tty  # noqa: PLC0415 - as above

        fd = sys.stdin.fileno()
        try:
            before = termios.tcgetattr(fd)
        except termios.error:  # the terminal is gone
            before = None
        if before is None:
            self._ended.set()
            yield
            return

        def begin() -> None:
            with contextlib.suppress(termios.error):  # as above
                tty.setcbreak(fd)
            self._redraw()

        try:
            with contextlib.suppress(termios.error):  # as above: reading will tell
                tty.setcbreak(fd)
            loop.add_reader(fd, self._read_key, loop, fd)
            with _handled(loop, _CONTINUED, begin):
                yield
        finally:
            loop.remove_reader(fd)
            with contextlib.suppress(termios.error):  # as above
                termios.tcsetattr(fd, termios.TCSADRAIN, before)

    def _read_key(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        try:
            keys = os.read(fd, 100)
        except OSError:
            keys = b""
        if not keys:  # the terminal is gone
            loop.remove_reader(fd)
        if not keys or not _KEYS.isdisjoint(keys):
            self._ended.set()


def _is_terminal() -> bool:
    if importlib.util.find_spec("termios") is None:
        return False
    try:
        return os.isatty(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something else
        return False


@contextlib.contextmanager
def _handled(
    loop: asyncio.AbstractEventLoop, name: str, function: Callable[[], Any]
) -> Generator[None]:
    """Call a function at a signal; give the signal back its handler at the end."""
    number: signal.Signals | None = getattr(signal, name, None)
    before: Callable[[int, FrameType | None], Any] | int | None = None
    try:
        if number is not None:
            before = signal.getsignal(number)
            loop.add_signal_handler(number, function)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows; another thread
        number = None
    try:
        yield
    finally:
        if number is not None:
            loop.remove_signal_handler(number)
            signal.signal(number, before)
