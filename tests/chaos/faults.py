"""The faults that chaos draws from: of the network, the server, and the client's own loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import asyncpg

from asyncnotify.testing.faults import block_loop
from asyncnotify.testing.proxy import FaultProxy, ProxiedConnection
from asyncnotify.testing.server import UnknownBackendError
from tests.support.machine import scaled
from tests.support.server_faults import ServerFaults

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from asyncnotify.testing.server import PostgresServer, StopMode

__all__ = ["FAULTS", "Fault", "Target"]

_SERVER_LIMIT: Final = scaled(60.0)
"""Seconds for the server to stop or start, while everybody connects anew and others are at work:
once it had not stopped after 30 s."""


class Target(Protocol):
    """What faults are injected into."""

    chance: random.Random

    @property
    def server(self) -> PostgresServer:
        """The server that takes writes."""
        ...

    @property
    def proxy(self) -> FaultProxy:
        """What leads to it."""
        ...

    async def sessions(self) -> list[int]:
        """Return the pids of the listeners' sessions."""
        ...

    async def for_a_while(self, seconds: float) -> None:
        """Leave a fault in the network for this long."""


Fault: TypeAlias = "Callable[[Target], Awaitable[object]]"


async def reset(chaos: Target) -> None:
    """Send RST on every connection."""
    chaos.proxy.reset()


async def close(chaos: Target) -> None:
    """Close every connection."""
    chaos.proxy.fin()


async def half_close(chaos: Target) -> None:
    """Close one direction of every connection."""
    chaos.proxy.half_close()


async def swallow(chaos: Target) -> None:
    """Let nothing pass for a while, for longer than the heartbeat bears."""
    chaos.proxy.black_hole()
    await chaos.for_a_while(0.7)


async def stutter(chaos: Target) -> None:
    """Let nothing pass for a moment."""
    chaos.proxy.black_hole()
    await chaos.for_a_while(0.1)


async def forget(chaos: Target) -> None:
    """Let nothing pass on the connections that are open now."""
    chaos.proxy.pause()


async def refuse(chaos: Target) -> None:
    """Refuse connections for a while."""
    chaos.proxy.refuse()
    chaos.proxy.reset()
    await chaos.for_a_while(0.2)


async def drop(chaos: Target) -> None:
    """End new connections at once, for a while."""
    chaos.proxy.drop_new()
    chaos.proxy.fin()
    await chaos.for_a_while(0.1)


async def babble(chaos: Target) -> None:
    """Answer new connections with garbage, for a while."""
    chaos.proxy.garbage()
    chaos.proxy.reset()
    await chaos.for_a_while(0.1)


async def slow_down(chaos: Target) -> None:
    """Have latency, and small pieces, for a while."""
    chaos.proxy.delay(to_server=0.05, to_client=0.05)
    chaos.proxy.trickle(50)
    await chaos.for_a_while(0.3)


async def cut_listen(chaos: Target) -> None:
    """Cut a connection that is about to listen, and each after it."""
    chaos.proxy.cut_on(b"LISTEN", then=ProxiedConnection.reset, answer=b"LISTEN\0")
    chaos.proxy.reset()


async def cut_anywhere(chaos: Target) -> None:
    """Cut when some more bytes have passed."""
    chaos.proxy.cut_after(chaos.chance.randrange(2_000), "to_client", "reset")


async def block(_: Target) -> None:
    """Block the event loop."""
    block_loop(0.1)


async def terminate(chaos: Target) -> None:
    """Let the server end some sessions, and the network keep it from some clients."""
    if chaos.chance.choice((True, False)):
        chaos.proxy.hold_fin()
    with suppress(OSError, asyncpg.PostgresError):  # the server may still be recovering
        async with ServerFaults(chaos.server.dsn) as faults:
            await faults.terminate()


async def freeze(chaos: Target) -> None:
    """Stop a session's process for a while."""
    pids = await chaos.sessions()
    if pids:
        with suppress(UnknownBackendError):
            chaos.server.freeze_backend(chaos.chance.choice(pids))
    await asyncio.sleep(0.7)
    for pid in pids:
        with suppress(UnknownBackendError):
            chaos.server.thaw_backend(pid)


async def crash(chaos: Target) -> None:
    """Kill a session's process."""
    if pids := await chaos.sessions():
        with suppress(UnknownBackendError):
            chaos.server.kill_backend(chaos.chance.choice(pids))


async def restart(chaos: Target) -> None:
    """Restart the server."""
    mode: StopMode = chaos.chance.choice(("fast", "immediate"))
    await asyncio.to_thread(chaos.server.restart, mode, timeout=_SERVER_LIMIT)


async def kill(chaos: Target) -> None:
    """Kill the postmaster, and start it again."""
    await asyncio.to_thread(chaos.server.kill)
    await asyncio.to_thread(chaos.server.start, timeout=_SERVER_LIMIT)


FAULTS: tuple[Fault, ...] = (
    *(reset, close, half_close, swallow, stutter, forget, refuse, drop, babble, slow_down),
    *(cut_listen, cut_anywhere, block, terminate, freeze, crash, restart, kill),
)
