"""
The consumer of the demo of the log, as a process of its own: it is killed by ``kill -9``.

    python -m asyncnotify.cli.demo.mailer postgresql://…

It writes a row for each event, in the transaction that moves its place in the log. It ends by
itself when the demo that has started it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import ConnectError, ConnectionLostError, ExponentialBackoff
from asyncnotify.log import Log

if TYPE_CHECKING:
    import asyncpg

    from asyncnotify.log import Event

__all__ = ["CONSUMER", "LOG", "ORDERS"]

LOG: Final = "shop"
ORDERS: Final = "orders"
CONSUMER: Final = "mailer"

_BACKOFF: Final = ExponentialBackoff(initial=0.05, cap=0.25)
_MAIL: Final = "INSERT INTO mails (number, process) VALUES ($1, $2)"
_RETRY: Final = 0.1


async def main(dsn: str) -> None:
    """Consume until killed."""
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: os._exit(1))  # the demo is gone
    log = Log(LOG, dsn, ssl=False, backoff=_BACKOFF)

    @log.on(CONSUMER, ORDERS, transactional=True)
    async def mail(event: Event[str], connection: asyncpg.Connection[Any]) -> None:
        await connection.execute(_MAIL, int(event.payload), os.getpid())

    while True:
        try:
            await log.start()
        except (ConnectError, ConnectionLostError):  # the server is being started
            await asyncio.sleep(_RETRY)
        else:
            await asyncio.Event().wait()


if __name__ == "__main__":
    logging.getLogger("asyncnotify").addHandler(logging.NullHandler())  # losses are the show
    asyncio.run(main(sys.argv[1]))
