"""
WebSockets with aiohttp: clients hear what is notified, and where they must read again.

    DATABASE_URL=postgresql://localhost/postgres python aiohttp_service.py
    curl -X POST localhost:8080/orders/42
    curl localhost:8080/health

In the browser, the page reads its state at every gap, the one at the beginning included:

    const socket = new WebSocket("ws://localhost:8080/events/orders");
    socket.onmessage = (event) => {
        const { gap, payload } = JSON.parse(event.data);
        gap ? readEverything() : readOne(payload);
    };
"""

import os

from aiohttp import web

from asyncnotify import AsyncNotifyError
from asyncnotify.ext.aiohttp import LISTENER, health, setup, websocket

routes = web.RouteTableDef()


# What clients may listen to. A name that they make up must never become a LISTEN.
@routes.get("/events/{channel:orders|stock}")
async def events(request: web.Request) -> web.WebSocketResponse:
    """Stream a channel. A client that is too slow gets a gap, and costs no more than its buffer."""
    return await websocket(request, [request.match_info["channel"]])


@routes.post("/orders/{order:[0-9]+}")
async def change_order(request: web.Request) -> web.Response:
    """Tell everybody that an order has changed."""
    try:
        await request.app[LISTENER].notify("orders", request.match_info["order"])
    except AsyncNotifyError as error:
        raise web.HTTPServiceUnavailable(text=type(error).__name__) from error
    return web.Response(status=202)


def main() -> None:
    """Serve until Ctrl-C."""
    app = web.Application()
    setup(app, os.environ.get("DATABASE_URL"))
    app.add_routes([*routes, web.get("/health", health)])
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))


if __name__ == "__main__":
    main()
