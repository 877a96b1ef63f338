"""A project whose tests use the plugin for pytest, run in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import asyncpg

from tests.support.machine import scaled

if TYPE_CHECKING:
    from pathlib import Path

    from asyncnotify.testing.server import PostgresServer

PROGRAM = """
    from asyncnotify import Listener

    async def answer(dsn):
        async with Listener(dsn) as listener:
            async for notification in listener.stream("requests"):
                await listener.notify("answers", notification.payload * 2)
"""
SERVER_TEST = """
    {mark}
    async def test_with_a_server(asyncnotify_server, asyncnotify_dsn):
        assert asyncnotify_dsn != asyncnotify_server.dsn
        async with Listener(asyncnotify_dsn) as listener:
            stream = listener.stream("a")
            async with stream:
                await listener.notify("a", "1")
                assert (await anext(stream)).payload == "1"
"""
FAKE_TEST = """
    {mark}
    async def test_with_the_fake(asyncnotify_fake):
        running = asyncio.create_task(answer(asyncnotify_fake.dsn))
        await asyncnotify_fake.until_listening("requests")
        asyncnotify_fake.notify("requests", "ab")
        assert (await asyncnotify_fake.until_notified("answers")).payload == "abab"
        running.cancel()
        await asyncio.wait([running])
"""
PROXY_TEST = """
    {mark}
    async def test_with_the_proxy(asyncnotify_dsn, asyncnotify_proxy):
        async with asyncnotify_proxy as proxy:
            async with Listener(proxy.proxied_dsn(asyncnotify_dsn)) as listener:
                async with listener.stream("a", gaps=True) as stream:
                    assert (await anext(stream)).reason == "start"
                    proxy.reset()
                    assert (await anext(stream)).reason == "reconnect"
"""
PLAIN_TEST = """
    from asyncnotify import BlockingListener

    def test_without_a_loop(asyncnotify_dsn):
        with BlockingListener(asyncnotify_dsn) as listener:
            with listener.stream("a") as stream:
                listener.notify("a", "1")
                assert next(stream).payload == "1"
"""


def databases_of(server: PostgresServer) -> list[str]:
    """Return the databases that tests have left on a server."""

    async def look() -> list[str]:
        connection = await asyncpg.connect(server.dsn)
        rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname ~ 'asyncn'")
        await connection.close()
        return [row["datname"] for row in rows]

    return asyncio.run(look())


def run_pytest(folder: Path, *parts: str, mark: str = "", options: tuple[str, ...] = ()) -> str:
    """Run pytest on these tests; return what it printed. All of them have to pass."""
    head = "import asyncio\nimport pytest\nfrom asyncnotify import Listener\n"
    tests = "\n".join(dedent(part).replace("{mark}", mark) for part in (PROGRAM, *parts))
    (folder / "test_program.py").write_text(head + tests, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "asyncnotify.testing.plugin", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=scaled(40),
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
