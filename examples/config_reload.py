"""
Settings in a table, reloaded when they change and whenever a change may have been missed.

    DATABASE_URL=postgresql://localhost/postgres python config_reload.py

Then, in psql: ``INSERT INTO settings VALUES ('colour', 'green'); NOTIFY settings``.

The notification says only that something has changed. So ``latest=True``: however many arrive
while the settings are being read, they are read once more, not once for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import asyncpg

from asyncnotify import Gap, Listener, Notification

if TYPE_CHECKING:
    from collections.abc import Mapping

    Pool = asyncpg.Pool[asyncpg.Record]

DSN = os.environ.get("DATABASE_URL")
SCHEMA = "CREATE TABLE IF NOT EXISTS settings (name text PRIMARY KEY, value text NOT NULL)"
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Settings:
    """What stands in the table ``settings``, replaced as a whole when it changes."""

    def __init__(self, pool: Pool) -> None:
        self.values: Mapping[str, str] = {}
        self.loaded = asyncio.Event()
        self._pool = pool

    async def reload(self, _: Notification[str] | Gap) -> None:
        """Read the table; if that fails, again, for nobody will notify us a second time."""
        while True:
            try:
                self.values = await self._read()
                break
            except FAILURES as error:
                print(f"still the old settings: {error}")
                await asyncio.sleep(1)
        self.loaded.set()
        print(f"settings: {self.values}")

    async def _read(self) -> dict[str, str]:
        rows = await self._pool.fetch("SELECT name, value FROM settings ORDER BY name")
        return {row["name"]: row["value"] for row in rows}


async def main() -> None:
    """Keep the settings fresh until Ctrl-C."""
    async with asyncpg.create_pool(DSN, min_size=0) as pool, Listener(DSN) as listener:
        await pool.execute(SCHEMA)
        settings = Settings(pool)
        await listener.listen("settings", settings.reload, resync=settings.reload, latest=True)
        await settings.loaded.wait()  # the gap at the start has seen to that
        await asyncio.Event().wait()  # here the application does its work


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
