"""A handler and the options of its subscription."""

from __future__ import annotations

from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncnotify._arguments import check_callback, check_callbacks, check_count
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._subscriptions.worker import HandlerWorker

if TYPE_CHECKING:
    from asyncnotify._channels.channel import Channel
    from asyncnotify._delivery.buffering import Buffering
    from asyncnotify._delivery.router import Router
    from asyncnotify._subscriptions.callbacks import Handler, OnError, Resync


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The arguments of ``listen()`` and ``on()``, checked. Needs no connection."""

    channel: Channel[Any]
    handler: Handler[Any]
    resync: Resync | None
    buffering: Buffering
    concurrency: int
    on_error: OnError | None
    context: Context = field(default_factory=copy_context, compare=False)

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency)
        check_callback("handler", self.handler)
        check_callbacks(resync=self.resync, on_error=self.on_error)

    def new_worker(self, router: Router) -> HandlerWorker:
        """Return a worker with an empty mailbox."""
        channels = (self.channel.name,)
        mailbox = self.buffering.new_mailbox(channels, router)
        subscriber = Subscriber(channels, mailbox, gaps_wanted=self.resync is not None)
        return HandlerWorker(
            subscriber,
            self.handler,
            channels=(self.channel,),
            resync=self.resync,
            on_error=self.on_error,
            concurrency=self.concurrency,
            context=self.context,
            turns=router.turns,
        )
