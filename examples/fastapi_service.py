"""
Server-Sent Events with FastAPI: browsers hear what is notified, and where they must read again.

    DATABASE_URL=postgresql://localhost/postgres python fastapi_service.py
    curl -N localhost:8000/events/orders
    curl -X POST localhost:8000/orders/42
    curl localhost:8000/health

In the browser, the page reads its state at every gap, the one at the beginning included:

    const events = new EventSource("/events/orders");
    events.addEventListener("gap", readEverything);
    events.addEventListener("changed", (event) => readOne(JSON.parse(event.data)));

When uvicorn is told to stop, it waits for all responses to end, and those that are fed by streams
do not: ``end_streams=True`` ends them, also under ``uvicorn fastapi_service:app``.
"""

import os
from collections.abc import AsyncIterator
from enum import StrEnum

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from asyncnotify import AsyncNotifyError, Listener
from asyncnotify.ext.fastapi import ListenerDep, health, lifespan, sse

listener = Listener(os.environ.get("DATABASE_URL"))  # one connection for all clients
app = FastAPI(lifespan=lifespan(listener, end_streams=True))
app.get("/health")(health)


class PublicChannel(StrEnum):
    """What clients may listen to. A name that they make up must never become a LISTEN."""

    ORDERS = "orders"
    STOCK = "stock"


@app.get("/events/{channel}", response_class=EventSourceResponse)
async def events(channel: PublicChannel, listener: ListenerDep) -> AsyncIterator[ServerSentEvent]:
    """Stream a channel. A client that is too slow gets a gap, and costs no more than its buffer."""
    stream = listener.stream(channel, gaps=True, buffer=1_000, timeout=None)
    async for event in sse(stream, event="changed"):
        yield event


@app.post("/orders/{order}", status_code=202)
async def change_order(order: int, listener: ListenerDep) -> None:
    """Tell everybody that an order has changed."""
    await listener.notify(PublicChannel.ORDERS, str(order))


@app.exception_handler(AsyncNotifyError)
async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """Say what kind of error it was; its text names the database, and is not for clients."""
    return JSONResponse({"detail": type(error).__name__}, status_code=503)


def main() -> None:
    """Serve until Ctrl-C."""
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))


if __name__ == "__main__":
    main()
