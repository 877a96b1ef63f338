"""The listeners and logs of this process: one for each database, in each event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify import ClosedError, Listener
from asyncnotify.ext.django._databases import connect_arguments, new_listener
from asyncnotify.ext.django._requests import refuse_short_loop
from asyncnotify.ext.django._settings import database_alias
from asyncnotify.log import Log

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class _Sources(NamedTuple):
    """
    What an event loop has.

    Attributes:
        listeners: By the alias of the database.
        logs: By their name, and that alias.
    """

    listeners: dict[str, Listener]
    logs: dict[tuple[str, str], Log]

    def all(self) -> list[Listener | Log]:
        """Return them together."""
        return [*self.listeners.values(), *self.logs.values()]


class _Process:
    """
    What the whole process has.

    Attributes:
        ends_new_streams: Whether streams that begin now have to end at once, those included of
            listeners and logs that do not exist yet.
    """

    ends_new_streams = False


_sources: Final[dict[AbstractEventLoop, _Sources]] = {}
_process: Final = _Process()


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
    listeners = _here().listeners
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
            _end_if_stopping(listener)  # now: before its start it knows of no streams
            return listener


def get_log(name: str, alias: str | None = None) -> Log:
    """
    Return the Log of this process, to read and to append with, in a coroutine.

    All requests share it, and its connections. It has no handlers: those run in a process of their
    own. In a test, ``close_listeners()`` closes it, and so does ``Lifespan`` at the end.

    Args:
        name: The name of the log.
        alias: The alias of its database; None: as ``ASYNCNOTIFY["DATABASE"]`` says, or ``default``.

    Raises:
        LogNameError: No log can have this name.
        ImproperlyConfigured: The settings cannot be honoured.
        ConnectionDoesNotExist: There is no such alias.
        WrongLoopError: The call came from an async view under WSGI.
    """
    refuse_short_loop()
    key = (name, database_alias(alias))
    logs = _here().logs
    if key not in logs:
        logs[key] = Log(name, **connect_arguments(alias))
        _end_if_stopping(logs[key])
    return logs[key]


async def close_listeners() -> None:
    """
    Close the listeners and logs of this event loop: streams end after what they have buffered.

    For the end of a process, and of a test. ``get_listener()`` and ``get_log()`` then make new
    ones.

    Raises nothing.
    """
    _process.ends_new_streams = False
    sources = _sources.pop(asyncio.get_running_loop(), None)
    if sources is not None:
        for source in sources.all():
            await source.aclose()


def end_streams(*, also_new: bool) -> None:
    """
    End the streams of all listeners and logs; see ``Listener.end_streams()``.

    Args:
        also_new: End also each stream that begins later, of whatever listener or log, until
            ``close_listeners()``.
    """
    _process.ends_new_streams = _process.ends_new_streams or also_new
    for sources in list(_sources.values()):
        for source in sources.all():
            source.end_streams(also_new=also_new)


def _end_if_stopping(source: Listener | Log) -> None:
    """End the streams of what is known only now; afterwards: a signal may interrupt its making."""
    if _process.ends_new_streams:
        source.end_streams(also_new=True)


def _here() -> _Sources:
    for loop in [loop for loop in _sources if loop.is_closed()]:
        _sources.pop(loop, None)
    return _sources.setdefault(asyncio.get_running_loop(), _Sources({}, {}))
