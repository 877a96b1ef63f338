"""
Server-Sent Events that resume: a browser that comes back gets what it has missed.

    DATABASE_URL=postgresql://localhost/postgres python log_sse.py
    curl -N localhost:8000/events
    curl -X POST localhost:8000/orders/42
    curl -N localhost:8000/events -H 'Last-Event-ID: …the last id that came…'

Each event bears its position in the log as its ``id``. ``EventSource`` sends the last one by itself
when it connects again, to whichever process. The server keeps nothing of a client, and all clients
share a few connections.
"""

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent

from asyncnotify import Gap
from asyncnotify.ext.shutdown import end_streams_on_signal
from asyncnotify.log import After, Log, Position, PositionError

log = Log("web", os.environ.get("DATABASE_URL"))


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Have the log as long as the application runs."""
    await log.install()
    async with log, end_streams_on_signal(log):  # else uvicorn would wait for the responses
        yield


app = FastAPI(lifespan=lifespan)


def place(last_event_id: Annotated[str | None, Header()] = None) -> After:
    """Return where the client left off, if it says so."""
    try:
        return "now" if last_event_id is None else Position.parse(last_event_id)
    except PositionError as error:
        raise HTTPException(400, "not the id of an event") from error


@app.get("/events", response_class=EventSourceResponse)
async def events(after: Annotated[After, Depends(place)]) -> AsyncIterator[ServerSentEvent]:
    """Stream what is new; from where the client left off, if it says so."""
    async with log.read("orders", after=after, gaps=True) as stream:
        yield ServerSentEvent(event="ready", data="")
        async for item in stream:
            if isinstance(item, Gap):
                yield ServerSentEvent(event="reload", data={"missed": item.dropped})
            else:
                yield ServerSentEvent(event="changed", data=item.payload, id=str(item.position))


@app.post("/orders/{order}", status_code=202)
async def change_order(order: int) -> None:
    """Append that an order has changed."""
    await log.append("orders", str(order))


def main() -> None:
    """Serve until Ctrl-C."""
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))


if __name__ == "__main__":
    main()
