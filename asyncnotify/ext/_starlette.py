"""What Starlette and FastAPI have in common: the lifespan, who is asked for, and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

try:
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
except ImportError as _error:
    _MSG = "asyncnotify.ext.starlette needs starlette: pip install 'asyncnotify-pg[starlette]'"
    raise ImportError(_MSG) from _error

from asyncnotify import (
    BufferOverflowError,
    Channel,
    ChannelNameError,
    ClosedError,
    Gap,
    Listener,
    ListenTimeoutError,
    Notification,
    NotStartedError,
)
from asyncnotify._arguments import (
    check_flag,
    check_function,
    check_plain_function,
    check_present,
    check_seconds,
    check_takes,
    is_async,
)
from asyncnotify.ext._health import HealthAnswer
from asyncnotify.ext._items import message_of
from asyncnotify.ext._validation import validated
from asyncnotify.ext.fanout import (
    ChannelNotAllowedError,
    ClientT,
    Fanout,
    TooManyChannelsError,
)
from asyncnotify.ext.shutdown import end_streams_on_signal
from asyncnotify.log import After, Log, Position, PositionError
from asyncnotify.typing import Dsn

AppT = TypeVar("AppT")
T = TypeVar("T")

Served: TypeAlias = Listener | Log
Given: TypeAlias = Dsn | Served | Callable[[], Served]
"""A DSN, which makes a listener; a listener or a log; or a function that returns one."""

Lifespan: TypeAlias = Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any]]]
Inner: TypeAlias = Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any] | None]]

KEYS: Final[dict[type[Served], str]] = {
    Listener: "asyncnotify_listener",
    Log: "asyncnotify_log",
}
"""Where the state of a lifespan has them."""

POLICY_VIOLATION: Final = 1008
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for the close frame to leave: a client that does not read takes none."""

CHECK_TIMEOUT: Final = 5.0
"""Seconds for a log to say whether it has given a position."""


def lifespan(
    *given: Given, inner: Inner[AppT] | None = None, end_streams: bool = False
) -> Lifespan[AppT]:
    """
    Return a lifespan for an application: a listener, or a log, or both run as long as it does.

    They start before the application serves, and are closed behind the last request. An application
    may start more than once, as it does in tests: a DSN makes a new listener each time, a function
    is called each time, and a Listener or Log is started again.

    Args:
        given: A DSN, for a Listener; a Listener or a Log; or a function without arguments that
            returns one. At most one of each kind.
        inner: The application's own lifespan, which runs within. What its state has is kept.
        end_streams: Let SIGINT and SIGTERM end all streams, before the server handles them. uvicorn
            and others wait for all responses to end before they end the lifespan, and a response
            that is fed by a stream does not end by itself. See ``asyncnotify.ext.shutdown``.

    Raises:
        TypeError: Nothing is given, or something that is none of these, or of a kind there is
            already; or ``inner`` is no lifespan. What a function returns is checked at the start.
        ConfigurationError: A DSN is wrong.
    """
    _check_given(given)
    _check_inner(inner)
    check_flag("end_streams", end_streams)

    @contextlib.asynccontextmanager
    async def run(app: AppT) -> AsyncGenerator[Mapping[str, Any]]:
        state: dict[str, Any] = {}
        async with contextlib.AsyncExitStack() as stack:
            for served in map(_made, given):
                key = _key_of(served)
                if key in state:
                    raise _two_of(type(served))
                state[key] = await stack.enter_async_context(served)
            if end_streams:
                stack.enter_context(end_streams_on_signal(*state.values()))
            own = None if inner is None else await stack.enter_async_context(inner(app))
            yield state if own is None else {**state, **own}

    return run


def _check_given(given: tuple[Any, ...]) -> None:
    if not given:
        msg = "lifespan() needs a DSN, a Listener or a Log, or a function that returns one"
        raise TypeError(msg)
    for one in given:
        if isinstance(one, type):
            msg = f"lifespan() takes a {one.__name__}, not the class"
            raise TypeError(msg)
        if isinstance(one, Listener | Log):
            continue
        if callable(one):
            check_plain_function("a function given to lifespan()", one)
        else:
            validated(Listener, one)  # refuses what is no DSN
    kinds = [Log if isinstance(one, Log) else Listener for one in given if not _is_function(one)]
    for kind in {kind for kind in kinds if kinds.count(kind) > 1}:
        raise _two_of(kind)


def _is_function(given: object) -> bool:
    return callable(given) and not isinstance(given, Listener | Log)


def _two_of(kind: type) -> TypeError:
    return TypeError(
        f"lifespan() was given two of type {kind.__name__}: it takes one Listener and one Log;"
        " start others in the application's own lifespan, which is given as inner="
    )


def _check_inner(inner: object) -> None:
    if inner is None:
        return
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        msg = "inner must be decorated with @contextlib.asynccontextmanager"
        raise TypeError(msg)
    check_function("inner", inner)
    if is_async(inner):
        msg = (
            "inner must return an async context manager, and an `async def` without `yield` returns"
            " none: put a `yield` between what it does at the start and at the end, and decorate it"
            " with @contextlib.asynccontextmanager"
        )
        raise TypeError(msg)
    check_takes("inner", inner, "the application")


def _made(given: Given) -> Served:
    if isinstance(given, Listener | Log):
        return given
    return given() if callable(given) else Listener(given)


def _key_of(served: Served) -> str:
    for kind, key in KEYS.items():
        if isinstance(served, kind):
            return key
    msg = f"a function given to lifespan() returned a {type(served).__name__}, no Listener or Log"
    raise TypeError(msg)


def listener_of(connection: HTTPConnection) -> Listener:
    """Return the application's listener, for a request or a WebSocket; or raise NotStartedError."""
    found = _present(connection, Listener)
    return found if isinstance(found, Listener) else _missing(Listener)


def log_of(connection: HTTPConnection) -> Log:
    """Return the application's log, for a request or a WebSocket; or raise NotStartedError."""
    found = _present(connection, Log)
    return found if isinstance(found, Log) else _missing(Log)


def _present(connection: HTTPConnection, kind: type[Served]) -> object:
    check_present("connection", connection, HTTPConnection)
    return connection.scope.get("state", {}).get(KEYS[kind])


def _missing(kind: type[Served]) -> NoReturn:
    name = kind.__name__
    msg = (
        f"the application has no {name}: give lifespan=lifespan(…) a {name}, and let the lifespan"
        " run, in tests by `with TestClient(app)`"
    )
    raise NotStartedError(msg)


def response_of(answer: HealthAnswer) -> JSONResponse:
    """Return the response to a health check; no cache may keep it."""
    return JSONResponse(answer.body, answer.status, {"Cache-Control": "no-store"})


# -- Last-Event-ID --------------------------------------------------------------------------------


async def place_of(log: Log, last_event_id: str | None) -> After:
    """
    Return where a client continues reading a log.

    Args:
        log: The log.
        last_event_id: What the client has sent; None or empty: it begins with what is new.

    Raises:
        HTTPException: 400: it is not the id of an event of this log.
    """
    if not last_event_id:
        return "now"
    try:
        position = Position.parse(last_event_id)
        await _check_known(log, position)
    except PositionError as error:
        raise HTTPException(400, "Last-Event-ID is not the id of an event of this log") from error
    return position


async def _check_known(log: Log, position: Position) -> None:
    """Raise PositionError unless the log has given it; where it does not answer, reading waits."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CHECK_TIMEOUT), log.read(after=position):
            pass


# -- WebSockets -----------------------------------------------------------------------------------


async def websocket(
    socket: WebSocket,
    fanout: Fanout[ClientT],
    channels: Collection[str | Channel[Any]],
    client: ClientT,
    *,
    encode: Callable[[Notification[Any] | Gap], str] = message_of,
    send_timeout: float = 30.0,
) -> None:
    """
    Serve a WebSocket: send what comes on some channels until the client has left.

    The socket is accepted here, unless it has been before, for a subprotocol. What the client
    sends is thrown away. Returns as soon as the client has left, also where no notification ever
    comes; then its stream is closed, and nothing of it is left. Otherwise the socket is closed:

    * 1008: the client may not listen to a channel, or one has no possible name. Where the socket
      has not been accepted, the client gets the status 403 instead.
    * 1012: the streams of the listener have ended, because the service stops.
    * 1013: the client is too slow: a message was not taken within ``send_timeout``, or its buffer
      was full with ``overflow="fail"``; or there are too many channels; or the server did not
      confirm LISTEN in time.

    Args:
        socket: The WebSocket.
        fanout: Says who may listen to what, and how much may wait for a client.
        channels: What the client asks for: names, or Channels, which decode the payloads.
        client: What the ``authorize`` of the fan-out is called with.
        encode: Makes the text of a message; by default JSON: ``{"channel": …, "payload": …}``,
            and for a Gap ``{"gap": …, "channel": …, "since": …, "dropped": …}``, with its reason.
        send_timeout: Seconds in which the client has to take a message.

    Raises:
        TypeError: No channel is given, or one in two forms; ``encode`` is no plain function; or an
            argument is of a wrong type.
        ValueError: ``send_timeout`` is not a positive number of seconds.
        ChannelDirectionError: A Channel was made without ``decode``.
        NotStartedError: The listener has not been started.
        Exception: What ``authorize`` or ``encode`` raised.
    """
    check_present("socket", socket, WebSocket)
    check_present("fanout", fanout, Fanout)
    check_seconds("send_timeout", send_timeout)
    check_plain_function("encode", encode, "the item")
    try:
        await fanout.check(channels, client)
    except (ChannelNotAllowedError, ChannelNameError):
        await _close(socket, POLICY_VIOLATION, "not allowed")
        return
    except TooManyChannelsError:
        await _close(socket, TRY_AGAIN_LATER, "too many channels")
        return
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.accept()

    async def send_all() -> tuple[int, str]:
        async with fanout.stream(channels) as stream:
            async for item in stream:
                async with asyncio.timeout(send_timeout):
                    await socket.send_text(encode(item))
        return SERVICE_RESTART, "the service stops"

    code = await _first_result(_until_left(socket), _closing_code(send_all))
    if code is not None:
        await _close(socket, *code)


async def _until_left(socket: WebSocket) -> None:
    """Read what the client sends, and throw it away, until the client has left."""
    with contextlib.suppress(WebSocketDisconnect):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass


async def _closing_code(
    send_all: Callable[[], Coroutine[Any, Any, tuple[int, str]]],
) -> tuple[int, str] | None:
    """Return how to close the socket when there is no more to send; None: it is closed."""
    try:
        return await send_all()
    except WebSocketDisconnect:
        return None
    except ClosedError:
        return SERVICE_RESTART, "the service stops"
    except TooManyChannelsError:
        return TRY_AGAIN_LATER, "too many channels"
    except ListenTimeoutError:
        return TRY_AGAIN_LATER, "notifications are not being delivered"
    except (BufferOverflowError, TimeoutError):
        return TRY_AGAIN_LATER, "too slow"


async def _first_result(
    leaving: Coroutine[Any, Any, None], sending: Coroutine[Any, Any, T]
) -> T | None:
    """Run both until one ends, and end the other; return what ``sending`` did, if it was it."""
    tasks = left, sent = asyncio.ensure_future(leaving), asyncio.ensure_future(sending)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        has_left = left.done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if has_left and not sent.cancelled():
        sent.exception()  # of a client that has left: retrieved, and of no interest
    return left.result() if has_left else sent.result()


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    # RuntimeError: the client has closed it meanwhile, which servers say in several ways
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await socket.close(code, reason)
