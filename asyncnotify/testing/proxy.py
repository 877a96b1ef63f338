"""
A TCP proxy that breaks the network on purpose, for tests of what talks to a server through it.

::

    async with FaultProxy.for_dsn(dsn) as proxy:
        async with Listener(proxy.proxied_dsn(dsn)) as listener:
            proxy.black_hole()   # nothing arrives any more, and neither side learns of that
            ...
            proxy.heal()         # what was held is passed on, and new connections work

Every fault is a plain method and has taken effect when it returns. Faults add up; `heal()` ends
them all. Nothing here knows PostgreSQL's protocol: any server on TCP or a Unix socket will do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, get_args

from asyncnotify._arguments import (
    check_count,
    check_number,
    check_plain_function,
    check_present,
    check_whole,
)
from asyncnotify.testing._arguments import check_bytes, check_direction, check_port
from asyncnotify.testing._dsn import pieces_of
from asyncnotify.testing._proxy.conditions import Conditions, Cutoff
from asyncnotify.testing._proxy.connection import Direction, Directions, ProxiedConnection
from asyncnotify.testing._proxy.listening_socket import ListeningSocket
from asyncnotify.testing._proxy.pattern import PatternDetector
from asyncnotify.testing._proxy.target import addresses_of, target_of
from asyncnotify.testing._proxy.traffic import Traffic
from asyncnotify.testing._proxy.waiting import WaitTimeoutError

if TYPE_CHECKING:
    import socket

    from asyncnotify.testing._proxy.connection import Address

__all__ = [
    "Cut",
    "Direction",
    "Directions",
    "FaultProxy",
    "PatternDetector",
    "ProxiedConnection",
    "WaitTimeoutError",
]

Cut = Literal["reset", "fin", "half_close", "pause", "black_hole"]
"""What ``cut_on()`` does to the connection."""


class FaultProxy(Traffic):
    """
    Passes connections from clients to one server, and injects network faults on demand.

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

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: A port is out of its bounds.
        """
        check_present("target_host", target_host, str)
        check_port("target_port", target_port)
        check_present("host", host, str)
        check_port("port", port, minimum=0)
        super().__init__()
        self._target = (target_host, target_port)
        self._host, self._port = host, port
        self._listening_socket: ListeningSocket | None = None
        self._refusing = False
        self._upstream: list[Address] = []
        self._undialled: list[ProxiedConnection] = []
        self._cuts: list[PatternDetector] = []
        self._on_accepted: Callable[[ProxiedConnection], None] = self._connect

    @classmethod
    def for_dsn(cls, dsn: str, *, host: str = "127.0.0.1", port: int = 0) -> Self:
        """
        Prepare a proxy for the server that a DSN names (the first one, if it names several).

        Raises:
            ValueError: The DSN is no URL or names no host, or ``port`` is out of its bounds.
            TypeError: An argument is of the wrong type.
        """
        return cls(*target_of(dsn), host=host, port=port)

    def __repr__(self) -> str:
        host, port = self._target
        return (
            f"<FaultProxy {self.host}:{self.port} to {host}:{port}: "
            f"{self.open_connections} open of {self.accepted} accepted>"
        )

    # The proxy itself

    async def __aenter__(self) -> Self:
        """
        Look up the server's address and begin to accept.

        Raises:
            OSError: The name cannot be resolved, or the port cannot be bound.
        """
        self._upstream = await addresses_of(*self._target)
        self._listening_socket = ListeningSocket(self._host, self._port, self._admit)
        self._port = self._listening_socket.port
        if self._refusing:
            self._listening_socket.close()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop every connection and give back the port, at once, whatever faults are active."""
        self.close()

    def close(self) -> None:
        """Reset every client, drop the server sides, give back the port. May be called again."""
        if self._listening_socket is not None:
            self._listening_socket.remove()
            self._listening_socket = None
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
        Return the DSN with its host and port replaced by the proxy's; all else stays as written.

        Takes the forms that libpq and asyncpg take, Unix sockets (``?host=/run/postgresql``) and
        several hosts among them, and SQLAlchemy's ``postgresql+asyncpg://``.

        Raises:
            ValueError: The DSN is no URL.
            TypeError: The DSN is no str.
        """
        check_present("dsn", dsn, str)
        return str(pieces_of(dsn).with_address(self.host, self.port))

    # Holding what is on its way

    def black_hole(self, direction: Directions = "both") -> None:
        """
        Pass nothing any more on any connection: no bytes, no EOF, no RST.

        New connections are accepted, as the kernel would, and never answered: the server is not
        dialled while nothing may pass to it. What comes is held, up to 1 MiB a connection and
        direction, then it is left in the sender's buffers. Ends with `resume()` or `heal()`.

        Raises:
            ValueError: ``direction`` is not one of those allowed.
        """
        for conditions in self._conditions(direction):
            conditions.black_hole = True

    def pause(self, direction: Directions = "both") -> None:
        """
        Black-hole the connections open now; new ones work.

        A firewall does this when it drops a connection from its table. Ends with `resume()`.

        Raises:
            ValueError: ``direction`` is not one of those allowed.
        """
        check_direction(direction, may_be_both=True)
        for connection in self._connections:
            connection.pause(direction)

    def resume(self) -> None:
        """End `black_hole()` and `pause()`: what was held is passed on, in its order."""
        for conditions in self._conditions("both"):
            conditions.black_hole = False
        for connection in self._connections:
            connection.resume()
        self._run()

    def hold_fin(self) -> None:
        """
        Do not pass on the server's end, be it EOF or RST; its bytes still pass.

        So a client gets the server's last message, but does not learn that this was the last.
        """
        self._to_client.hold_ending = True

    def heal(self) -> None:
        """
        End every fault and disarm every cut: hold nothing, delay nothing, accept again.

        Connections that were cut stay cut, and those accepted by `silent()` or `garbage()` stay
        without a server. Taps and detectors stay.
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
        for connection in self.connections:
            connection.reset()

    def fin(self) -> None:
        """
        Close every client's connection cleanly and drop the server sides.

        As with a process that exits: what the client sends after that is answered with RST.
        """
        for connection in self.connections:
            connection.fin()

    def half_close(self) -> None:
        """Give every client EOF, but go on passing what it sends to the server."""
        for connection in self.connections:
            connection.half_close()

    # New connections

    def accept(self) -> None:
        """Take new connections to the server again: ends the four faults below."""
        self._handle_new(self._connect)

    def refuse(self) -> None:
        """Stop listening: connecting gets ``ECONNREFUSED``. Open connections stay."""
        self._refusing = True
        if self._listening_socket is not None:
            self._listening_socket.close()

    def drop_new(self, how: Literal["reset", "fin"] = "reset") -> None:
        """
        Accept new connections and end each at once.

        Raises:
            ValueError: ``how`` is neither ``"reset"`` nor ``"fin"``.
        """
        if how not in ("reset", "fin"):  # not a set: it may have no hash
            message = f"how must be 'reset' or 'fin', not {how!r}"
            raise ValueError(message)
        self._handle_new(ProxiedConnection.reset if how == "reset" else ProxiedConnection.fin)

    def silent(self) -> None:
        """Accept new connections and leave them without a server and an answer forever."""
        self._handle_new(_ignore)

    def garbage(self, data: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n") -> None:
        """
        Accept new connections, send each these bytes and EOF; the server is not dialled.

        Raises:
            TypeError: ``data`` is no bytes.
        """
        check_bytes("data", data)
        self._handle_new(lambda connection: connection.greet(data))

    # A slow network

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """
        Pass everything on this many seconds after it came, in its order.

        This is latency: it costs no throughput. 0 ends it, also for what waits already.

        Raises:
            ValueError: An argument is no number, or negative.
        """
        check_number("to_server", to_server, minimum=0)
        check_number("to_client", to_client, minimum=0)
        self._to_server.delay, self._to_client.delay = to_server, to_client
        self._run()

    def trickle(
        self, bytes_per_chunk: int = 1, interval: float = 0.0, direction: Directions = "both"
    ) -> None:
        """
        Pass on no more than this many bytes at a time, and wait ``interval`` seconds after each.

        With 0 the wait is one turn of the event loop.

        Raises:
            ValueError: ``bytes_per_chunk`` is no whole number, or less than 1; ``interval`` is no
                number, or negative; or ``direction`` is none of the three.
        """
        check_count("bytes_per_chunk", bytes_per_chunk)
        check_number("interval", interval, minimum=0)
        for conditions in self._conditions(direction):
            conditions.chunk_size, conditions.interval = bytes_per_chunk, interval

    # Cutting at a byte

    def cut_after(
        self,
        size: int,
        direction: Direction = "to_client",
        then: Cut | Callable[[ProxiedConnection], object] = "reset",
    ) -> None:
        """
        Cut, once, when ``size`` more bytes have passed in this direction over all connections.

        Exactly so many pass; with 0, the cut comes before the next byte. A later call for the
        same direction replaces an earlier one. For ``then`` see `cut_on()`.

        Raises:
            ValueError: ``size`` is no whole number, or negative; ``direction`` is neither of the
                two; or ``then`` is the name of no such method.
            TypeError: ``then`` is no plain function that takes the connection.
        """
        check_direction(direction)
        check_whole("size", size, minimum=0)
        action = self._action(then)
        conditions = self._to_server if direction == "to_server" else self._to_client
        conditions.cutoff = Cutoff(size, action)

    def cut_on(
        self,
        pattern: bytes,
        *,
        then: Cut | Callable[[ProxiedConnection], object] = "reset",
        answer: bytes | None = None,
    ) -> PatternDetector:
        """
        Cut, once, at the moment a client has sent ``pattern``; return a detector to wait for.

        Without ``answer`` the cut comes before the bytes are passed on: the server never sees
        them (nor anything else that came in the same read). With it they are passed on, and the
        cut comes when ``answer`` has come back on the same connection, before that is passed on:
        the server has done what it was asked, and the client is not told. ``b""`` is any answer,
        so also a notification that happens to come then.

        Args:
            pattern: What the client sends, such as ``b"UNLISTEN"`` (which ``b"LISTEN"`` matches
                as well); of a statement with parameters, best one of those, which go out last.
            then: The method of the proxy to call, which goes for all connections, or a callable
                of your own, which is given the `ProxiedConnection` concerned. It must not raise.
            answer: What the server answers.

        Raises:
            ValueError: ``then`` is the name of no such method.
            TypeError: ``pattern`` or ``answer`` is no bytes, or ``then`` is no plain function that
                takes the connection.
        """
        check_bytes("pattern", pattern)
        if answer is not None:
            check_bytes("answer", answer)
        action = self._action(then)
        if answer is None:
            cut = self._add_detector(
                PatternDetector(pattern, "to_server", self._changes, then=action)
            )
        else:
            cut = PatternDetector(answer, "to_client", self._changes, then=action)
            self._add_detector(
                PatternDetector(pattern, "to_server", self._changes, then=partial(self._arm, cut))
            )
        self._cuts.append(cut)
        return cut

    # Internals

    def _admit(self, client: socket.socket) -> None:
        self._on_accepted(self._new_connection(client))
        self._changes.set()

    def _handle_new(self, on_accepted: Callable[[ProxiedConnection], None]) -> None:
        self._on_accepted, self._refusing = on_accepted, False
        if self._listening_socket is not None:
            self._listening_socket.open()

    def _connect(self, connection: ProxiedConnection) -> None:
        self._undialled.append(connection)
        self._dial()

    def _run(self) -> None:
        self._dial()
        for connection in self.connections:
            connection.run()

    def _dial(self) -> None:
        if self._to_server.black_hole:
            return
        for connection in self._undialled:
            connection.dial(self._upstream)
        self._undialled.clear()

    def _arm(self, cut: PatternDetector, connection: ProxiedConnection) -> None:
        cut.only = connection
        self._add_detector(cut)

    def _conditions(self, direction: Directions) -> tuple[Conditions, ...]:
        check_direction(direction, may_be_both=True)
        if direction == "both":
            return (self._to_server, self._to_client)
        return (self._to_server if direction == "to_server" else self._to_client,)

    def _action(
        self, then: Cut | Callable[[ProxiedConnection], object]
    ) -> Callable[[ProxiedConnection], object]:
        if callable(then):
            check_plain_function("then", then, "the connection")
            return then
        if then not in get_args(Cut):
            message = f"then must be a function or one of {', '.join(get_args(Cut))}, not {then!r}"
            raise ValueError(message)
        actions: dict[str, Callable[[], None]] = {
            "reset": self.reset,
            "fin": self.fin,
            "half_close": self.half_close,
            "pause": self.pause,
            "black_hole": self.black_hole,
        }
        action = actions[then]
        return lambda _: action()


def _ignore(connection: ProxiedConnection) -> None:
    """Leave the connection as it is."""


for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
