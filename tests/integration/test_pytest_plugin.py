"""The plugin for pytest, in projects that use it: each in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.plugin_project import (
    FAKE_TEST,
    PLAIN_TEST,
    PROXY_TEST,
    SERVER_TEST,
    databases_of,
    run_pytest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from asyncnotify.testing.server import PostgresServer

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


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_it_works_under_both_plugins_for_async_tests(
    tmp_path: Path, own_server: PostgresServer, plugin: str
) -> None:
    """Of pytest-asyncio and of anyio; in plain tests beside them as well. An option says where."""
    parts = [ASYNCIO_ONLY] if plugin == "anyio" else []
    other = "no:asyncio" if plugin == "anyio" else "no:anyio"
    parts += [SERVER_TEST, FAKE_TEST, PROXY_TEST, PLAIN_TEST, WHICH_TEST]
    # pytest-aiohttp, where it is installed, needs pytest-asyncio
    options = ("-p", other, "-p", "no:aiohttp", f"--asyncnotify-dsn={own_server.dsn}")
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


OWN_DATABASE = """
    import asyncpg
    import psycopg

    QUESTION = "SELECT current_database()"

    @pytest.mark.asyncio
    async def test_in_a_database_of_its_own(asyncnotify_dsn):
        connection = await asyncpg.connect(asyncnotify_dsn)
        assert (await connection.fetchval(QUESTION)).startswith("asyncnotify_")
        await connection.close()
        with psycopg.connect(asyncnotify_dsn) as connection:
            assert connection.execute(QUESTION).fetchone()[0].startswith("asyncnotify_")
"""


@pytest.mark.parametrize(
    "form", ["/?dbname=postgres", "/postgres?dbname=postgres", "no host in front"]
)
def test_however_the_dsn_is_written_tests_run_in_a_database_of_their_own(
    tmp_path: Path, own_server: PostgresServer, form: str
) -> None:
    """Never in the one that its path or its query names, as libpq and asyncpg read it."""
    dsn = own_server.dsn.removesuffix("/postgres") + form
    if form == "no host in front":
        place = f"host={own_server.host}&port={own_server.port}"
        dsn = f"postgresql:///postgres?{place}&user=postgres"
    options = ("-p", "no:anyio", "-p", "no:aiohttp", f"--asyncnotify-dsn={dsn}")
    assert "1 passed" in run_pytest(tmp_path, OWN_DATABASE, options=options)
    assert databases_of(own_server) == []
