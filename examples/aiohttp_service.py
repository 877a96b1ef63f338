"""
WebSockets with aiohttp: clients hear what is notified, and where they must read again.

    DATABASE_URL=postgresql://localhost/postgres python aiohttp_service.py
    curl -X POST localhost:8080/orders/42
    curl localhost:8080/health

In the browser, the page reads its state at every gap, the one at the beginning included:

    const socket = new WebSocket("ws://localhost:8080/events/orders");
    socket.onmessage = (event) => {
        const { gap, changed } = JSON.parse(event.data);
        gap ? readEverything() : readOne(changed);
    };
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from aiohttp import WSCloseCode, web

from asyncnotify import AsyncNotifyError, ClosedError, Gap, Listener

LISTENER = web.AppKey("listener", Listener)

# What clients may listen to. A name that they make up must never become a LISTEN.
PUBLIC_CHANNELS = frozenset({"orders", "stock"})

routes = web.RouteTableDef()


async def listening(app: web.Application) -> AsyncIterator[None]:
    """Listen as long as the application runs: one connection for all clients."""
    async with Listener(os.environ.get("DATABASE_URL")) as listener:
        app[LISTENER] = listener
        yield


async def hang_up(app: web.Application) -> None:
    """End every stream, and with it every WebSocket: aiohttp waits for them before it cleans up."""
    await app[LISTENER].aclose()


@routes.get("/events/{channel}")
async def events(request: web.Request) -> web.WebSocketResponse:
    """Stream a channel. A client that is too slow gets a gap, and costs no more than its buffer."""
    channel = request.match_info["channel"]
    if channel not in PUBLIC_CHANNELS:
        raise web.HTTPNotFound
    socket = web.WebSocketResponse(heartbeat=20)
    await socket.prepare(request)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(send_all(socket, request.app[LISTENER], channel))
        async for _ in socket:  # clients have nothing to say; this ends when they go away
            pass
        sending.cancel()
    return socket


async def send_all(socket: web.WebSocketResponse, listener: Listener, channel: str) -> None:
    """Send what comes until the client is gone, or the listener is closed."""
    with contextlib.suppress(ConnectionResetError, ClosedError):
        async with listener.stream(channel, gaps=True, buffer=1_000, timeout=None) as stream:
            async for item in stream:
                if isinstance(item, Gap):
                    await socket.send_json({"gap": item.reason})
                else:
                    await socket.send_json({"changed": item.payload})
    await socket.close(code=WSCloseCode.GOING_AWAY)


@routes.post("/orders/{order:[0-9]+}")
async def change_order(request: web.Request) -> web.Response:
    """Tell everybody that an order has changed."""
    try:
        await request.app[LISTENER].notify("orders", request.match_info["order"])
    except AsyncNotifyError as error:
        raise web.HTTPServiceUnavailable(text=type(error).__name__) from error
    return web.Response(status=202)


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Answer 503 while notifications are being missed."""
    listener = request.app[LISTENER]
    stats = listener.stats()
    return web.json_response(
        {
            "state": stats.state,
            "reconnects": stats.reconnects,
            "dropped": stats.dropped,
            "clients": len(stats.subscriptions),
        },
        status=200 if listener.is_connected else 503,
    )


def main() -> None:
    """Serve until Ctrl-C."""
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(listening)
    app.on_shutdown.append(hang_up)
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))


if __name__ == "__main__":
    main()
