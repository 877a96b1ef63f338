"""Handlers of notifications, in the modules ``notifications`` of the installed apps."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils.module_loading import autodiscover_modules

from asyncnotify import Channel, Listener, Notification
from asyncnotify._arguments import check_callbacks, is_async
from asyncnotify.typing import Handler, HandlerOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
ResultT = TypeVar("ResultT")
HandlerT = TypeVar("HandlerT", bound=Handler[str])


class _Registered(NamedTuple):
    """What ``on()`` was called with, and what it decorates."""

    channel: str | Channel[Any]
    options: HandlerOptions
    handler: Any


_handlers: list[_Registered] = []


@overload
def on(channel: str, **options: Unpack[HandlerOptions]) -> Callable[[HandlerT], HandlerT]: ...


@overload
def on(
    channel: Channel[T], **options: Unpack[HandlerOptions]
) -> Callable[[Callable[[Notification[T]], ResultT]], Callable[[Notification[T]], ResultT]]: ...


def on(channel: str | Channel[Any], **options: Unpack[HandlerOptions]) -> Callable[[Any], Any]:
    """
    Register the decorated function as a handler, for ``python manage.py asyncnotify_listen``.

    Put it into the module ``notifications`` of an app. A plain function is called in a thread, and
    may use the database as a view does; an ``async def`` is called in the event loop. Before and
    after each call Django's connections that are unusable or too old are closed, as around a
    request: after a restart of the server the next call gets a new one. So it is with ``resync``.

    Args:
        channel: A name, or a Channel, which decodes the payloads.
        options: As for ``Listener.on()``: ``resync``, ``on_error``, ``concurrency``,
            ``slow_after``, ``buffer``, ``overflow``, ``latest``.

    Raises:
        TypeError: A function cannot be called as it would be, or two options exclude each other.
        ValueError: A number, or ``overflow``, is not one of those allowed.
        ChannelNameError: The server would refuse or cut the name.
        ChannelDirectionError: The Channel was made without ``decode``.
    """
    resync = options.get("resync")
    check_callbacks(resync=resync)
    trial = Listener().on(channel, **options)

    def register(handler: Any) -> Any:  # noqa: ANN401 - the overloads say it
        trial(handler)  # refuses what Listener.on() refuses, where it is written
        _handlers.append(_Registered(channel, options, handler))
        return handler

    return register


def discover() -> tuple[str, ...]:
    """Import the modules ``notifications`` of the apps; return the channels with a handler."""
    autodiscover_modules("notifications")
    names = (one.channel for one in _handlers)
    return tuple(dict.fromkeys(c.name if isinstance(c, Channel) else c for c in names))


def register_with(listener: Listener) -> None:
    """Register all handlers with a listener that is not started."""
    for one in _handlers:
        in_thread = not is_async(one.handler)
        options = one.options.copy()
        if (resync := options.get("resync")) is not None:
            options["resync"] = _with_connections(resync, in_thread=in_thread)
        register: Any = listener.on(one.channel, in_thread=in_thread, **options)
        register(_with_connections(one.handler, in_thread=in_thread))


def _with_connections(function: Callable[[Any], Any], *, in_thread: bool) -> Callable[[Any], Any]:
    """Return a function that calls another one as Django calls a view."""
    if is_async(function):
        return _around(function)
    return _around_plain(function) if in_thread else _around(sync_to_async(function))


def _around_plain(function: Callable[[Any], Any]) -> Callable[[Any], None]:
    @functools.wraps(function)
    def call(argument: object) -> None:
        close_old_connections()
        try:
            function(argument)
        finally:
            close_old_connections()

    return call


def _around(function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[None]]:
    @functools.wraps(function)
    async def call(argument: object) -> None:
        await _clean_up()
        try:
            await function(argument)
        finally:
            await _clean_up()

    return call


_clean_up = sync_to_async(close_old_connections)
"""In the thread that Django's asynchronous ORM uses."""
