"""Two programs that share a pooler's two connections to the server with the one under test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tests.network.arrivals import THEIRS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg.prepared_stmt import PreparedStatement

    from tests.support.pgbouncer import PgBouncer, PoolMode

    Connection = asyncpg.Connection[asyncpg.Record]
    Statement = PreparedStatement[asyncpg.Record]

NAMES: Final = 16
"""Statements of each program, by each of two drivers: more than is prepared in a test."""

TABLE: Final = """
    CREATE TABLE IF NOT EXISTS stored (a text, b text, c text[], d text[]);
    TRUNCATE stored
"""
STORED: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "none": (f"INSERT INTO stored (a) VALUES ('{THEIRS}')", ()),
    "one": ("INSERT INTO stored (a, b) VALUES ($1, $2)", (THEIRS, THEIRS)),
    "many": ("INSERT INTO stored (c, d) VALUES ($1, $2)", ([THEIRS], [THEIRS])),
    "many on one": ("INSERT INTO stored (a, d) VALUES ($1, $2)", (THEIRS, [THEIRS])),
}
"""Statements that take what ours would be given, by how many notifications that is."""

_FOREIGN: Final = f"""
    SELECT count(*) FROM stored
    WHERE a <> '{THEIRS}' OR b <> '{THEIRS}' OR c <> ARRAY['{THEIRS}'] OR d <> ARRAY['{THEIRS}']
"""


def settings_of(mode: PoolMode) -> dict[str, str]:
    """Return what makes a pooler share two connections, one after the other; or give each its."""
    size = "20" if mode == "session" else "2"
    return {"default_pool_size": size, "server_round_robin": "1"}


class OtherPrograms:
    """
    Two programs, each of which has prepared its statements in one of the two sessions.

    They are named as the drivers name them, and of those that the program under test would use
    next each has two in turn: whatever that prepares in one session soon meets one of theirs in
    the other.
    """

    def __init__(
        self, first: Connection, second: Connection, server: Connection, kind: str
    ) -> None:
        self._programs = (first, second)
        self._server = server
        self._query, self._arguments = STORED[kind]
        self._prepared: tuple[list[Statement], list[Statement]] = ([], [])

    async def arrive(self) -> None:
        """Make the pooler open its second connection, and prepare."""
        busy = "SELECT pg_sleep(0.05)"  # the other one cannot have the same session meanwhile
        await asyncio.gather(*(program.execute(busy) for program in self._programs))
        number = await self._next_number()
        for turn in range(NAMES):
            for index in (0, 1):  # the pooler gives them its sessions in turns
                offset = turn // 2 * 4 + index * 2 + turn % 2
                await self._prepare(index, f"__asyncpg_stmt_{number + offset:x}__")
                await self._prepare(1 - index, f"_pg3_{offset}")

    async def _next_number(self) -> int:
        """Return the number of the driver's next statement: it counts for all connections."""
        name = (await self._server.prepare("SELECT 1")).get_name()
        return int(name.removeprefix("__asyncpg_stmt_").removesuffix("__"), 16) + 1

    async def _prepare(self, index: int, name: str) -> None:
        statement = await self._programs[index].prepare(self._query, name=name)
        await statement.fetch(*self._arguments)  # until then the pooler holds the session for it
        self._prepared[index].append(statement)

    async def work(self) -> None:
        """Store, by simple and by prepared statements, until cancelled."""
        await asyncio.gather(self._work_of(0), self._work_of(1))

    async def _work_of(self, index: int) -> None:
        while True:
            await self._programs[index].execute(
                f"INSERT INTO stored (a, b) VALUES ('{THEIRS}', '{THEIRS}')"
            )
            for statement in self._prepared[index]:
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InternalClientError):
                    await statement.fetch(*self._arguments)

    async def meet_ours(self) -> bool:
        """Return whether a statement of ours is prepared in a session that they get."""
        query = "SELECT 1 FROM pg_prepared_statements WHERE statement LIKE '%pg_notify%' LIMIT 1"
        return "SELECT 1" in [await self._programs[0].execute(query) for _ in range(2)]

    async def stored(self) -> int:
        """Return how many of their statements ran."""
        return int(await self._server.fetchval("SELECT count(*) FROM stored"))

    async def stored_for_others(self) -> int:
        """Return how many of their statements ran with arguments that are not theirs."""
        return int(await self._server.fetchval(_FOREIGN))


@contextlib.asynccontextmanager
async def other_programs(
    pooler: PgBouncer, server: Connection, kind: str = "one"
) -> AsyncGenerator[OtherPrograms]:
    """Have two programs that are connected, and do nothing yet."""
    await server.execute(TABLE)
    first, second = [await asyncpg.connect(pooler.dsn) for _ in range(2)]
    yield OtherPrograms(first, second, server, kind)
    first.terminate()
    second.terminate()
