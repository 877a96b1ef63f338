"""The plugin for pytest beside pytest-aiohttp, in a project that has both."""

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

pytest.importorskip("pytest_aiohttp")

CLIENT_TESTS = """
    from aiohttp import web
    from asyncnotify.ext.aiohttp import LISTENER, setup, websocket

    async def orders(request):
        return await websocket(request, ["orders"])

    def application(dsn):
        app = web.Application()
        setup(app, dsn)
        app.router.add_get("/orders", orders)
        return app

    async def notified(client):
        async with client.ws_connect("/orders") as socket:
            assert (await socket.receive_json(timeout=20)).get("gap")
            await client.app[LISTENER].notify("orders", "1")
            assert (await socket.receive_json(timeout=20))["payload"] == "1"

    {mark}
    async def test_an_application_on_the_fake(aiohttp_client, asyncnotify_fake):
        await notified(await aiohttp_client(application(asyncnotify_fake.dsn)))

    {mark}
    async def test_an_application_on_a_server(aiohttp_client, asyncnotify_dsn):
        await notified(await aiohttp_client(application(asyncnotify_dsn)))
"""
SHARED_CLIENT = """
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def client(aiohttp_client, asyncnotify_dsn):
        return await aiohttp_client(application(asyncnotify_dsn))

    {mark}
    async def test_a_fixture_of_the_project_may_make_the_client(client):
        await notified(client)
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_its_clients_and_our_fixtures_serve_the_same_test(
    tmp_path: Path, own_server: PostgresServer, mode: str
) -> None:
    """The application is closed before its database is dropped, and nothing is left of both."""
    parts = (SERVER_TEST, FAKE_TEST, PROXY_TEST, PLAIN_TEST, CLIENT_TESTS, SHARED_CLIENT)
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    warnings = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
    where = f"--asyncnotify-dsn={own_server.dsn}"
    options = ("-p", "no:anyio", f"--asyncio-mode={mode}", *warnings, where)
    assert "7 passed" in run_pytest(tmp_path, *parts, mark=mark, options=options)
    assert databases_of(own_server) == []
