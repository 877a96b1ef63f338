"""A listener or a log that starts and ends with an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

from aiohttp import web

from asyncnotify import Listener, State
from asyncnotify._arguments import check_plain_function, check_present, type_name
from asyncnotify.ext._health import health_of
from asyncnotify.ext.aiohttp._clients import Clients
from asyncnotify.ext.fanout import DEFAULT_BUFFER, DEFAULT_MAX_CHANNELS, Fanout
from asyncnotify.log import Log
from asyncnotify.typing import Dsn, Overflow

Authorize: TypeAlias = Callable[[web.Request, str], bool | Awaitable[bool]]

FoundT = TypeVar("FoundT")

LISTENER: Final = web.AppKey("LISTENER", Listener)
"""The listener of an application; a handler has it as ``request.config_dict[LISTENER]``."""

FANOUT: Final[web.AppKey[Fanout[web.Request]]] = web.AppKey("FANOUT", Fanout)
"""What gives the listener's notifications to clients, each of which is a request."""

LOG: Final = web.AppKey("LOG", Log)
"""The log of an application; a handler has it as ``request.config_dict[LOG]``."""

CLIENTS: Final = web.AppKey("CLIENTS", Clients)


def setup(
    app: web.Application,
    source: Dsn | Listener | Callable[[], Listener] | None = None,
    *,
    key: web.AppKey[Listener] = LISTENER,
    # clients
    fanout_key: web.AppKey[Fanout[web.Request]] = FANOUT,
    authorize: Authorize | None = None,
    max_channels: int = DEFAULT_MAX_CHANNELS,
    buffer: int = DEFAULT_BUFFER,
    overflow: Overflow = "drop_oldest",
) -> None:
    """
    Let a listener start and end with an application, and give its notifications to clients.

    The application does not start before the listener listens: what ``Listener.start()`` raises
    ends the start. When the server begins to stop, all streams of the listener end, so that aiohttp
    need not wait for them; afterwards, when the application cleans up, the listener is closed. One
    that runs already when the application starts is left running.

    In a sub-application that has no listener of its own, handlers find that of the application to
    which it was added.

    Args:
        app: The application, before it starts.
        source: A DSN, or None for what PGHOST and the other variables of libpq say; a Listener, for
            other options; or a function that returns a Listener, which is called at the start. Of
            the function, ``app[key]`` is there from the start on; else at once.
        key: Where the listener is found. Give each of several listeners a key of its own.
        fanout_key: Where the Fanout is found, with which ``websocket()`` and ``events()`` serve
            clients.
        authorize: Called as ``authorize(request, channel)`` for each channel that a client asks
            for; a plain function or an ``async def``. What is not true refuses the client. None
            allows every name: names that clients make up must not get this far then.
        max_channels: How many different channels all clients together may listen to.
        buffer: How many notifications may wait for one client.
        overflow: What happens when more wait: ``"drop_oldest"`` or ``"drop_newest"`` sends the
            client a gap at that place; ``"fail"`` ends its response.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: A number, or ``overflow``, is not one of those allowed; or the application has
            something under this key.
        ConfigurationError: The DSN is wrong.
        RuntimeError: The application has been started, or added to another one.
    """
    check_present("app", app, web.Application)
    clients: Fanout[web.Request] = Fanout(
        lambda: app[key],
        authorize=authorize,
        max_channels=max_channels,
        buffer=buffer,
        overflow=overflow,
    )
    listener, make = _given_or_made(source)
    _put(app, key, listener)
    _put(app, fanout_key, clients)
    _run_with(app, _ListenerRun(key, make))


def setup_log(
    app: web.Application, source: Log | Callable[[], Log], *, key: web.AppKey[Log] = LOG
) -> None:
    """
    Let a log start and end with an application.

    The application does not start before the handlers of the log are served: what ``Log.start()``
    raises ends the start. When the server begins to stop, all streams of the log end; afterwards,
    when the application cleans up, the log is closed.

    Args:
        app: The application, before it starts.
        source: A Log, or a function that returns one, which is called at the start. Of the
            function, ``app[key]`` is there from the start on; else at once.
        key: Where the log is found. Give each of several logs a key of its own.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: The application has something under this key.
        RuntimeError: The application has been started, or added to another one.
    """
    check_present("app", app, web.Application)
    log, make = (source, None) if isinstance(source, Log) else (None, source)
    if make is not None:
        _check_makes_log(make)
    _put(app, key, log)
    _run_with(app, _LogRun(key, make))


def _check_makes_log(source: object) -> None:
    if not callable(source):
        kind = type_name(source)
        msg = f"source must be a Log, or a function that returns one, not of type {kind}"
        raise TypeError(msg)
    check_plain_function("source", source)


async def health(request: web.Request, *, key: web.AppKey[Any] = LISTENER) -> web.Response:
    """
    Answer a health check: 200 while notifications are delivered, 503 while they are missed.

    The body is JSON for operators; it names the server and the role, and holds no
    password. A handler as it is; ``functools.partial(health, key=LOG)`` is one for a log.

    Raises:
        RuntimeError: The application has nothing under this key.
    """
    answer = await health_of(found(request, key))
    return web.json_response(answer.body, status=answer.status)


def _given_or_made(
    source: Dsn | Listener | Callable[[], Listener] | None,
) -> tuple[Listener | None, Callable[[], Listener] | None]:
    """Return the listener, or else what makes it at the start."""
    if isinstance(source, Listener):
        return source, None
    if callable(source):
        check_plain_function("source", source)
        return None, source
    return Listener(source), None


def found(request: web.Request, key: web.AppKey[FoundT]) -> FoundT:
    """
    Return what an application, or the one to which it was added, has under a key.

    Raises:
        RuntimeError: There is nothing.
    """
    check_present("request", request, web.Request)
    value = request.config_dict.get(key)
    if value is None:
        msg = f"the application has no {key}: call asyncnotify.ext.aiohttp.setup() or setup_log()"
        raise RuntimeError(msg)
    return value


def _put(app: web.Application, key: web.AppKey[FoundT], value: FoundT | None) -> None:
    check_present("a key", key, web.AppKey)
    if key in app:
        msg = f"the application has something under {key}: give each source a key of its own"
        raise ValueError(msg)
    if value is not None:
        app[key] = value


def _run_with(app: web.Application, run: _ListenerRun | _LogRun) -> None:
    """Let something run while the application does; end its streams when the server stops."""
    if CLIENTS not in app:
        app[CLIENTS] = Clients()
        app.on_startup.append(_begin)
        app.on_shutdown.append(_end)
    app.cleanup_ctx.append(run.running)
    app.on_shutdown.append(run.end_streams)


async def _begin(app: web.Application) -> None:
    app[CLIENTS].begin()


async def _end(app: web.Application) -> None:
    app[CLIENTS].end()


class _ListenerRun:
    """Starts and closes a listener, unless it runs already."""

    def __init__(self, key: web.AppKey[Listener], make: Callable[[], Listener] | None) -> None:
        self._key = key
        self._make = make
        self._is_ours = True

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        if self._make is not None:
            app[self._key] = self._make()
        listener = app[self._key]
        self._is_ours = listener.state in {State.NEW, State.CLOSED}
        if self._is_ours:
            async with listener:
                yield
        else:
            yield

    async def end_streams(self, app: web.Application) -> None:
        app[self._key].end_streams(also_new=self._is_ours)


class _LogRun:
    """Starts and closes a log."""

    def __init__(self, key: web.AppKey[Log], make: Callable[[], Log] | None) -> None:
        self._key = key
        self._make = make

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        if self._make is not None:
            app[self._key] = self._make()
        async with app[self._key]:
            yield

    async def end_streams(self, app: web.Application) -> None:
        app[self._key].end_streams(also_new=True)
