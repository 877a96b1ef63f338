"""
Print every notification, and every place where some may be missing.

    DATABASE_URL=postgresql://localhost/postgres python plain_script.py orders prices

Then, in psql: ``NOTIFY orders, 'hello'``. Restart the server meanwhile: it comes back by itself.
Without DATABASE_URL, PGHOST and the like say where the server is.
"""

import asyncio
import contextlib
import os
import sys

from asyncnotify import Gap, GapReason, Listener, Notification


async def main(channels: list[str]) -> None:
    """Listen until Ctrl-C."""
    async with Listener(os.environ.get("DATABASE_URL")) as listener:
        async for item in listener.stream(*channels, gaps=True):
            match item:
                case Notification(channel=channel, payload=payload):
                    print(f"{channel}: {payload!r}")
                case Gap(reason=GapReason.START):
                    print(f"listening on {', '.join(channels)}")
                case Gap(reason=GapReason.OVERFLOW, dropped=dropped):
                    print(f"too slow: {dropped} notifications are missing here")
                case Gap(reason=reason, since=since):
                    print(f"{reason}: notifications sent since {since:%H:%M:%S} may be missing")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:] or ["orders"]))
