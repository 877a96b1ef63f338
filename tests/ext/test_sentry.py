"""What Sentry is told of a handler that raises."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Channel, Listener, Notification
from asyncnotify.testing.fake import FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator

sentry = pytest.importorskip("sentry_sdk")


@dataclass
class Order:
    """What is sent."""

    card: str


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """
    The events that would have been sent to Sentry.

    Of the SDK's integrations there is that of logging alone: others replace functions of drivers
    for the whole process, which tests/tracing tries in processes of their own.
    """
    events: list[dict[str, Any]] = []

    def note(event: dict[str, Any], _: object) -> None:
        events.append(event)

    logging = pytest.importorskip("sentry_sdk.integrations.logging")
    sentry.init(
        dsn="https://key@sentry.invalid/1",
        before_send=note,
        default_integrations=False,
        integrations=[logging.LoggingIntegration()],
    )
    with sentry.isolation_scope() as scope:
        scope.clear()
        yield events
    sentry.init()


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize(
    ("channel", "payload"),
    [("orders", "card 4111"), (Channel("orders", Order), Order("card 4111"))],
    ids=["text", "typed"],
)
async def test_r43_an_error_of_a_handler_arrives_with_the_channel_and_without_the_payload(
    events: list[dict[str, Any]], channel: Any, payload: Any, *, in_thread: bool
) -> None:
    """Though the local variables of all frames are sent: one of them is the notification."""
    server, failed = FakeServer(), asyncio.Event()

    def handler(notification: Notification[Any]) -> None:
        raise ConnectionError

    async with Listener(server.dsn) as listener:
        await listener.listen(
            channel, handler, in_thread=in_thread, on_error=lambda _, __: failed.set()
        )
        await listener.notify(channel, payload)
        await failed.wait()
    (event,) = events
    assert event["logger"] == "asyncnotify.handler"
    assert event["extra"]["channel"] == "orders"
    assert event["exception"]["values"][-1]["type"] == "ConnectionError"
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert "notification" in frames[-1]["vars"]
    assert "card 4111" not in json.dumps(event)
    assert event.get("breadcrumbs", {}).get("values", []) == []
