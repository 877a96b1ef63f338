"""Connecting to the addresses of one host, and letting the driver have the one that answers."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg._connecting.forks import leave_socket_to_parent, leave_transport_to_parent
from asyncnotify._asyncpg._connecting.handshake import HandshakeGuard
from asyncnotify._asyncpg.failures import Step, step

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from asyncnotify._asyncpg._connecting.lookups import Address

_STAGGER: Final = 0.25
"""Seconds until the next address is tried beside those that have not answered (RFC 8305, 5)."""


class Race:
    """
    Connecting to all addresses of a host, each a little later than the one before.

    Args:
        addresses: In their order. None: a Unix socket, which the event loop connects to.
        timeout: Seconds for each of them, until the server has accepted the session.

    Attributes:
        winner: The first that answered.
        failures: Those that did not, and why.
        begun: Whether anything has been sent to any address.
        refusal: Why a connection was ended whose peer is no PostgreSQL server.
    """

    def __init__(self, addresses: Sequence[Address], *, timeout: float) -> None:
        self.winner: Address | None = None
        self.failures: dict[Address, Exception] = {}
        self.begun = False
        self.refusal: Exception | None = None
        self._addresses = list(addresses)
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._began: dict[Address | None, float] = {None: self._loop.time()}

    @property
    def deadline(self) -> float:
        """Until when there must be a session, by the loop's clock, as far as is known now."""
        began = max(self._began.values()) if self.winner is None else self._began[self.winner]
        return began + self._timeout

    @property
    def untried(self) -> list[Address]:
        """The addresses of which nothing is known, because another one answered first."""
        return [one for one in self._addresses if one != self.winner and one not in self.failures]

    async def connect(self) -> socket.socket:
        """
        Return a socket that is connected to the first address that answers.

        Called again, it connects to the same one. May be cancelled: no socket is left behind.

        Raises:
            OSError: None of them answers; of several, what the last one raised.
        """
        waiting = self._addresses if self.winner is None else [self.winner]
        waiting = waiting[::-1]
        racing: dict[asyncio.Task[socket.socket], Address] = {}
        try:
            while waiting or racing:
                if waiting:
                    address = waiting.pop()
                    racing[asyncio.create_task(self._connect_to(address))] = address
                await asyncio.wait(
                    racing,
                    timeout=_STAGGER if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if (connected := self._first_of(racing)) is not None:
                    return connected
        finally:
            await _drop(racing)
        raise list(self.failures.values())[-1]

    def _first_of(self, racing: dict[asyncio.Task[socket.socket], Address]) -> socket.socket | None:
        """Return the socket of the first that is connected, and note those that have failed."""
        for task in [task for task in racing if task.done()]:
            address = racing.pop(task)
            error = task.exception()
            if error is None:
                self.winner = address
                return task.result()
            if isinstance(error, Exception):
                self.failures[address] = error
        return None

    async def _connect_to(self, address: Address) -> socket.socket:
        self.begun = True
        self._began.setdefault(address, self._loop.time())
        with step(Step.NETWORK):
            sock = socket.socket(address.family, socket.SOCK_STREAM)
            leave_socket_to_parent(sock)
            try:
                sock.settimeout(0)
                await self._in_time(self._loop.sock_connect(sock, address.place), address)
            except BaseException:
                sock.close()
                raise
        return sock

    async def _in_time(self, connecting: Awaitable[None], address: Address) -> None:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await connecting
        except TimeoutError:
            if not limit.expired():  # the system's own
                raise
            msg = f"no answer from {address} within {self._timeout:g} s"
            raise TimeoutError(msg) from None


async def _drop(racing: dict[asyncio.Task[socket.socket], Address]) -> None:
    """Cancel those that have lost, and close what they have connected all the same."""
    for task in racing:
        task.add_done_callback(_close)
        task.cancel()
    if racing:
        await asyncio.wait(racing)


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


class DialLoop:
    """
    The event loop, as the driver sees it while it connects.

    All is the event loop's own, but for connecting: the driver names a host, as it must for the
    certificate to be verified against that name, and gets the address that answers. It also says
    by which step a connection failed.

    Args:
        race: Connects to the host.
        context: With which TLS is begun, in place of the driver's own.
    """

    def __init__(self, race: Race, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._race = race

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], Any], host: str, _port: int, /, **options: Any
    ) -> Any:
        """Connect to the address that answers, in place of this host."""
        sock = await self._race.connect()
        if options.get("ssl"):
            options = {"server_hostname": host, **options}
        with step(Step.TLS):
            try:
                transport, guard = await self._loop.create_connection(
                    self._guarded(factory), sock=sock, **options
                )
            except BaseException:
                sock.close()
                raise
        return transport, guard.inner

    async def create_unix_connection(
        self, factory: Callable[[], Any], path: str, **options: Any
    ) -> Any:
        """Connect to a Unix socket."""
        self._race.begun = True
        connecting = self._loop.create_unix_connection(self._guarded(factory), path, **options)
        transport, guard = await self._stepping(Step.NETWORK, connecting)
        leave_transport_to_parent(transport)
        return transport, guard.inner

    async def start_tls(
        self, transport: Any, protocol: Any, context: ssl.SSLContext, /, **options: Any
    ) -> Any:
        """Begin TLS on a connection."""
        context = self._context or context
        beginning = self._loop.start_tls(transport, protocol, context, **options)
        encrypted = await self._stepping(Step.TLS, beginning)
        if encrypted is not None:  # the driver sets the protocol before anything is read
            self._loop.call_soon(HandshakeGuard.install, encrypted, self._refuse)
        return encrypted

    def _guarded(self, factory: Callable[[], Any]) -> Callable[[], HandshakeGuard]:
        return lambda: HandshakeGuard(factory(), self._refuse)

    def _refuse(self, error: Exception) -> None:
        self._race.refusal = error

    async def _stepping(self, which: Step, connecting: Coroutine[Any, Any, Any]) -> Any:
        with step(which):
            return await connecting
