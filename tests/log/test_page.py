"""The services of docs/log.md, as a reader runs them: each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from asyncnotify.log import Log
from tests.support.machine import scaled
from tests.support.services import ENVIRONMENT
from tests.support.web_servers import DOCS, write_files

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.needs_server("programs that connect to it")

LIMIT: Final = scaled(30.0)
DSN: Final = "postgresql://localhost/postgres"
PAGE: Final = (DOCS / "log.md").read_text(encoding="utf-8")
ORDERS: Final = 40


class Service:
    """A file of the page that runs, and puts its lines into a queue."""

    def __init__(self, process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        self._process = process
        self._lines = lines
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def stop(self) -> None:
        """Send SIGTERM, once it is awaited: one of several may be starting; it ends with 0."""
        deadline = time.monotonic() + LIMIT
        while not self._catches(signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.01)  # nothing tells of it
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(LIMIT) == 0

    def _catches(self, number: int) -> bool:
        """Return whether the process has a handler for a signal, where the system says."""
        status = Path(f"/proc/{self._process.pid}/status")
        if not status.exists():
            return True
        found = re.search(r"^SigCgt:\s*(\w+)$", status.read_text("ascii", "replace"), re.MULTILINE)
        return found is None or bool(int(found[1], 16) >> (number - 1) & 1)

    def kill(self) -> None:
        """Leave neither the process nor the thread."""
        self._process.kill()
        self._reading.join(LIMIT)


@contextlib.contextmanager
def service(name: str, dsn: str, folder: Path, lines: queue.SimpleQueue[str]) -> Generator[Service]:
    """Run a file of the page on another database."""
    write_files("log.md", folder, re.escape(name))
    text = (folder / name).read_text(encoding="utf-8")
    assert text.count(DSN) == 1
    (folder / name).write_text(text.replace(DSN, dsn), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-W", "error", name],
        cwd=folder,
        encoding="utf-8",
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        running = Service(process, lines)
        try:
            yield running
        finally:
            running.kill()


async def test_an_order_is_counted_once(dsn: str, tmp_path: Path) -> None:
    """The transactional handler prints what the page says, and what it wrote is committed."""
    (table,) = re.findall(r"^CREATE TABLE totals .*;$", PAGE, re.MULTILINE)
    append, *_ = re.findall(
        r"^SELECT asyncnotify\.append\('shop', 'orders', '42'\);$", PAGE, re.MULTILINE
    )
    assert "```text\ncounted order 42\n```" in PAGE
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    await connection.execute(table)
    async with Log("shop", dsn) as log:
        await log.install()
    await connection.execute(append)
    with service("totals.py", dsn, tmp_path, lines) as running:
        assert await asyncio.to_thread(lines.get, timeout=LIMIT) == "counted order 42\n"
        await asyncio.to_thread(running.stop)
    assert lines.empty()
    assert await connection.fetchval("SELECT orders FROM totals") == 1
    await connection.close()


async def test_two_processes_share_the_mails(dsn: str, tmp_path: Path) -> None:
    """Each order is mailed by one of the two processes."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    async with Log("shop", dsn) as log:
        await log.install()
        with (
            service("mailer.py", dsn, tmp_path, lines) as one,
            service("mailer.py", dsn, tmp_path, lines) as other,
        ):
            await log.append_many([("orders", f"{n}", f"customer {n}") for n in range(ORDERS)])
            said = [await asyncio.to_thread(lines.get, timeout=LIMIT) for _ in range(ORDERS)]
            await asyncio.to_thread(one.stop)
            await asyncio.to_thread(other.stop)
    expected = {f"mail to customer {n} about order {n}\n" for n in range(ORDERS)}
    assert (len(said), {*said}, lines.empty()) == (ORDERS, expected, True)
