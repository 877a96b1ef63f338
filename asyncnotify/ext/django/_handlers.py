"""Handlers of notifications, in the modules ``notifications`` of the installed apps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Unpack, overload
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections
from django.utils.module_loading import autodiscover_modules

from asyncnotify import Channel, Listener, Notification
from asyncnotify._arguments import check_callbacks, is_async
from asyncnotify.ext._validation import validated
from asyncnotify.typing import Handler, HandlerOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from django.db.backends.base.base import BaseDatabaseWrapper

T = TypeVar("T")
ResultT = TypeVar("ResultT")
HandlerT = TypeVar("HandlerT", bound=Handler[str])


class _Registered(NamedTuple):
    """What ``on()`` was called with, and what it decorates."""

    channel: str | Channel[Any]
    options: HandlerOptions
    handler: Any


_handlers: list[_Registered] = []
_left_open: WeakSet[BaseDatabaseWrapper] = WeakSet()


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
    may use the database as a view does; an ``async def`` is called in the event loop. Around each
    call Django's connections are treated as around a request; and one that no longer answers is
    replaced, whatever CONN_HEALTH_CHECKS says. So it is with ``resync``.

    Args:
        channel: A name, or a Channel, which decodes the payloads.
        options: As for ``Listener.on()``: ``resync``, ``on_error``, ``concurrency``,
            ``slow_after``, ``buffer``, ``overflow``, ``latest``.

    Raises:
        TypeError: A function cannot be called as it would be, or two options exclude each other.
        ValueError: A number, or ``overflow``, is not one of those allowed.
        ChannelNameError: The name is not valid for a channel.
        ChannelDirectionError: The Channel was made without ``decode``.
    """
    resync = options.get("resync")
    check_callbacks(resync=resync)
    check = validated(Listener).on(channel, **options)

    def register(handler: Any) -> Any:  # noqa: ANN401 - the overloads say it
        check(handler)  # refuses what Listener.on() refuses, where it is written
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
        _check_connections()
        try:
            function(argument)
        finally:
            _leave_connections()

    return call


def _around(function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[None]]:
    @functools.wraps(function)
    async def call(argument: object) -> None:
        await sync_to_async(_check_connections)()  # in the thread of Django's async ORM
        try:
            await function(argument)
        finally:
            await sync_to_async(_leave_connections)()

    return call


def _check_connections() -> None:
    """
    Close this thread's connections that are too old or do not answer.

    Django itself looks only where CONN_HEALTH_CHECKS says so. A request that fails is repeated by
    its user, but a notification that is not handled is gone.
    """
    close_old_connections()
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and not connection.is_usable():
            connection.close()


def _leave_connections() -> None:
    """Close this thread's connections that are too old; remember the others."""
    close_old_connections()
    _left_open.update(connections.all(initialized_only=True))


def close_connections() -> None:
    """Close the connections of the threads in which handlers were called."""
    for connection in list(_left_open):
        connection.inc_thread_sharing()
        connection.close()
