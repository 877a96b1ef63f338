"""That other libraries read the public annotations: validators, encoders, a web framework."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fastapi
import msgspec
import pydantic
import pytest

from asyncnotify import (
    Connected,
    Gap,
    GapReason,
    Keepalive,
    Notification,
    State,
    Stats,
    SubscriptionStats,
)

if TYPE_CHECKING:
    from starlette.types import Message

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GAP = Gap("orders", GapReason.OVERFLOW, SINCE, 3)
OF_ONE = SubscriptionStats(("orders", "users"), 1, 2, 3, 4, 5, 6, 7, 8)
STATS = Stats(State.CONNECTED, 1, 2, connected_since=SINCE, subscriptions=(OF_ONE,))
TEXT = Notification("orders", "new", 7)
NUMBER = Notification("orders", 5, 7)

VALUES = [
    (GAP, Gap),
    (OF_ONE, SubscriptionStats),
    (STATS, Stats),
    (TEXT, Notification[str]),
    (NUMBER, Notification[int]),
    (TEXT, Notification[str] | Gap),
    (GAP, Notification[str] | Gap),
    (Connected(1, 7), Connected),
    (Keepalive(), Keepalive),
]


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_pydantic_takes_the_values(value: object, kind: Any) -> None:  # noqa: ANN401
    """What it has written as JSON it reads as an equal object of the same class."""
    adapter = pydantic.TypeAdapter[Any](kind)
    read = adapter.validate_json(adapter.dump_json(value))
    assert (read, type(read)) == (value, type(value))
    assert adapter.json_schema()


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_msgspec_takes_the_values(value: object, kind: Any) -> None:  # noqa: ANN401
    """What it has written as JSON it reads as an equal object of the same class."""
    read = msgspec.json.decode(msgspec.json.encode(value), type=kind)
    assert (read, type(read)) == (value, type(value))


def test_pydantic_holds_a_notification_to_its_payloads_type() -> None:
    """`Notification[int]` is not `Notification[str]`."""
    adapter = pydantic.TypeAdapter(Notification[int])
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python(("orders", "new", 7))


async def answer(app: fastapi.FastAPI, path: str) -> Any:  # noqa: ANN401 - as JSON has it
    """Return what an application answers."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app({"http_version": "1.1", "asgi": {"version": "3.0"}, **scope}, receive, send)
    assert sent[0]["status"] == 200
    return json.loads(b"".join(message.get("body", b"") for message in sent))


@pytest.mark.parametrize(("value", "kind"), VALUES)
async def test_fastapi_takes_the_values_as_a_responses_type(
    value: object,
    kind: Any,  # noqa: ANN401
) -> None:
    """It answers with the same JSON as pydantic, and describes it in its schema."""
    app = fastapi.FastAPI()

    @app.get("/value", response_model=kind)
    async def get_value() -> object:
        return value

    adapter = pydantic.TypeAdapter[Any](kind)
    assert await answer(app, "/value") == json.loads(adapter.dump_json(value))
    response = app.openapi()["paths"]["/value"]["get"]["responses"]["200"]
    assert response["content"]["application/json"]["schema"]
