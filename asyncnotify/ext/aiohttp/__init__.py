"""
Listeners and logs in applications of aiohttp: their start, their end, and clients of them.

::

    from aiohttp import web

    from asyncnotify.ext.aiohttp import LISTENER, health, setup, websocket

    async def orders(request: web.Request) -> web.WebSocketResponse:
        return await websocket(request, ["orders"])

    app = web.Application()
    setup(app, "postgresql://localhost/postgres")
    app.router.add_get("/orders", orders)
    app.router.add_get("/health", health)
    web.run_app(app)

The module's path is its API, with the names in ``__all__``. ``events()`` and ``log_events()`` need
the library aiohttp-sse, which the extra ``aiohttp`` installs too.
"""

try:
    import aiohttp  # noqa: F401  # pyright: ignore[reportUnusedImport] # its absence is told here
except ImportError as _error:
    _text = "asyncnotify.ext.aiohttp needs aiohttp: pip install 'asyncnotify-pg[aiohttp]'"
    raise ImportError(_text) from _error

from asyncnotify.ext.aiohttp._events import events, log_events
from asyncnotify.ext.aiohttp._lifecycle import FANOUT, LISTENER, LOG, health, setup, setup_log
from asyncnotify.ext.aiohttp._websocket import websocket

__all__ = [
    "FANOUT",
    "LISTENER",
    "LOG",
    "events",
    "health",
    "log_events",
    "setup",
    "setup_log",
    "websocket",
]
