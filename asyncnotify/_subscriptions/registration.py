"""A handler and the options of its subscription."""

from __future__ import annotations

from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncnotify._arguments import (
    check_callback,
    check_callbacks,
    check_count,
    check_flag,
    check_seconds,
    is_async,
)
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._subscriptions.slow import DEFAULT_SLOW_AFTER
from asyncnotify._subscriptions.threads import InThread, check_in_thread
from asyncnotify._subscriptions.worker import HandlerWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.buffering import Buffering
    from asyncnotify._delivery.router import Router
    from asyncnotify._subscriptions.callbacks import Handler, OnError, Resync
    from asyncnotify._subscriptions.middleware import Middleware


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The arguments of ``listen()`` and ``on()``, checked. Needs no connection."""

    channel: Channel[Any]
    handler: Handler[Any]
    resync: Resync | None
    buffering: Buffering
    concurrency: int
    on_error: OnError | None
    in_thread: bool = False
    slow_after: float | None = DEFAULT_SLOW_AFTER
    context: Context = field(default_factory=copy_context, compare=False)

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency)
        check_callback("handler", self.handler)
        check_callbacks(resync=self.resync, on_error=self.on_error)
        check_seconds("slow_after", self.slow_after, or_none=True)
        check_flag("in_thread", self.in_thread)
        if self.in_thread:
            check_in_thread(self.handler)

    def new_worker(self, router: Router, middleware: Sequence[Middleware] = ()) -> HandlerWorker:
        """Return a worker with an empty mailbox, that calls the handler through middleware."""
        channels = (self.channel.name,)
        mailbox = self.buffering.new_mailbox(channels, router)
        subscriber = Subscriber(channels, mailbox, gaps_wanted=self.resync is not None)
        return HandlerWorker(
            subscriber,
            self._called(self.handler, self.concurrency),
            channels=(self.channel,),
            resync=None if self.resync is None else self._called(self.resync, 1),
            on_error=self.on_error,
            concurrency=self.concurrency,
            middleware=middleware,
            context=self.context,
            turns=router.turns,
            warnings=router.warnings,
            slow_after=self.slow_after,
        )

    def _called(self, function: Callable[[Any], Any], limit: int) -> Callable[[Any], Any]:
        """Return what calls the function where it is to run."""
        if not self.in_thread or is_async(function):
            return function
        name = f"asyncnotify handler of {self.channel.name!r}"
        return InThread(function, name=name, limit=limit)
