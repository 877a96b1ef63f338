"""
A TCP proxy that breaks the network on purpose, for tests of what talks to a server through it.

```python
async with FaultProxy.for_dsn(dsn) as proxy:
    async with Listener(proxy.proxied_dsn(dsn)) as listener:
        proxy.black_hole()   # nothing arrives any more, and nobody is told
        ...
        proxy.heal()         # what was held flows on, and new connections work
```

Every fault is a plain method and has taken effect when it returns. Faults add up; `heal()` ends
them all. Nothing here knows PostgreSQL's protocol: any server on TCP or a Unix socket will do.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from asyncnotify.testing._proxy.connection import Direction, Directions, Link
from asyncnotify.testing._proxy.direction import Conditions, Cutoff
from asyncnotify.testing._proxy.listening_socket import Door
from asyncnotify.testing._proxy.target import rewritten, target_of
from asyncnotify.testing._proxy.traffic import Traffic
from asyncnotify.testing._proxy.waiting import WaitTimeoutError, Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asyncnotify.testing._proxy.connection import Address

__all__ = ["Cut", "Direction", "Directions", "FaultProxy", "Link", "WaitTimeoutError", "Watch"]

Cut = Literal["reset", "fin", "half_close", "pause", "black_hole"]


class FaultProxy(Traffic):
    """
    Stands between clients and one server, and breaks what is between them when told to.

    An async context manager, for one use, on asyncio's loop or uvloop. It starts no task and no
    thread. Unless a fault says otherwise, bytes, EOF and RST are passed on as they come, and a
    server that cannot be reached shows as a reset.

    The methods are for the loop's own thread. Where one takes ``direction``, that is
    ``"to_server"``, ``"to_client"`` or ``"both"``.
    """

    def __init__(
        self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """
        Prepare a proxy; nothing is opened before it is entered.

        Args:
            target_host: Where the server is: a name, an address, or the directory of
                PostgreSQL's Unix socket (an absolute path). A name is looked up once, on entering.
            target_port: The server's port.
            host: The address to listen on.
            port: The port to listen on; 0 takes a free one.
        """
        super().__init__()
        self._target = (target_host, target_port)
        self._host, self._port = host, port
        self._door: Door | None = None
        self._refusing = False
        self._upstream: list[Address] = []
        self._undialled: list[Link] = []
        self._cuts: list[Watch] = []
        self._welcome: Callable[[Link], None] = self._connect

    @classmethod
    def for_dsn(cls, dsn: str, *, host: str = "127.0.0.1", port: int = 0) -> Self:
        """
        Prepare a proxy for the server that a DSN names (the first one, if it names several).

        Raises:
            ValueError: The DSN names no host.
        """
        return cls(*target_of(dsn), host=host, port=port)

    def __repr__(self) -> str:
        host, port = self._target
        return (
            f"<FaultProxy {self.host}:{self.port} to {host}:{port}: "
            f"{self.connections} open of {self.accepted} accepted>"
        )

    # The proxy itself

    async def __aenter__(self) -> Self:
        """
        Look up the server's address and begin to accept.

        Raises:
            OSError: The name cannot be resolved, or the port cannot be bound.
        """
        self._upstream = await _resolved(*self._target)
        self._door = Door(self._host, self._port, self._admit)
        self._port = self._door.port
        if self._refusing:
            self._door.close()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop every connection and give back the port, at once, whatever faults are on."""
        self.close()

    def close(self) -> None:
        """Reset every client, drop the server sides, give back the port. May be called again."""
        if self._door is not None:
            self._door.remove()
            self._door = None
        self.reset()

    @property
    def host(self) -> str:
        """The address that the proxy listens on."""
        return self._host

    @property
    def port(self) -> int:
        """
        The port that clients connect to: the same for life, also while they are refused.

        Where the kernel is to choose it, it is 0 until the proxy is entered.
        """
        return self._port

    def proxied_dsn(self, dsn: str) -> str:
        """
        Return the DSN with its host and port replaced by the proxy's; all else stays.

        Takes the forms that libpq and asyncpg take, Unix sockets (``?host=/run/postgresql``) and
        several hosts among them, and SQLAlchemy's ``postgresql+asyncpg://``.
        """
        return rewritten(dsn, self.host, self.port)

    # Holding what is on its way

    def black_hole(self, direction: Directions = "both") -> None:
        """
        Pass nothing any more and tell nobody: no bytes, no EOF, no RST, on every connection.

        New connections are accepted, as the kernel would, and never answered: the server is not
        dialled while nothing may pass to it. What comes is held, up to 1 MiB a connection and
        direction, then it is left in the sender's buffers. Ends with `resume()` or `heal()`.
        """
        for conditions in self._conditions(direction):
            conditions.hole = True

    def pause(self, direction: Directions = "both") -> None:
        """
        Black-hole the connections open now; new ones work.

        This is what a firewall does that has forgotten a connection. Ends with `resume()`.
        """
        for link in self._links:
            link.pause(direction)

    def resume(self) -> None:
        """End `black_hole()` and `pause()`: what was held flows on, in its order."""
        for conditions in self._conditions("both"):
            conditions.hole = False
        for link in self._links:
            link.resume()
        self._run()

    def hold_fin(self) -> None:
        """
        Do not pass on the server's end, be it EOF or RST; its bytes still flow.

        So a client gets the server's last words, but does not learn that they were the last.
        """
        self._to_client.hold_ending = True

    def heal(self) -> None:
        """
        End every fault and disarm every cut: hold nothing, delay nothing, accept again.

        Connections that were cut stay cut, and those accepted by `silent()` or `garbage()` stay
        without a server. Taps and watches stay.
        """
        for conditions in self._conditions("both"):
            conditions.heal()
        for cut in self._cuts:
            cut.cancel()
        self._cuts.clear()
        self.accept()
        self.resume()

    # Ending connections

    def reset(self) -> None:
        """Send RST to every client and drop the server sides, throwing away what is on its way."""
        for link in self.links:
            link.reset()

    def fin(self) -> None:
        """
        Close every client's connection cleanly and drop the server sides.

        As with a process that exits: what the client sends after that is answered with RST.
        """
        for link in self.links:
            link.fin()

    def half_close(self) -> None:
        """Give every client EOF, but go on passing what it sends to the server."""
        for link in self.links:
            link.half_close()

    # New connections

    def accept(self) -> None:
        """Take new connections to the server again: ends the four below."""
        self._receive(self._connect)

    def refuse(self) -> None:
        """Stop listening: connecting gets ``ECONNREFUSED``. Open connections stay."""
        self._refusing = True
        if self._door is not None:
            self._door.close()

    def drop_new(self, how: Literal["reset", "fin"] = "reset") -> None:
        """Accept new connections and end each at once."""
        self._receive(Link.reset if how == "reset" else Link.fin)

    def silent(self) -> None:
        """Accept new connections and leave them without a server and an answer for ever."""
        self._receive(_ignore)

    def garbage(self, data: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n") -> None:
        """Accept new connections, send each these bytes and EOF; the server is not dialled."""
        self._receive(lambda link: link.greet(data))

    # A slow network

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """
        Pass everything on this many seconds after it came, in its order.

        This is latency: it costs no throughput. 0 ends it, also for what waits already.
        """
        self._to_server.delay, self._to_client.delay = to_server, to_client
        self._run()

    def trickle(
        self, bytes_per_chunk: int = 1, interval: float = 0.0, direction: Directions = "both"
    ) -> None:
        """
        Pass on no more than this many bytes at a time, and rest ``interval`` seconds after each.

        With 0 the rest is one turn of the event loop.

        Raises:
            ValueError: ``bytes_per_chunk`` is under 1.
        """
        if bytes_per_chunk < 1:
            message = f"bytes_per_chunk must be at least 1, not {bytes_per_chunk}"
            raise ValueError(message)
        for conditions in self._conditions(direction):
            conditions.piece, conditions.interval = bytes_per_chunk, interval

    # Cutting at a byte

    def cut_after(
        self,
        size: int,
        direction: Direction = "to_client",
        then: Cut | Callable[[Link], object] = "reset",
    ) -> None:
        """
        Cut, once, when ``size`` more bytes have passed in this direction over all connections.

        Exactly so many pass; with 0, the cut comes before the next byte. A later call for the
        same direction replaces an earlier one. For ``then`` see `cut_on()`.

        Raises:
            ValueError: ``size`` is negative.
        """
        if size < 0:
            message = f"size must not be negative: {size}"
            raise ValueError(message)
        conditions = self._to_server if direction == "to_server" else self._to_client
        conditions.cutoff = Cutoff(size, self._action(then))

    def cut_on(
        self,
        pattern: bytes,
        *,
        then: Cut | Callable[[Link], object] = "reset",
        answer: bytes | None = None,
    ) -> Watch:
        """
        Cut, once, at the moment a client has sent ``pattern``; return a watch to wait for it.

        Without ``answer`` the cut comes before the bytes are passed on: the server never sees
        them (nor anything else that came in the same read). With it they are passed on, and the
        cut comes when ``answer`` has come back on the same connection, before that is passed on:
        the server has done what it was asked, and the client is not told. ``b""`` is any answer,
        so also a notification that happens to come then.

        Args:
            pattern: What the client sends, such as ``b"UNLISTEN"`` (which ``b"LISTEN"`` matches
                as well); of a statement with parameters, best one of those, which go out last.
            then: The method of the proxy to call, which goes for all connections, or a callable
                of your own, which is given the `Link` concerned. It must not raise.
            answer: What the server answers.
        """
        action = self._action(then)
        if answer is None:
            cut = self._look(Watch(pattern, "to_server", self._changes, then=action))
        else:
            cut = Watch(answer, "to_client", self._changes, then=action)
            self._look(Watch(pattern, "to_server", self._changes, then=partial(self._arm, cut)))
        self._cuts.append(cut)
        return cut

    # Inside

    def _admit(self, client: socket.socket) -> None:
        self._welcome(self._new_link(client))
        self._changes.tell()

    def _receive(self, welcome: Callable[[Link], None]) -> None:
        self._welcome, self._refusing = welcome, False
        if self._door is not None:
            self._door.open()

    def _connect(self, link: Link) -> None:
        self._undialled.append(link)
        self._dial()

    def _run(self) -> None:
        self._dial()
        for link in self.links:
            link.run()

    def _dial(self) -> None:
        if self._to_server.hole:
            return
        for link in self._undialled:
            link.dial(self._upstream)
        self._undialled.clear()

    def _arm(self, cut: Watch, link: Link) -> None:
        cut.only = link
        self._look(cut)

    def _conditions(self, direction: Directions) -> tuple[Conditions, ...]:
        if direction == "both":
            return (self._to_server, self._to_client)
        return (self._to_server if direction == "to_server" else self._to_client,)

    def _action(self, then: Cut | Callable[[Link], object]) -> Callable[[Link], object]:
        if callable(then):
            return then
        verbs: dict[str, Callable[[], None]] = {
            "reset": self.reset,
            "fin": self.fin,
            "half_close": self.half_close,
            "pause": self.pause,
            "black_hole": self.black_hole,
        }
        verb = verbs[then]
        return lambda _: verb()


def _ignore(link: Link) -> None:
    """Leave the connection as it is."""


async def _resolved(host: str, port: int) -> list[Address]:
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{port}")]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]
