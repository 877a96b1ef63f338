"""A TCP server of a test's own, which leaves neither a task nor a connection behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    _Serving: TypeAlias = Coroutine[Any, Any, None]
    Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], _Serving]


class StreamServer:
    """
    Serves each connection by a task of its own, until its client goes.

    What ``asyncio.start_server()`` leaves to whoever serves is done here: at the end, and
    at ``reset()``, all tasks are cancelled, also of connections that have just been accepted, and
    all connections closed. What is collected later, after its loop, warns in another test.

    Args:
        serve: Called for each connection; it closes what it has opened itself.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self, host: str = "127.0.0.1", *, context: ssl.SSLContext | None = None) -> None:
        """Listen on a free port; with a context, TLS begins at once."""
        self._server = await asyncio.start_server(self._accepted, host, 0, ssl=context)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._served(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # one that is cancelled may never begin

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            await self._serve(reader, writer)

    def reset(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End, and all connections with it."""
        self._server.close()
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # their callbacks have closed the connections
        await asyncio.sleep(0)  # which end in the next turn of the loop
