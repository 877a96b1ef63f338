"""That other libraries read the public annotations: validators, encoders, a web framework."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_origin

import fastapi
import litestar
import msgspec
import pydantic
import pytest

from asyncnotify import (
    Connected,
    Gap,
    GapReason,
    Keepalive,
    Listener,
    Notification,
    Notifier,
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
def test_pydantic_takes_the_values(value: object, kind: Any) -> None:
    """What it has written as JSON it reads as an equal object of the same class."""
    adapter = pydantic.TypeAdapter[Any](kind)
    read = adapter.validate_json(adapter.dump_json(value))
    assert (read, type(read)) == (value, type(value))
    assert adapter.json_schema()


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_msgspec_takes_the_values(value: object, kind: Any) -> None:
    """What it has written as JSON it reads as an equal object of the same class."""
    read = msgspec.json.decode(msgspec.json.encode(value), type=kind)
    assert (read, type(read)) == (value, type(value))


def test_pydantic_holds_a_notification_to_its_payloads_type() -> None:
    """`Notification[int]` is not `Notification[str]`."""
    adapter = pydantic.TypeAdapter(Notification[int])
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python(("orders", "new", 7))


async def answer(app: Any, path: str) -> Any:
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
    kind: Any,
) -> None:
    """It answers with the same JSON as pydantic, and describes it in its schema."""
    app = fastapi.FastAPI()

    async def get_value() -> object:
        return value

    get_value.__annotations__["return"] = kind
    app.get("/value")(get_value)
    adapter = pydantic.TypeAdapter[Any](kind)
    assert await answer(app, "/value") == json.loads(adapter.dump_json(value))
    response = app.openapi()["paths"]["/value"]["get"]["responses"]["200"]
    assert response["content"]["application/json"]["schema"]


@pytest.mark.parametrize(("value", "kind"), VALUES)
async def test_litestar_takes_the_values_as_a_responses_type(
    value: object,
    kind: Any,
) -> None:
    """It answers with the same JSON as msgspec, and mentions it in its schema."""

    async def get_value() -> object:
        return value

    get_value.__annotations__["return"] = kind
    app = litestar.Litestar([litestar.get("/value")(get_value)])
    assert await answer(app, "/value") == json.loads(msgspec.json.encode(value))
    response = app.openapi_schema.to_schema()["paths"]["/value"]["get"]["responses"]["200"]
    assert "schema" in response["content"]["application/json"]


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_cattrs_takes_the_values(value: object, kind: Any) -> None:
    """It makes them plain, and reads all back but notifications, which are generic tuples."""
    converters = pytest.importorskip("cattrs.preconf.json")
    converter = converters.make_converter()
    text = converter.dumps(value, kind)
    assert text == converter.dumps(value)
    if isinstance(kind, type) and get_origin(kind) is None:
        read = converter.loads(text, kind)
        assert (read, type(read)) == (value, type(value))


async def test_dishka_provides_what_asyncnotify_has() -> None:
    """It reads the annotations of factories and constructors: a listener for all, values of it."""
    dishka = pytest.importorskip("dishka")

    class OfListener(dishka.Provider):  # type: ignore[misc, name-defined]  # an extra
        """Provides a listener that does not run, and what it says of itself."""

        scope = dishka.Scope.APP

        @dishka.provide  # type: ignore[untyped-decorator]  # an extra
        def listener(self) -> Listener:
            """Return a listener, as a module has it."""
            return Listener("postgresql://127.0.0.1:1/nowhere")

        @dishka.provide  # type: ignore[untyped-decorator]  # an extra
        def stats(self, listener: Listener) -> Stats:
            """Return its counters."""
            return listener.stats()

        @dishka.provide  # type: ignore[untyped-decorator]  # an extra
        def gap(self) -> Gap:
            """Return a gap."""
            return GAP

        @dishka.provide  # type: ignore[untyped-decorator]  # an extra
        def notification(self) -> Notification[str]:
            """Return a notification."""
            return TEXT

        @dishka.provide  # type: ignore[untyped-decorator]  # an extra
        def notifier(self) -> Notifier:
            """Return a notifier that has sent nothing."""
            return Notifier("postgresql://127.0.0.1:1/nowhere")

    container = dishka.make_async_container(OfListener())
    try:
        assert isinstance(await container.get(Listener), Listener)
        assert isinstance(await container.get(Notifier), Notifier)
        assert await container.get(Stats) == Stats()
        assert await container.get(Gap) is GAP
        assert await container.get(Notification[str]) is TEXT
    finally:
        await container.close()
