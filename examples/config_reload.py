"""
Settings in a table, reloaded when they change and whenever a change may have been missed.

    DATABASE_URL=postgresql://localhost/postgres python config_reload.py

Then, in psql: ``INSERT INTO settings VALUES ('colour', 'green'); NOTIFY settings``. Then something
that cannot be: ``UPDATE settings SET value = 'loud'; NOTIFY settings``.

Settings that are wrong must not stop a program that has run for weeks, nor be half in force: they
are checked as a whole and refused as a whole, the log says why, and the old ones stay. The program
does not start its work before there are settings that are right.

The notification says only that something has changed. So ``latest=True``: however many arrive
while the settings are being read, they are read once more, not once for each.
"""

import asyncio
import contextlib
import logging
import os
from typing import Literal, Self

import asyncpg
from pydantic import BaseModel, Field, ValidationError, model_validator

from asyncnotify import Gap, Listener, Notification

DSN = os.environ.get("DATABASE_URL")
SCHEMA = "CREATE TABLE IF NOT EXISTS settings (name text PRIMARY KEY, value text NOT NULL)"
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = logging.getLogger("settings")


class Settings(BaseModel, frozen=True, extra="forbid"):
    """All settings, with what each of them may be; a name that is misspelt is refused too."""

    colour: Literal["red", "green", "blue"] = "red"
    low: int = Field(default=1, ge=0)
    high: int = Field(default=10, le=1000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            message = "low is above high"
            raise ValueError(message)
        return self


class Configuration:
    """
    The settings in force: those of the table, or the last ones there that were right.

    Attributes:
        current: Replaced as a whole, never changed. Take it once for each piece of work, and use
            that: two looks at it may be at two of them.
        loaded: Set once settings have been read; until then ``current`` are the defaults.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.current = Settings()
        self.loaded = asyncio.Event()
        self._pool = pool

    async def reload(self, _: Notification[str] | Gap) -> None:
        """Read the table; put what is there in force, or say why not."""
        values = await self._read_until_it_succeeds()
        try:
            self.current = Settings.model_validate(values)
        except ValidationError as error:
            log.error("refused, still the old settings: %s", reasons(error))  # noqa: TRY400 - is all
        else:
            self.loaded.set()
            log.info("settings: %s", self.current)

    async def _read_until_it_succeeds(self) -> dict[str, str]:
        while True:  # nobody will notify us a second time
            try:
                rows = await self._pool.fetch("SELECT name, value FROM settings")  # one snapshot
                return {row["name"]: row["value"] for row in rows}
            except FAILURES as error:
                log.warning("still the old settings: %s", error)
                await asyncio.sleep(1)


def reasons(error: ValidationError) -> str:
    """Return what is wrong with which setting; not its value, which may be a password."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'together'}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)
    )


async def main() -> None:
    """Keep the settings fresh until Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    async with asyncpg.create_pool(DSN, min_size=0) as pool, Listener(DSN) as listener:
        await pool.execute(SCHEMA)
        configuration = Configuration(pool)
        reload = configuration.reload
        await listener.listen("settings", reload, resync=reload, latest=True)
        await configuration.loaded.wait()  # the gap at the start has seen to that
        await asyncio.Event().wait()  # here the application does its work


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
