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
do not: ``end_streams_on_signal()`` ends them, also under ``uvicorn fastapi_service:app``.
"""

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from enum import StrEnum
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from asyncnotify import AsyncNotifyError, Gap, Listener
from asyncnotify.ext.shutdown import end_streams_on_signal

listener = Listener(os.environ.get("DATABASE_URL"))  # one connection for all clients


class PublicChannel(StrEnum):
    """What clients may listen to. A name that they make up must never become a LISTEN."""

    ORDERS = "orders"
    STOCK = "stock"


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Listen as long as the application runs."""
    async with listener, end_streams_on_signal(listener):
        yield


def get_listener() -> Listener:
    """Return the application's listener; tests may override this dependency."""
    return listener


AppListener = Annotated[Listener, Depends(get_listener)]
app = FastAPI(lifespan=lifespan)


@app.get("/events/{channel}", response_class=EventSourceResponse)
async def events(channel: PublicChannel, listener: AppListener) -> AsyncIterator[ServerSentEvent]:
    """Stream a channel. A client that is too slow gets a gap, and costs no more than its buffer."""
    async with listener.stream(channel, gaps=True, buffer=1_000, timeout=None) as stream:
        async for item in stream:
            if isinstance(item, Gap):
                yield ServerSentEvent(event="gap", data={"reason": item.reason})
            else:
                yield ServerSentEvent(event="changed", data=item.payload)


@app.post("/orders/{order}", status_code=202)
async def change_order(order: int, listener: AppListener) -> None:
    """Tell everybody that an order has changed."""
    await listener.notify(PublicChannel.ORDERS, str(order))


@app.get("/health")
async def health(listener: AppListener, response: Response) -> dict[str, str | int]:
    """Answer 503 while notifications are being missed."""
    stats = listener.stats()
    response.status_code = 200 if listener.is_connected else 503
    return {
        "state": stats.state,
        "reconnects": stats.reconnects,
        "dropped": stats.dropped,
        "clients": len(stats.subscriptions),
    }


@app.exception_handler(AsyncNotifyError)
async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """Say what kind of error it was; its text names the database, and is not for clients."""
    return JSONResponse({"detail": type(error).__name__}, status_code=503)


def main() -> None:
    """Serve until Ctrl-C."""
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))


if __name__ == "__main__":
    main()
