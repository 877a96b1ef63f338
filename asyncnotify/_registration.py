"""A handler and how it wants to be served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncnotify._policy import check_count
from asyncnotify._registry import Subscriber
from asyncnotify._subscription import HandlerWorker

if TYPE_CHECKING:
    from asyncnotify._channel import Channel
    from asyncnotify._containment import OnError
    from asyncnotify._delivery import Delivery
    from asyncnotify._policy import Policy
    from asyncnotify._subscription import Handler, Resync


def check_callable(name: str, function: object) -> None:
    """Raise TypeError unless it can be called, or is None."""
    if function is not None and not callable(function):
        msg = f"{name} must be callable, not of type {type(function).__name__}"
        raise TypeError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is known of a subscription before there is a connection for it."""

    channel: Channel[Any]
    handler: Handler[Any]
    resync: Resync | None
    policy: Policy
    concurrency: int
    on_error: OnError | None

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency)
        handler: object = self.handler
        if handler is None:
            msg = "handler must be callable, not of type NoneType"
            raise TypeError(msg)
        for name in ("handler", "resync", "on_error"):
            check_callable(name, getattr(self, name))

    def new_worker(self, delivery: Delivery) -> HandlerWorker:
        """Return a worker with an empty mailbox."""
        channels = (self.channel.name,)
        mailbox = self.policy.new_mailbox(channels, delivery)
        subscriber = Subscriber(channels, mailbox, gaps_wanted=self.resync is not None)
        return HandlerWorker(
            subscriber,
            self.handler,
            channels=(self.channel,),
            resync=self.resync,
            on_error=self.on_error,
            concurrency=self.concurrency,
        )
