"""The Listeners of this process: one for each database, in the event loop that asked first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from asyncnotify import ClosedError, Listener
from asyncnotify.ext.django._databases import new_listener
from asyncnotify.ext.django._requests import refuse_short_loop
from asyncnotify.ext.django._settings import database_alias

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_listeners: Final[dict[AbstractEventLoop, dict[str, Listener]]] = {}


async def get_listener(alias: str | None = None) -> Listener:
    """
    Return the Listener of this process for a database; the first call starts it.

    All requests share it, and its one connection. Under ASGI a process has one event loop; where
    there are more, as in tests, each has a listener of its own. The options are those of
    ``ASYNCNOTIFY["LISTENER"]``. ``close_listeners()`` closes it, and so does ``Lifespan``.

    A call that is cancelled, because the client has left, does not fail others that wait.

    Args:
        alias: The alias of the database; None: as ``ASYNCNOTIFY["DATABASE"]`` says, or ``default``.

    Raises:
        ImproperlyConfigured: The settings cannot be honoured.
        ConnectionDoesNotExist: There is no such alias.
        ConnectError: The server refused, or the listener was not listening within
            ``start_timeout``. The next call tries again.
        ClosedError: The listener was closed meanwhile.
        WrongLoopError: The call came from an async view under WSGI.
    """
    refuse_short_loop()
    name = database_alias(alias)
    listeners = _here()
    listener = listeners.get(name)
    if listener is None:
        listener = listeners[name] = new_listener(name)
    while True:
        try:
            await listener.start()
        except ClosedError:
            if listeners.get(name) is not listener:
                raise
            await listener.wait_closed()  # the call that started it was cancelled
        else:
            return listener


async def close_listeners() -> None:
    """
    Close the listeners of this event loop: streams end after what they have buffered.

    For the end of a process, and of a test. ``get_listener()`` then makes new ones.
    """
    listeners = _listeners.pop(asyncio.get_running_loop(), {})
    for listener in listeners.values():
        await listener.aclose()


def end_streams(*, also_new: bool) -> None:
    """End the streams of all listeners; see ``Listener.end_streams()``."""
    for listeners in list(_listeners.values()):
        for listener in list(listeners.values()):
            listener.end_streams(also_new=also_new)


def _here() -> dict[str, Listener]:
    for loop in [loop for loop in _listeners if loop.is_closed()]:
        _listeners.pop(loop, None)
    return _listeners.setdefault(asyncio.get_running_loop(), {})
