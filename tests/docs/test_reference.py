"""The reference of the site: what fails its build, and that its tables are whole."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_type_hints

import pytest

import asyncnotify
import asyncnotify.typing
from asyncnotify._logs import Fields

DOCS: Final = Path(__file__).parents[2] / "docs"
PACKAGE: Final = Path(asyncnotify.__path__[0])
sys.path.append(str(DOCS / "_ext"))

from public_api import PublicName, names_in, problems_of  # noqa: E402 - its folder is added above
from written import Writer  # noqa: E402 - its folder is added above

if TYPE_CHECKING:
    from types import ModuleType

MODULE: Final = '''
"""A module."""

from typing import Annotated

import typer

__all__ = ["Fine", "fine", "of_nowhere", "undocumented", "without_raises"]

app = typer.Typer(name="made-up")


class Fine:
    """Has all it needs."""

    def wait(self) -> None:
        """Wait for `fine()`, and for `other`."""

    def hold(self, seconds: float) -> None:
        """Hold."""


def fine(name: str) -> Fine:
    """
    Return one.

    Raises:
        ValueError: The name is empty.
    """


def undocumented() -> None: ...


def without_raises(name: str) -> None:
    """Do something."""


def of_nowhere(name: str) -> None:
    """Do something. Raises nothing."""


@app.command()
def run(
    quick: Annotated[bool, typer.Option("--quick")] = False,
    slow: Annotated[bool, typer.Option("--slow", help="Take time.")] = False,
) -> None:
    """Run it."""


@app.command()
def stop() -> None:
    """Stop it."""
'''
PAGE: Final = """
Made up
=======

.. autoclass:: made_up.Fine
   :members:

.. autofunction:: made_up.fine

.. autofunction:: made_up.undocumented

.. autofunction:: made_up.without_raises

.. command-line:: made_up:app
"""
CONF: Final = f"""
import sys

sys.path[:0] = [{str(DOCS / "_ext")!r}, "."]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "documented", "reference_autodoc",
              "reference_checks", "reference_directives", "reference_links", "reference_programs"]
nitpicky = True
default_role = "name"
reference_package = "made_up"
"""
LACKING: Final = {
    "made_up.Fine.hold": 'made_up.Fine.hold says neither "Raises:" nor "Raises nothing"',
    "made_up.undocumented": "made_up.undocumented has no docstring",
    "made_up.without_raises": 'made_up.without_raises says neither "Raises:" nor "Raises nothing"',
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Write a site for a package that lacks what it should have."""
    files = {"made_up/__init__.py": MODULE, "conf.py": CONF, "index.rst": PAGE}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def made_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the package."""
    pytest.importorskip("typer")
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, "made_up", raising=False)
    return pytest.importorskip("made_up")  # type: ignore[no-any-return]


def test_the_build_fails_for_a_public_name_that_lacks_something(project: Path) -> None:
    """A docstring, what it raises, a page, or, for an option, a line of help."""
    pytest.importorskip("sphinx")
    command = (
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--no-color",
        "-q",
        ".",
        "out",
    )
    ended = subprocess.run(command, cwd=project, capture_output=True, check=False, text=True)
    assert ended.returncode != 0
    warnings = set(re.findall(r"WARNING: (.*?)(?: \[[\w.]+\])?$", ended.stderr, re.MULTILINE))
    assert warnings == {
        *LACKING.values(),
        "made_up.of_nowhere stands on no page of the reference",
        "made-up run --quick has no line of help",
    }


def test_a_name_in_backticks_is_a_link_if_it_is_known(project: Path) -> None:
    """And code otherwise."""
    pytest.importorskip("sphinx")
    command = (sys.executable, "-m", "sphinx", "-Q", ".", "out")
    subprocess.run(command, cwd=project, check=True)
    page = (project / "out" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<a class="reference internal" href="#made_up.fine"[^>]*><code', page)
    assert re.search(r"and for <code[^>]*><span class=\"pre\">other</span></code>", page)


def test_what_a_docstring_lacks_is_found_without_a_build(made_up: ModuleType) -> None:
    """Of a public name that is a function, a method or a class."""
    found = {name.full: [*problems_of(name)] for name in names_in(made_up)}
    assert {name: problems for name, problems in found.items() if problems} == {
        name: [problem] for name, problem in LACKING.items()
    }


NAMES: Final = [*names_in(asyncnotify), *names_in(asyncnotify.typing)]


@pytest.mark.parametrize("name", NAMES, ids=[name.full for name in NAMES])
def test_every_name_of_the_package_itself_says_what_it_raises(name: PublicName) -> None:
    """So do those of the other modules: the build of the site says so."""
    assert [*problems_of(name)] == []


def test_signatures_are_as_users_write_them() -> None:
    """With public names only, no TypedDict in the place of options, and the defaults as written."""
    writer = Writer(NAMES)
    signatures = {
        name.path: " -> ".join(writer.signature(name.value))
        for name in NAMES
        if inspect.isfunction(name.value)
    }
    assert len(signatures) > 50
    assert not [s for s in signatures.values() if "Unpack" in s or "asyncnotify._" in s]
    assert signatures["Listener.aclose"] == "(timeout: float | None = None) -> None"
    assert signatures["Listener.stream"] == (
        "(*channels: str | asyncnotify.Channel[Any], gaps: bool = False,"
        " on_error: asyncnotify.typing.OnError | None = None, buffer: int | None = None,"
        " overflow: asyncnotify.typing.Overflow | None = None, latest: bool = False,"
        " timeout: float | None = 30.0)"
        " -> asyncnotify.Stream[asyncnotify.Notification[Any] | asyncnotify.Gap]"
    )


def sources() -> str:
    """Return the text of the package."""
    return "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))


def page(name: str) -> str:
    """Return a page of the reference."""
    return (DOCS / "reference" / f"{name}.rst").read_text(encoding="utf-8")


def test_every_environment_variable_stands_on_its_page() -> None:
    """Those of asyncnotify, and those of libpq."""
    ours = set(re.findall(r"\bASYNCNOTIFY_[A-Z_]+\b", sources())) | {"DATABASE_URL"}
    shown = page("environment")
    assert set(re.findall(r"^\.\. envvar:: (\w+)$", shown, re.MULTILINE)) == ours
    libpq = set(re.findall(r"\"(PG[A-Z]+)\"", sources()))
    assert set(re.findall(r"``(PG[A-Z]+)(?:=\w+)?``", shown)) == libpq


def test_every_logger_and_every_field_stands_on_the_page_of_logging() -> None:
    """And no other."""
    loggers = set(re.findall(r"\bLog\(\"(\w+)\"\)", sources()))
    assert set(re.findall(r"\* - ``asyncnotify\.(\w+)``", page("logging"))) == loggers
    assert set(re.findall(r"\* - ``(\w+)``", page("logging"))) == set(get_type_hints(Fields))
