"""The servers that exchange their places, under the chaos of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.log.database import connected
from tests.chaos.log.failover import Servers

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer


@pytest.mark.timeout(240)
async def test_the_primary_is_where_its_clients_look_for_it(own_server: PostgresServer) -> None:
    """However often it has changed; else they would have no server for half of the time."""
    async with Servers(own_server, has_standby=True) as servers:
        for _ in range(4):
            for dsn in (servers.dsn, servers.proxied_dsn):
                async with connected(dsn) as connection:
                    port = await connection.fetchval("SHOW port")
                    assert int(port) == servers.primary.port
            await servers.fail_over()
