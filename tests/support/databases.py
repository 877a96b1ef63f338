"""Databases of other encodings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import SharedServer

    Connection = asyncpg.Connection[Any]


@contextlib.asynccontextmanager
async def database_of(
    admin: Connection, server: SharedServer, encoding: str
) -> AsyncGenerator[tuple[Connection, Connection]]:
    """Make a database with another encoding; yield two connections to it."""
    name = f"{await admin.fetchval('SELECT current_database()')}_{encoding.lower()}"
    options = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    await admin.execute(f"CREATE DATABASE {name} {options}")
    connections: list[Connection] = []
    try:
        for _ in range(2):
            settings = {"application_name": "tests"}
            dsn = server.dsn_for(name)
            connections.append(await asyncpg.connect(dsn, server_settings=settings))
        yield connections[0], connections[1]
    finally:
        for connection in connections:
            await connection.close(timeout=5.0)
        await admin.execute(f"DROP DATABASE {name}")
