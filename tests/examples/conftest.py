"""The examples, run as a user runs them, on a database that can be taken away from them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.testing.proxy import FaultProxy
from tests.support.expected_text import check_expected
from tests.support.machine import scaled
from tests.support.ports import kept_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from types import ModuleType

    from asyncnotify.testing.server import PostgresServer

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_LIMIT = scaled(20.0)  # seconds until a fact that must come has come
COMPLAINT = re.compile(r"Traceback|Exception ignored|Warning|ERROR|never (awaited|retrieved)")
SESSIONS = """
    SELECT pid FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
    AND application_name LIKE $1
"""


class Program:
    """An example that runs in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self._process = process

    @property
    def said(self) -> str:
        """All that has been read of its output."""
        return "\n".join(self.lines)

    async def expect(self, text: str) -> str:
        """Return the next line with this text in it; those before it are skipped."""
        check_expected(text)
        async with self._patience():
            while line := await self._next_line():
                if text in line:
                    return line
        pytest.fail(f"{text!r} was expected of {self.said}")

    async def expect_all(self, *texts: str) -> None:
        """Read until there was a line for each text, in whatever order they came."""
        check_expected(*texts)
        left = [*texts]
        async with self._patience():
            while left and (line := await self._next_line()):
                if found := next((text for text in left if text in line), None):
                    left.remove(found)
        assert not left, f"{left} were expected of {self.said}"

    async def end(self) -> None:
        """Wait until it ends by itself, without complaint."""
        async with self._patience():
            while await self._next_line():
                pass
            await self._process.wait()
        assert self._process.returncode == 0, self.said
        assert not COMPLAINT.search(self.said), self.said

    async def _next_line(self) -> str:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        if line:
            self.lines.append(line.rstrip())
        return line

    @asynccontextmanager
    async def _patience(self) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(WAIT_LIMIT):
                yield
        except TimeoutError as error:
            error.add_note(self.said)
            raise

    async def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Press Ctrl-C, or send another signal, and wait until it has ended without complaint."""
        self.send(number)
        await self.end()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Leave no process behind; what it has still printed is read."""
        if self._process.returncode is None:
            self._process.kill()
        rest, _ = await self._process.communicate()  # with uvloop, wait() leaves the pipe open
        self.lines += rest.decode().splitlines()


class ExampleRunner:
    """A database, and programs whose way to it leads through a proxy."""

    def __init__(self, stack: AsyncExitStack, dsn: str, server: PostgresServer | None) -> None:
        self.dsn = dsn
        self.proxy = FaultProxy.for_dsn(dsn)
        self._stack = stack
        self._server = server

    def load(self, example: str) -> ModuleType:
        """Import an example, to test a part of it."""
        spec = spec_from_file_location(example, EXAMPLES / f"{example}.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def keep_port(self) -> int:
        """Return a port for one program that serves; nobody else gets it until the test ends."""
        return self._stack.enter_context(kept_port())

    async def run(self, example: str, *arguments: str, **environment: str) -> Program:
        """Start an example; whatever happens, it ends with the test."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            EXAMPLES / f"{example}.py",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "DATABASE_URL": self.proxy.proxied_dsn(self.dsn),
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
        )
        program = Program(process)
        self._stack.push_async_callback(program.kill)
        return program

    async def execute(self, *statements: str) -> None:
        """Execute statements, each in a transaction of its own, not through the proxy."""
        async with self.connect() as connection:
            for statement in statements:
                await connection.execute(statement)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
        """Connect, not through the proxy."""
        settings = {"application_name": "tests"}
        connection = await asyncpg.connect(self.dsn, server_settings=settings)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    @asynccontextmanager
    async def outage(self) -> AsyncGenerator[None]:
        """Take the database away; what is notified inside the block reaches no program."""
        self.proxy.refuse()
        if self._server is not None:
            await asyncio.to_thread(self._server.kill)
            await asyncio.to_thread(self._server.start)
        await self.terminate()  # of a server that was killed, who was on the way through the proxy
        yield
        self.proxy.accept()

    async def terminate(self, application: str = "%") -> None:
        """End sessions as an administrator does: those of this application_name (a pattern)."""
        terminate = SESSIONS.replace("SELECT pid", "SELECT pg_catalog.pg_terminate_backend(pid)", 1)
        async with self.connect() as connection:
            await connection.fetch(terminate, application)

    async def until(self, condition: str) -> None:
        """Return once this is true, in SQL."""
        async with asyncio.timeout(WAIT_LIMIT), self.connect() as connection:
            while not await connection.fetchval(f"SELECT {condition}"):
                pass


@asynccontextmanager
async def new_runner(dsn: str, server: PostgresServer | None) -> AsyncGenerator[ExampleRunner]:
    """Make a runner, and end its programs with it."""
    async with AsyncExitStack() as stack:
        runner = ExampleRunner(stack, dsn, server)
        async with runner.proxy:
            yield runner


@pytest_asyncio.fixture
async def runner(dsn: str) -> AsyncIterator[ExampleRunner]:
    """A database whose sessions may be terminated."""
    async with new_runner(dsn, None) as runner:
        yield runner


@pytest.fixture(params=["terminated", "killed"])
def fragile(request: pytest.FixtureRequest) -> tuple[str, PostgresServer | None]:
    """A database whose sessions are terminated, or whose server is killed with ``kill -9``."""
    if request.param == "terminated":
        return request.getfixturevalue("dsn"), None
    server: PostgresServer = request.getfixturevalue("own_server")
    return server.dsn, server


@pytest_asyncio.fixture
async def fragile_runner(
    fragile: tuple[str, PostgresServer | None],
) -> AsyncIterator[ExampleRunner]:
    """A database that is taken away in either way."""
    async with new_runner(*fragile) as runner:
        yield runner


@pytest_asyncio.fixture
async def killable_runner(own_server: PostgresServer) -> AsyncIterator[ExampleRunner]:
    """A database whose server is killed with ``kill -9``."""
    async with new_runner(own_server.dsn, own_server) as runner:
        yield runner


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """Let programs be interrupted, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
