"""The plugin for pytest, in projects that use it: each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import asyncpg
import pytest

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
WHICH_TEST = """
    def test_the_one_that_was_named(asyncnotify_server):
        assert "127.0.0.1" in repr(asyncnotify_server)
        assert not hasattr(asyncnotify_server, "stop")
"""
MARKS = {"asyncio": "@pytest.mark.asyncio", "anyio": "@pytest.mark.anyio"}
ASYNCIO_ONLY = """
    @pytest.fixture
    def anyio_backend():
        return "asyncio"
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


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_it_works_under_both_plugins_for_async_tests(
    tmp_path: Path, own_server: PostgresServer, plugin: str
) -> None:
    """Of pytest-asyncio and of anyio; in plain tests beside them as well. An option says where."""
    parts = [ASYNCIO_ONLY] if plugin == "anyio" else []
    other = "no:asyncio" if plugin == "anyio" else "no:anyio"
    parts += [SERVER_TEST, FAKE_TEST, PROXY_TEST, PLAIN_TEST, WHICH_TEST]
    options = ("-p", other, f"--asyncnotify-dsn={own_server.dsn}")
    assert "5 passed" in run_pytest(tmp_path, *parts, mark=MARKS[plugin], options=options)
    assert databases_of(own_server) == []


def test_the_environment_may_name_the_server(
    tmp_path: Path, own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no option does."""
    monkeypatch.setenv("ASYNCNOTIFY_TEST_DSN", own_server.dsn)
    assert "2 passed" in run_pytest(tmp_path, PLAIN_TEST, WHICH_TEST)
    assert databases_of(own_server) == []


def test_each_worker_of_xdist_has_what_it_needs(tmp_path: Path) -> None:
    """An embedded server of its own, and databases that no other test uses."""
    many = '{mark}\n    @pytest.mark.parametrize("n", range(4))'
    tests = SERVER_TEST.replace("{mark}", many).replace(
        "(asyncnotify_server", "(n, asyncnotify_server"
    )
    options = ("-n", "2", "-p", "no:anyio")
    assert "4 passed" in run_pytest(tmp_path, tests, mark=MARKS["asyncio"], options=options)


def test_nothing_is_started_for_tests_of_the_fake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No PostgreSQL is looked for, as long as no test asks for one."""
    monkeypatch.setenv("ASYNCNOTIFY_PG_BIN", "/nonexistent")
    printed = run_pytest(tmp_path, FAKE_TEST, mark=MARKS["asyncio"], options=("-p", "no:anyio"))
    assert "1 passed" in printed
