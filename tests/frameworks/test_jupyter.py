"""Notebooks, on a real kernel: cells that run twice, the stop button, and a restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
import pytest

from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ipykernel")
jupyter = pytest.importorskip("jupyter_client.manager")

PAGE: Final = Path(__file__).parents[2] / "docs" / "jupyter.md"
DSN: Final = "postgresql://localhost/postgres"
LIMIT: Final = scaled(30.0)
COUNT: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'asyncnotify'
"""
SETTLE: Final = """
import asyncio, asyncpg

async def settled(sessions):
    connection = await asyncpg.connect(DSN)
    async with asyncio.timeout(20):
        while await connection.fetchval({count!r}) != sessions:
            pass
    await connection.close()
"""
CLOSED: Final = "is being closed, because nothing refers to it any more"


class Printed(NamedTuple):
    """What has been printed under a cell."""

    cell: str
    name: str
    text: str


class Notebook:
    """A kernel, and a client that sees what is shown under which cell."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self._client = client
        self.printed: list[Printed] = []

    def begin(self, code: str) -> str:
        """Run a cell; return its id at once."""
        cell: str = self._client.execute(code)
        return cell

    def run(self, code: str) -> str:
        """Run a cell to its end, which must be a good one; return its id."""
        cell = self.begin(code)
        assert self.end_of(cell) is None
        return cell

    def end_of(self, cell: str) -> str | None:
        """Wait for the end of a cell; return the name of its error."""
        error = None
        while True:
            message = self._client.get_iopub_msg(timeout=LIMIT)
            content, under = message["content"], message["parent_header"].get("msg_id")
            if message["msg_type"] == "stream":
                self._note(Printed(under, content["name"], content["text"]))
            elif message["msg_type"] == "error":
                error = content["ename"]
            elif content.get("execution_state") == "idle" and under == cell:
                return error

    def until_printed(self, cell: str, text: str) -> None:
        """Wait until this has been printed under a cell."""
        while text not in self.under(cell):
            message = self._client.get_iopub_msg(timeout=LIMIT)
            if message["msg_type"] == "stream":
                content, under = message["content"], message["parent_header"].get("msg_id")
                self._note(Printed(under, content["name"], content["text"]))

    def _note(self, printed: Printed) -> None:
        self.printed.append(printed)

    def under(self, cell: str, name: str = "stdout") -> str:
        """Return what has been printed under a cell."""
        return "".join(p.text for p in self.printed if (p.cell, p.name) == (cell, name))

    def restart(self) -> None:
        """Restart the kernel, as the button does."""
        self.manager.restart_kernel(now=False)
        self._client.wait_for_ready(timeout=LIMIT)


@pytest.fixture(scope="module")
def kernel() -> Iterator[tuple[Any, Any]]:
    """A kernel for all tests of this file: it takes seconds to start."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    manager, client = jupyter.start_new_kernel(startup_timeout=LIMIT, env=env)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(kernel: tuple[Any, Any], dsn: str) -> Iterator[Notebook]:
    """A notebook that knows a database; at the end nothing of its runs on."""
    notebook = Notebook(*kernel)
    notebook.run("%reset -f")
    notebook.run(f"DSN = {dsn!r}" + SETTLE.format(count=COUNT))
    yield notebook
    notebook.run("import logging; logging.getLogger('asyncnotify').setLevel('ERROR')")
    notebook.run("%reset -f")
    notebook.run("import logging; logging.getLogger('asyncnotify').setLevel('NOTSET')")


@pytest.fixture
def cells(dsn: str) -> list[tuple[str, str | None]]:
    """The cells of the page, each with what the page says that it prints."""
    text = PAGE.read_text(encoding="utf-8").replace(DSN, dsn)
    found = re.findall(
        r"^```ipython\n(.*?)^```$(?:\n```text\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL
    )
    return [(code, output or None) for code, output in found]


def test_the_cells_of_the_page_do_what_it_says(
    notebook: Notebook, cells: list[tuple[str, str | None]]
) -> None:
    """A handler prints under the cell that has called listen(); the first cell may be run again."""
    listening, sending, closing, endless, limited = cells
    first = notebook.run(listening[0])
    notebook.run(sending[0])
    assert sending[1] is not None
    notebook.until_printed(first, sending[1])
    second = notebook.run(listening[0])
    assert CLOSED in notebook.under(second, "stderr")
    assert "Warning" not in notebook.under(second, "stderr")
    notebook.run("await settled(1)")
    notebook.run(sending[0])
    notebook.until_printed(second, sending[1])
    assert notebook.under(limited_cell := notebook.run(limited[0])) == limited[1], limited_cell
    assert notebook.under(first) == notebook.under(second) == sending[1]
    running = notebook.begin("print('begun')\n" + endless[0])
    notebook.until_printed(running, "begun")
    notebook.manager.interrupt_kernel()
    assert notebook.end_of(running) == "CancelledError"
    notebook.run(sending[0])
    notebook.run("assert len(listener.stats().subscriptions) == 1")
    notebook.run(closing[0])
    notebook.run("await settled(0)")


@pytest.mark.parametrize(
    "cell",
    [
        "thing = Notifier(DSN); await thing.start()",
        "thing = Log('web', DSN); await thing.install(); await thing.append('orders', '1')",
    ],
    ids=["Notifier", "Log"],
)
def test_what_sends_may_be_made_anew_too(notebook: Notebook, cell: str) -> None:
    """A Notifier or a Log that a cell has replaced is closed."""
    cell = f"from asyncnotify import Notifier; from asyncnotify.log import Log; {cell}"
    notebook.run(cell)
    notebook.run("before = id(thing)")
    again = notebook.run(cell)
    assert CLOSED in notebook.under(again, "stderr")
    notebook.run("await settled(1)")
    notebook.run("await thing.aclose(); await settled(0)")


def test_a_blocking_listener_is_refused(notebook: Notebook) -> None:
    """It would keep the notebook from running; the error names the class to use."""
    cell = notebook.begin("from asyncnotify import BlockingListener; BlockingListener(DSN).start()")
    assert notebook.end_of(cell) == "WrongLoopError"


def test_a_restart_of_the_kernel_ends_the_sessions(notebook: Notebook, dsn: str) -> None:
    """At once: the server need not wait for a timeout."""
    notebook.run("from asyncnotify import Listener; listener = Listener(DSN)")
    notebook.run("await listener.start(); await listener.notify('orders')")
    assert asyncio.run(sessions_in(dsn)) == 2
    notebook.restart()
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(until_no_session(dsn))


async def sessions_in(dsn: str) -> int:
    """Return how many sessions of asyncnotify there are in a database."""
    connection = await asyncpg.connect(dsn)
    try:
        count: int = await connection.fetchval(COUNT)
        return count
    finally:
        await connection.close()


async def until_no_session(dsn: str) -> None:
    """Return once there is none."""
    async with asyncio.timeout(LIMIT):
        while await sessions_in(dsn):
            pass
