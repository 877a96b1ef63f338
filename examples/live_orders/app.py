"""
A page that shows orders as they change: no poller, no queue, no build.

    DATABASE_URL=postgresql://localhost/postgres python app.py

Open http://localhost:8000 in two windows, and change something with the buttons or in psql:

    INSERT INTO orders (customer, item, price) VALUES ('Grace', 'Compiler', 19.52);
    UPDATE orders SET status = 'shipped' WHERE id = 1;

A trigger that asyncnotify has written appends each change to a durable log, in the transaction that
makes it. The page follows that log by Server-Sent Events. A browser that comes back sends the id of
the last event that it has, and gets what it has missed; where that is not there any more, a Gap
says so, and the page reads all orders again.
"""

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from asyncnotify import Listener
from asyncnotify.ext.fastapi import LastEventId, LogDep, health, lifespan, sse
from asyncnotify.ext.shutdown import end_streams_on_signal
from asyncnotify.log import Log
from asyncnotify.triggers import Table

DSN = os.environ.get("DATABASE_URL")
PAGE = Path(__file__).with_name("index.html")
SCHEMA = """
    CREATE TABLE IF NOT EXISTS orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer text NOT NULL,
        item text NOT NULL,
        price numeric(10, 2) NOT NULL,
        status text NOT NULL DEFAULT 'new'
            CHECK (status IN ('new', 'paid', 'packed', 'shipped', 'delivered'))
    )
"""
NEXT = """
    UPDATE orders SET status = CASE status
        WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'packed' WHEN 'packed' THEN 'shipped'
        ELSE 'delivered' END
    WHERE id = $1 AND status <> 'delivered' RETURNING id
"""

orders = Table(
    "orders", key="id", payload=("customer", "item", "price", "status"), to="log", log="live_orders"
)
listener = Listener(DSN)
log = Log("live_orders", DSN, listener=listener)


@contextlib.asynccontextmanager
async def prepare(_: FastAPI) -> AsyncGenerator[dict[str, object]]:
    """Make the table, the log and the triggers; end the streams when the server is to stop."""
    async with asyncpg.create_pool(DSN, min_size=0, timeout=5) as pool:
        await pool.execute(SCHEMA)
        await log.install()
        async with pool.acquire() as connection:
            await orders.install(connection)
        with end_streams_on_signal(log):
            yield {"pool": pool}


async def get_pool(request: Request) -> Any:  # noqa: ANN401 - FastAPI cannot read that of asyncpg
    """Return the application's pool."""
    return request.state.pool


Pool = Annotated[Any, Depends(get_pool)]


app = FastAPI(title="Live orders", lifespan=lifespan(listener, log, inner=prepare))
app.get("/health")(health)


class NewOrder(BaseModel):
    """What a customer sends."""

    customer: str = Field(min_length=1, max_length=40)
    item: str = Field(min_length=1, max_length=40)
    price: float = Field(gt=0, lt=1_000_000)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE)


@app.get("/orders")
async def read_orders(pool: Pool) -> list[dict[str, object]]:
    """Return the newest orders."""
    found = await pool.fetch("SELECT * FROM orders ORDER BY id DESC LIMIT 200", timeout=5)
    return [dict(order) for order in found]


@app.get("/events", response_class=EventSourceResponse)
async def events(log: LogDep, after: LastEventId) -> AsyncIterator[ServerSentEvent]:
    """Stream the changes; from where the browser left off, if it says so."""
    async for event in sse(log.read(orders.changes, after=after, gaps=True), event="change"):
        yield event


@app.post("/orders", status_code=201)
async def add_order(order: NewOrder, pool: Pool) -> None:
    """Insert an order. Nothing here knows of the page: the trigger does."""
    await pool.execute(
        "INSERT INTO orders (customer, item, price) VALUES ($1, $2, $3::float8::numeric)",
        order.customer,
        order.item,
        order.price,
        timeout=5,
    )


@app.post("/orders/{number}/next", status_code=204)
async def advance_order(number: int, pool: Pool) -> None:
    """Bring an order to its next status."""
    if await pool.fetchval(NEXT, number, timeout=5) is None:
        raise HTTPException(404, "no such order, or it has been delivered")


def main() -> None:
    """Serve until Ctrl-C."""
    port = int(os.environ.get("PORT", "8000"))
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
