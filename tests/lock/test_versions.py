"""What a lock costs while an old snapshot keeps all versions of its row, and its one row."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

CALLS = ("lock_number('{x}', '1 s')", "lock_check('x', $1)", "lock_holders('{x}')")


@pytest.mark.parametrize("call", CALLS)
async def test_a_lock_passes_no_older_versions_of_its_row(
    installed: str, admin: Connection, call: str
) -> None:
    """While an old snapshot keeps them all, each call reads as many pages as the first ones."""

    async def pages() -> int:
        token = await admin.fetchval("SELECT max(token) FROM asyncnotify.locks")
        function = "asyncnotify." + call.replace("$1", str(token))
        query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {function}"
        [plan] = json.loads(await admin.fetchval(query))
        return int(plan["Plan"]["Shared Hit Blocks"])

    async def give_tokens(times: int) -> None:
        await admin.execute(
            "DO $$ BEGIN FOR number IN 1 .. " + str(times) + " LOOP"
            " PERFORM asyncnotify.lock_number('{x}', '1 s'); COMMIT; END LOOP; END $$"
        )

    other = await asyncpg.connect(installed)
    try:
        async with other.transaction(isolation="repeatable_read"):
            await other.execute("SELECT pg_current_xact_id()")
            await give_tokens(300)
            early = max([await pages() for _ in range(3)])
            await give_tokens(6_000)
            assert await pages() < early + 20  # of 80 and more with all versions
    finally:
        await other.close()


async def test_a_name_has_one_row(installed: str, admin: Connection) -> None:
    """Also where several sessions give its first token at once, and tokens after it."""

    async def give_tokens(number: int) -> list[int]:
        connection = await asyncpg.connect(installed)
        try:
            given = "SELECT its_token FROM asyncnotify.lock_number($1, '1 s')"
            lists = [
                await connection.fetch(given, [f"first {turn // 100}"])
                for turn in range(number, number + 300)
            ]
            return [row[0] for rows in lists for row in rows]
        finally:
            await connection.close()

    given = await asyncio.gather(*map(give_tokens, range(4)))
    rows = await admin.fetch("SELECT name, token FROM asyncnotify.locks")
    assert len({row["name"] for row in rows}) == len(rows) == 4
    assert sum(map(len, given)) == sum(row["token"] for row in rows)
