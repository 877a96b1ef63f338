"""One run of all handlers, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import ClosedError, Listener
from asyncnotify.ext.django._databases import new_listener
from asyncnotify.ext.django._handlers import register_with

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def run(alias: str | None, *, started: Callable[[], None]) -> None:
    """
    Listen, and run the handlers, until SIGTERM or Ctrl-C; a second one waits for no handler.

    Outside of the main thread, as under the autoreloader, until the process ends.

    Args:
        alias: The alias of the database.
        started: Called once the server has confirmed all channels.

    Raises:
        ImproperlyConfigured: The settings cannot be honoured.
        ConnectionDoesNotExist: There is no such alias.
        ConnectError: The server refused, or the listener was not listening within
            ``start_timeout``.
        ClosedError: A bug in asyncnotify has ended the listener.
    """
    listener = new_listener(alias)
    register_with(listener)
    closer = _Closer(listener)
    with closer.called_by_signals():
        try:
            await listener.start()
            started()
            await listener.wait_closed()
        except ClosedError:
            if not closer.was_called:  # before the start has succeeded
                raise
        finally:
            await listener.aclose()


class _Closer:
    """Closes a listener at the first signal, and at the next one without waiting for handlers."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Task[None] | None = None

    @property
    def was_called(self) -> bool:
        """Whether there was a signal."""
        return self._closing is not None

    def _call(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._listener.aclose())
        else:
            self._closing.cancel()

    def _signal(self, *_: Any) -> None:  # noqa: ANN401 - as handlers of signals are called
        # In the context of a handler that the signal has interrupted, closing would be taken for a
        # call of that handler, which would then not be waited for
        self._loop.call_soon_threadsafe(self._call, context=Context())

    @contextlib.contextmanager
    def called_by_signals(self) -> Generator[None]:
        """Take the signals, in the main thread; give them back at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
