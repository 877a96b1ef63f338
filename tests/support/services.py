"""Services that report, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

PACKAGE_PARENT: Final = Path(sys.modules["asyncnotify"].__path__[0]).parent
PATHS: Final = (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))
ENVIRONMENT: Final = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, PATHS))}

SERVICE: Final = """
import asyncio
import sys

from asyncnotify import Listener
from asyncnotify.ext.reporting import Reporting


async def main(dsn, name, every, *channels):
    async with Listener(dsn, heartbeat=0.2) as listener:
        for channel in channels:
            await listener.listen(channel, lambda notification: None)
        async with Reporting(listener, name=name, every=float(every)):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)  # to its end


asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.contextmanager
def service(
    dsn: str, name: str, *channels: str, every: float = 1.0
) -> Generator[subprocess.Popen[str], None, None]:
    """Run a service that listens on channels and reports; it ends when its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVICE, dsn, name, str(every), *channels],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
