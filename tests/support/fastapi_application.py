"""An application of FastAPI's, in a module whose annotations are no texts: FastAPI reads them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.websockets import WebSocket

from asyncnotify import Channel, Listener
from asyncnotify.ext import fastapi as ours
from asyncnotify.ext.fanout import Fanout
from asyncnotify.log import Log

PUBLIC: Final = frozenset({"orders", "stock", "other"})


@dataclass
class Order:
    """A payload."""

    id: int
    note: str


ORDERS: Final = Channel("orders", Order)


def may_listen(client: str, channel: str) -> bool:
    """Let everybody listen to what is public."""
    return channel in PUBLIC


def fastapi_app(listener: Listener, log: Log, fanout: Fanout[str]) -> FastAPI:
    """Return an application with everything that is for FastAPI."""
    app = FastAPI(lifespan=ours.lifespan(listener, log))
    app.get("/health")(ours.health)
    app.get("/health/log")(ours.log_health)

    @app.get("/events", response_class=EventSourceResponse)
    async def order_events(listener: ours.ListenerDep) -> AsyncIterator[ServerSentEvent]:
        async for event in ours.sse(listener.stream(ORDERS, gaps=True, buffer=10)):
            yield event

    @app.get("/log", response_class=EventSourceResponse)
    async def log_events(
        log: ours.LogDep, after: ours.LastEventId
    ) -> AsyncIterator[ServerSentEvent]:
        async for event in ours.sse(log.read("orders", after=after, gaps=True)):
            yield event

    @app.websocket("/sockets/{channel}")
    async def socket(socket: WebSocket, channel: str) -> None:
        await ours.websocket(socket, fanout, [channel], "ann")

    return app
