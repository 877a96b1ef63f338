"""The beginning and the end of an ASGI process, of which Django itself knows nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from asyncnotify._arguments import check_callable
from asyncnotify._errors import describe_error
from asyncnotify.ext.django._listeners import close_listeners, end_streams, get_listener
from asyncnotify.ext.shutdown import end_streams_on_signal

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


class Lifespan:
    """
    Adds ASGI's lifespan to Django's application: ``Lifespan(get_asgi_application())``.

    At the start of a process its listener starts; if that fails, so does the server, with the
    reason. When a signal tells the process to stop, all streams end, those included that begin
    later, so that the server does not wait for responses that would never end; at the end the
    listeners are closed. For uvicorn, hypercorn, granian, and gunicorn with uvicorn's workers.

    Where a server has no lifespan, as daphne, the first ``get_listener()`` starts the listener.

    Args:
        application: What ``get_asgi_application()`` returns, or a router around that.
        alias: The alias of the database to listen on; None: as ``ASYNCNOTIFY["DATABASE"]`` says,
            or ``default``.

    Raises:
        TypeError: ``application`` cannot be called.
    """

    def __init__(self, application: Application, *, alias: str | None = None) -> None:
        check_callable("application", application)
        self._application = application
        self._alias = alias

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401 - as ASGI has it
        """Serve the process, if that is what the scope is; else let Django serve."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._application(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # that the process starts
        try:
            await get_listener(self._alias)
        except Exception as error:  # noqa: BLE001 - servers take one that leaves here for "no lifespan"
            await send({"type": "lifespan.startup.failed", "message": describe_error(error)})
            return
        try:
            with end_streams_on_signal(_Streams()):
                await send({"type": "lifespan.startup.complete"})
                await receive()  # that the process stops
        finally:
            await close_listeners()
        await send({"type": "lifespan.shutdown.complete"})


class _Streams:
    """The streams of all listeners of the process, when the signal comes."""

    def end_streams(self, *, also_new: bool = False) -> None:
        end_streams(also_new=also_new)
