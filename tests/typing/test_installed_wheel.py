"""What a user's type checker makes of the wheel, once that is installed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.support.machine import scaled

ROOT: Final = Path(__file__).parents[2]
NO_BACKEND: Final = ("No matching distribution", "Could not find a version", "Connection")

PROGRAM: Final = """
from dataclasses import dataclass

from typing import Unpack

from asyncnotify import Channel, Gap, Listener, Notification, Notifier
from asyncnotify.typing import Handler, ListenOptions

@dataclass
class Order:
    id: int

@dataclass
class User:
    name: str

orders = Channel("orders", Order)
listener = Listener("postgresql://db/app")

@listener.on(orders)
async def decorated(n: Notification[Order]) -> None:
    n.payload.id.bit_length()
    n.payload.name  # wrong

def on_order(n: Notification[Order]) -> int:
    return n.payload.id

def on_user(n: Notification[User]) -> None: ...

async def listen(handler: Handler[Order], **options: Unpack[ListenOptions]) -> None:
    await listener.listen(orders, handler, **options)

async def main(notifier: Notifier) -> None:
    await listen(on_order, buffer=5)
    await listen(on_order, bufer=5)  # wrong
    await listener.listen(orders, on_order, bufer=5)  # wrong
    await listener.listen(orders, on_order)
    await listener.listen(orders, on_user)  # wrong
    await listener.listen("orders", on_user)  # wrong
    async for n in listener.stream(orders):
        n.payload.id.bit_length()
        n.payload.name  # wrong
    async for item in listener.stream(orders, gaps=True):
        item.payload  # wrong
        if isinstance(item, Gap):
            item.reason.upper()
        else:
            item.payload.id.bit_length()
        match item:
            case Notification(payload=order):
                order.id.bit_length()
                order.name  # wrong
            case Gap():
                item.reason.upper()
    async for item in listener.stream(orders, gaps=bool(input())):
        item.payload  # wrong
    async for batch in listener.stream(orders).batches():
        batch[0].payload.id.bit_length()
        batch.payload  # wrong
    await listener.notify(orders, Order(1))
    await listener.notify(orders, 5)  # wrong
    await notifier.notify(orders, User("x"))  # wrong
    await notifier.notify_many([(orders, Order(1))])
    listener.no_such_method()  # wrong
"""
WRONG: Final = {n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a module of this Python, away from the sources."""
    return subprocess.run(
        [sys.executable, "-P", "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=scaled(55),
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from the sources beside the tests."""
    for tool in ("mypy", "pyright", "pip"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"needs {tool}: it comes with `nox -s types`, not with the tests")
    folder = tmp_path_factory.mktemp("wheel")
    here = ["--no-build-isolation"] * (importlib.util.find_spec("hatchling") is not None)
    built = run("pip", "wheel", "--no-deps", *here, "--wheel-dir", folder, ROOT, cwd=folder)
    if built.returncode != 0 and any(text in built.stderr for text in NO_BACKEND):
        pytest.skip("needs hatchling, or a package registry to get it from")
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's program, in a folder with an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "env", with_pip=False)
    (site_packages,) = (folder / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    return program


def python_of(program: Path) -> Path:
    """Return the interpreter of the program's environment."""
    return program.parent / "env" / "bin" / "python"


def test_the_wheel_says_that_it_is_typed(wheel: Path) -> None:
    """It holds py.typed, every module of the package, and neither tests nor caches."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "asyncnotify/py.typed" in names
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("asyncnotify/**/*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert not [name for name in names if name.startswith(("tests", "examples", "docs"))]


def test_the_index_shows_a_readme_whose_links_lead_somewhere(wheel: Path) -> None:
    """There the files of the repository are not beside it; what the program is called is known."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
        metadata = archive.read(name).decode()
        scripts = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    links = re.findall(r"\]\(([^)\s]+)\)", metadata)
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert "Project-URL: Changelog, https://" in metadata
    assert "asyncnotify = asyncnotify.cli:main" in scripts


def test_mypy_knows_the_types(program: Path) -> None:
    """With --strict it finds fault with what is wrong, line by line, and with nothing else."""
    checked = run(
        "mypy",
        "--strict",
        f"--python-executable={python_of(program)}",
        f"--cache-dir={program.parent / 'cache'}",
        program.name,
        cwd=program.parent,
    )
    found = re.findall(r"^program\.py:(\d+): error", checked.stdout, re.MULTILINE)
    assert {int(line) for line in found} == WRONG, checked.stdout + checked.stderr


def test_pyright_knows_the_types(program: Path) -> None:
    """It finds fault with what is wrong, line by line, and with nothing else."""
    checked = run(
        "pyright",
        "--outputjson",
        f"--pythonpath={python_of(program)}",
        program.name,
        cwd=program.parent,
    )
    said = json.loads(checked.stdout[checked.stdout.index("{") :])["generalDiagnostics"]
    found = {d["range"]["start"]["line"] + 1 for d in said if d["severity"] == "error"}
    assert found == WRONG, checked.stdout + checked.stderr
