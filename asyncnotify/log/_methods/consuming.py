"""Durable consumers, and handlers, which are consumers that call a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Literal, TypeVar, overload

from asyncnotify import Channel, Gap
from asyncnotify._arguments import check_flag, check_present, check_seconds
from asyncnotify._channels.arguments import channels_of
from asyncnotify._subscriptions.slow import DEFAULT_SLOW_AFTER
from asyncnotify.log._consuming.calling import (
    EventHandler,
    Handling,
    check_event_handler,
)
from asyncnotify.log._consuming.consumer import Consumer
from asyncnotify.log._errors import LogNameError
from asyncnotify.log._methods.running import Running
from asyncnotify.log._names import check_channels, check_consumer_name
from asyncnotify.log._reading.stream import After, check_after
from asyncnotify.log._retry import Retry
from asyncnotify.log._values import Event
from asyncnotify.log._walk.buckets import check_buckets

T = TypeVar("T")
HandlerT = TypeVar("HandlerT", bound=EventHandler)

DEFAULT_RETRY = Retry()


class Consuming(Running):
    """The methods that make consumers and register handlers."""

    @overload
    def consumer(
        self,
        name: str,
        *channels: str,
        start: After = ...,
        gaps: Literal[False] = False,
        buckets: int = ...,
    ) -> Consumer[Event[str]]: ...

    @overload
    def consumer(
        self,
        name: str,
        *channels: Channel[T],
        start: After = ...,
        gaps: Literal[False] = False,
        buckets: int = ...,
    ) -> Consumer[Event[T]]: ...

    @overload
    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = ...,
        gaps: Literal[False] = False,
        buckets: int = ...,
    ) -> Consumer[Event[Any]]: ...

    @overload
    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = ...,
        gaps: bool,
        buckets: int = ...,
    ) -> Consumer[Event[Any] | Gap]: ...

    def consumer(
        self,
        name: str,
        *channels: str | Channel[Any],
        start: After = "start",
        gaps: bool = False,
        buckets: int = 1,
    ) -> Consumer[Any]:
        """
        Return a durable consumer, whose place in the log is kept in the database under its name.

        ``async with log.consumer("mailer") as consumer: async for event in consumer: …``. The class
        of the consumer, Consumer, says what is guaranteed.

        Args:
            name: 1 to 200 printable characters.
            channels: As for ``read()``.
            start: Where a consumer begins that is not in the database, as ``after`` of ``read()``.
            gaps: Yield a Gap where events had been removed before they were consumed
                (``EXPIRED``), and in place of an event that says "read again" (``REREAD``).
            buckets: Into how many parts the events are split, 1 to 256, by a hash of their keys:
                so many processes, at most, can share the name, and each key keeps its order. An
                event without a key has no order, and goes to any of them. The number is fixed when
                the consumer is made: with another one, what the iteration raises is a
                BucketCountError.

        Raises:
            LogNameError: No consumer can have this name.
            ChannelNameError: One of the names cannot be that of a channel.
            TypeError: As of ``read()``.
            ValueError: As of ``read()``, or ``buckets`` is not 1 to 256.
            WrongLoopError: The call came from another event loop or process.
        """
        check_consumer_name(name)
        check_after(start, "start")
        check_flag("gaps", gaps)
        check_channels("consumer", channels)
        check_buckets(buckets)
        return self._running().consumer(name, channels, start, gaps=gaps, buckets=buckets)

    def on(
        self,
        name: str,
        *channels: str | Channel[Any],
        transactional: bool = False,
        on_error: Retry = DEFAULT_RETRY,
        start: After = "start",
        buckets: int = 1,
        slow_after: float | None = DEFAULT_SLOW_AFTER,
    ) -> Callable[[HandlerT], HandlerT]:
        """
        Register a handler: a durable consumer that calls a function with each event.

        It runs while the log is started, by ``async with log`` or ``start()``; if the log is
        started already, at once. Each call has a copy of the context in which it is registered.
        Events come one at a time, in their order. What the function raises is logged, and the event
        is handed over again as ``on_error`` says. An event that cannot be decoded, or that says
        "read again", is kept as a dead letter.

        Args:
            name: The name of the consumer, as for ``consumer()``.
            channels: As for ``read()``.
            transactional: Call the function with the event and an asyncpg connection, in a
                transaction that also moves the cursor: what the function writes there and the
                cursor are committed together, so that each event has its effect exactly once.
                Otherwise the event comes at least once.
            on_error: What to do when the function raises.
            start: As for ``consumer()``.
            buckets: As for ``consumer()``. Events come one at a time in each bucket, and those of
                different buckets at the same time, also in one process. ``Retry(then="stop")``
                stops the bucket of the event, in this process.
            slow_after: Seconds after which a warning names a call that has not returned, and where
                it waits; a plain function that blocks the event loop for a second is warned of
                too. None: no warning.

        Raises:
            LogNameError: No consumer can have this name, or a handler has it.
            ChannelNameError: One of the names cannot be that of a channel.
            TypeError: The function cannot be called as it would be, or an argument is of a wrong
                type.
            ValueError: As of ``read()``, ``buckets`` is not 1 to 256, or ``slow_after`` is not a
                positive number of seconds.
            WrongLoopError: The log runs in another event loop or process than the one that calls.
        """
        check_consumer_name(name)
        check_after(start, "start")
        check_flag("transactional", transactional)
        check_present("on_error", on_error, Retry)
        check_buckets(buckets)
        check_seconds("slow_after", slow_after, or_none=True)
        check_channels("on", channels)
        channels_of(channels)
        _check_free(name, self._handlings)

        def register(function: HandlerT) -> HandlerT:
            check_event_handler(function, transactional=transactional)
            _check_free(name, self._handlings)
            self._handlings[name] = handling = Handling(
                log=self.name,
                consumer=name,
                channels=channels,
                function=function,
                transactional=transactional,
                retry=on_error,
                begin=start,
                buckets=buckets,
                slow_after=slow_after,
                context=copy_context(),
            )
            runtime = self._runtime
            if runtime is not None and runtime.serves_handlers and not runtime.has_ended:
                self._running().serve(handling)
            return function

        return register


def _check_free(name: str, handlings: Mapping[str, Handling]) -> None:
    if name in handlings:
        raise LogNameError(name, "consumer", "a handler of this log has this name")
