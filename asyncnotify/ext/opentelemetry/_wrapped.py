"""The methods that send and register, with a record of what they do."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

from asyncnotify import Channel
from asyncnotify._notes import noted_count
from asyncnotify.ext.opentelemetry._destinations import is_ours
from asyncnotify.ext.opentelemetry._headers import current_context, with_context, with_contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from asyncnotify import Notification
    from asyncnotify.ext.opentelemetry._operations import Operations, Sent
    from asyncnotify.log import Event
    from asyncnotify.typing import CallNext, Middleware


def _name_of(channel: object) -> str | None:
    if isinstance(channel, Channel):
        return channel.name
    return channel if isinstance(channel, str) else None


def sends_one(method: Callable[..., Any], operations: Operations) -> Callable[..., Any]:
    """Return a method that sends one notification or event, with a span."""
    with_headers = method.__name__ == "append"

    def prepared(options: dict[str, Any]) -> dict[str, Any]:
        if not with_headers:
            return options
        return {**options, "headers": with_context(options.get("headers"), current_context())}

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def send_soon(channel: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the method takes and returns them
            name = _name_of(channel)
            if is_ours(name):
                return await method(channel, *arguments, **options)
            with operations.sending(name):
                return await method(channel, *arguments, **prepared(options))

        return send_soon

    @functools.wraps(method)
    def send(channel: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the method takes and returns them
        name = _name_of(channel)
        if is_ours(name):
            return method(channel, *arguments, **options)
        with operations.sending(name):
            return method(channel, *arguments, **prepared(options))

    return send


def sends_many(method: Callable[..., Any], operations: Operations) -> Callable[..., Any]:
    """Return a method that sends many, with one span for all of them."""
    with_headers = method.__name__ == "append_many"

    def called(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the method takes and returns them
        if not with_headers:
            return method(*arguments, **options)
        context = current_context()
        if "events" in options:
            options["events"] = with_contexts(options["events"], context)
        first = [with_contexts(events, context) for events in arguments[:1]]
        return method(*first, *arguments[1:], **options)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def send(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the method takes and returns them
            with operations.sending(None) as sent, _counting(sent, options):
                sent.count = await called(*arguments, **options)
                return sent.count

        return send

    @functools.wraps(method)
    def send_now(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the method takes and returns them
        with operations.sending(None) as sent, _counting(sent, options):
            sent.count = called(*arguments, **options)
            return sent.count

    return send_now


@contextlib.contextmanager
def _counting(sent: Sent, options: Mapping[str, Any]) -> Generator[None]:
    """Know of a call that fails how many it had sent; within the caller's transaction none."""
    sent.count = None
    try:
        yield
    except BaseException as error:
        if options.get("connection") is None:
            sent.before = noted_count(error)
        raise


def middleware_of(operations: Operations) -> Middleware:
    """Return a middleware that makes a span of each call of a handler."""

    async def traced(notification: Notification[Any], call_next: CallNext) -> None:
        if is_ours(notification.channel):
            await call_next(notification)
            return
        with operations.processing(notification.channel, traceparent=notification.context):
            await call_next(notification)

    return traced


def registers(method: Callable[..., Any], operations: Operations) -> Callable[..., Any]:
    """Return the ``on()`` of a log; the calls of what it registers have spans."""

    @functools.wraps(method)
    def on(name: Any, *arguments: Any, **options: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - as the method takes them
        register = method(name, *arguments, **options)

        def register_traced(function: Any) -> Any:  # noqa: ANN401 - what is no function is refused by the log
            register(_traced(function, operations, name) if callable(function) else function)
            return function

        return register_traced

    return on


def _traced(function: Callable[..., Any], operations: Operations, group: str) -> Any:  # noqa: ANN401 - as the function
    def processing(event: Event[Any]) -> Any:  # noqa: ANN401 - a context manager
        return operations.processing(
            event.channel, group=group, message_id=str(event.id), headers=event.headers
        )

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call(event: Event[Any], *connection: Any) -> Any:  # noqa: ANN401 - as the function
            with processing(event):
                return await function(event, *connection)

        return call

    @functools.wraps(function)
    def call_now(event: Event[Any], *connection: Any) -> Any:  # noqa: ANN401 - as the function
        with processing(event):
            return function(event, *connection)

    return call_now
