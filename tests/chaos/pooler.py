"""The PgBouncer between the network that fails and the server."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncnotify.testing.server import PostgresServer
    from tests.chaos.faults import Fault, Target
    from tests.support.pgbouncer import PoolMode

__all__ = ["pooler_of", "restarting"]


@contextmanager
def pooler_of(
    server: PostgresServer, mode: PoolMode | None, *, connections: int
) -> Generator[PgBouncer | None]:
    """Yield a pooler with so many connections to the server; None without a mode."""
    if mode is None:
        yield None
        return
    settings = {
        "default_pool_size": str(connections),
        "query_wait_timeout": "2",
        "max_client_conn": "300",
    }
    with PgBouncer(server, pool_mode=mode, settings=settings) as bouncer:
        yield bouncer


def restarting(pooler: PgBouncer) -> Fault:
    """Return the fault that ends the pooler, and all connections through it, and starts it."""

    async def restart_pooler(_: Target) -> None:
        await asyncio.to_thread(pooler.restart)

    return restart_pooler
