"""
Another program, on the same server connections: with prepared statements, by plain asyncpg.

Each statement takes what one of a notifier's takes, and has a name that asyncpg gives to others as
well. So a notifier that runs a statement by its name in a session that is not its own may run one
of these, with its own arguments.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tests.chaos.sender import LOST

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["OTHER", "SCHEMA", "WRONG_ROWS", "OtherProgram"]

OTHER: Final = "other program"
"""What each of its statements writes; also the channel on which it would notify by mistake."""

SCHEMA: Final = "CREATE TABLE foreign_rows (first text, second text)"
WRONG_ROWS: Final = f"SELECT count(*) FROM foreign_rows WHERE first <> '{OTHER}'"

_STATEMENTS: Final[tuple[tuple[str, object, object], ...]] = (
    ("INSERT INTO foreign_rows VALUES ($1, $2)", OTHER, "row"),
    ("INSERT INTO foreign_rows SELECT $1::text, unnest($2::text[])", OTHER, ["row", "row"]),
    ("INSERT INTO foreign_rows SELECT * FROM unnest($1::text[], $2::text[])", [OTHER], ["row"]),
)
"""One for each statement of a notifier: one notification, many on one channel, many on several."""


class OtherProgram:
    """
    Runs its statements until told to end, on connections that come and go.

    Its own calls fail now and then, as those of any program do that prepares statements behind
    a pooler: only what the notifiers did is judged.
    """

    def __init__(self, dsn: str, chance: random.Random, *, is_over: Callable[[], bool]) -> None:
        self._dsn = dsn
        self._chance = chance
        self._is_over = is_over
        self.succeeded: int = 0

    async def run(self) -> None:
        """Run them."""
        while not self._is_over():
            with suppress(Exception):  # what the driver makes of another program's statement
                await self._one_connection()
            await asyncio.sleep(0.02)

    async def _one_connection(self) -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self._dsn, timeout=1.0)
        try:
            for query, *arguments in self._chance.choices(_STATEMENTS, k=20):
                async with asyncio.timeout(1.0):
                    statement = await connection.prepare(query, name=self._name())
                    await asyncio.sleep(0.005)
                    await statement.fetch(*arguments)
                self.succeeded += 1
        finally:
            with suppress(*LOST):  # or soon every name would be taken, in every session
                # Not by its timeout=: before 0.32 asyncpg first waits without one for the answer to
                # a command cancelled earlier, for ever if the connection has been lost since
                async with asyncio.timeout(1.0):
                    await connection.execute("DEALLOCATE ALL")
            connection.terminate()

    def _name(self) -> str:
        """
        Return a name that asyncpg has given to a statement lately, or will soon.

        It numbers them, in each process from 1 on, so that those of two programs have the same
        names. The programs here share a process, and would never meet without this.
        """
        number = vars(asyncpg.connection)["_uid"] + self._chance.randrange(-6, 4)
        return f"__asyncpg_stmt_{max(number, 1):x}__"
