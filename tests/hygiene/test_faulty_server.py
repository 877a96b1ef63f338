"""PostgreSQL 18.0, which has the fault of LISTEN that later releases of 18 do not have."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify import GapReason
from asyncnotify.testing.server import PostgresServer
from tests.hygiene.test_server_bug import (
    by_dsn_and_by_connect,
    delivers,
    gap_of,
    listener_by,
    repairs,
)
from tests.support.server_programs import cached_programs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from tests.hygiene.secret_detector import SecretDetector
    from tests.hygiene.secrets_harness import Connection

FAULTY = "18.0"
HOW_TO_GET = f"needs PostgreSQL {FAULTY}: python tests/support/server_programs.py {FAULTY}"
SEGMENT = 1_048_576  # transactions whose outcomes one file of pg_xact holds
SPEND = """
    DO $$ BEGIN FOR n IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$
"""


@pytest.fixture(scope="module")
def faulty_server() -> Iterator[PostgresServer]:
    """A server with the fault, in which nothing is vacuumed by itself."""
    bin_dir = cached_programs(FAULTY)
    if bin_dir is None:
        pytest.skip(HOW_TO_GET)
    settings = {"synchronous_commit": "off", "autovacuum": "off"}
    with PostgresServer(bin_dir=bin_dir, settings=settings) as server:
        yield server


@asynccontextmanager
async def connected(server: PostgresServer, database: str) -> AsyncGenerator[Connection]:
    """Have a plain connection to a database."""
    connection = await asyncpg.connect(server.dsn_for(database))
    try:
        yield connection
    finally:
        await connection.close()


async def provoke(server: PostgresServer) -> None:
    """Leave a notification in the queue whose transaction the server knows nothing of any more."""
    async with connected(server, "postgres") as connection:
        await connection.execute("NOTIFY old")
        await connection.execute(SPEND.format(SEGMENT))
        await connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    for database in ("postgres", "template0", "template1"):
        async with connected(server, database) as connection:
            await connection.execute("VACUUM (FREEZE)")


@by_dsn_and_by_connect
@pytest.mark.timeout(300)  # spends a million transactions: 4 s on an idle machine
async def test_the_real_bug_of_listen_is_repaired_at_once(
    faulty_server: PostgresServer, detector: SecretDetector, connects_by: str
) -> None:
    """Where a plain LISTEN fails with 58P01, a listener listens, and tells it by a warning."""
    await provoke(faulty_server)
    async with connected(faulty_server, "postgres") as root:
        with pytest.raises(asyncpg.UndefinedFileError, match="could not access status"):
            await root.execute("LISTEN orders")
        async with (
            listener_by(connects_by, faulty_server.dsn) as listener,
            listener.stream("orders", gaps=True) as stream,
        ):
            assert await gap_of(stream) is GapReason.START
            await delivers(root, stream)
            assert listener.stats().reconnects == 0
        assert repairs(detector) == 1
