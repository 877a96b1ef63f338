"""Which files the tests are in, and what each test must have: read from their sources."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

PACKAGE = Path(sys.modules["asyncnotify"].__path__[0])
TESTS = Path(__file__).parent.parent
OUTER_PARTS = ("testing", "cli")
WITHOUT_RULES = ("__init__", "__main__", "ports", "typing")
"""Modules that hold no logic: protocols and names alone."""

MODULES = sorted(
    path.relative_to(PACKAGE)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in WITHOUT_RULES and path.relative_to(PACKAGE).parts[0] not in OUTER_PARTS
)
TEST_FILES = sorted(TESTS.rglob("test_*.py"))

VIRTUAL_TIME, RANDOM_TIMES = TESTS / "unit", TESTS / "chaos"
SLEEPS = {"time.sleep", "asyncio.sleep", "sleep"}


def unit_tests_of(module: Path) -> Path:
    """Return where the unit tests of a module stand: without the underscores of private names."""
    rooms = [part.removeprefix("_") for part in module.parent.parts]
    return Path("unit", *rooms, f"test_{module.stem.removeprefix('_')}.py")


def functions_in(path: Path) -> list[Function]:
    """Return the definitions of functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_of_the_core_has_its_unit_tests(module: Path) -> None:
    """In a file of its own name, in the folder of its own room."""
    assert (TESTS / unit_tests_of(module)).is_file(), f"{unit_tests_of(module)} is missing"


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_has_a_docstring(path: Path) -> None:
    """Which is the claim that it proves."""
    tests = [function for function in functions_in(path) if function.name.startswith("test_")]
    assert [test.name for test in tests if not ast.get_docstring(test)] == []


def sleeps_in(path: Path) -> Iterator[str]:
    """Yield the lines that let real time pass, and give no reason for that."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SLEEPS:
            seconds = ast.unparse(node.args[0]) if node.args else ""
            line = lines[node.lineno - 1]
            if seconds != "0" and "#" not in line:
                yield f"{path.relative_to(TESTS)}:{node.lineno}: {line.strip()}"


def test_tests_wait_for_facts_and_not_for_time() -> None:
    """Each sleep has a comment that says why, except on the clock that jumps and in the chaos."""
    in_real_time = [
        path
        for path in sorted(TESTS.rglob("*.py"))
        if not {VIRTUAL_TIME, RANDOM_TIMES}.intersection(path.parents)
    ]
    assert [line for path in in_real_time for line in sleeps_in(path)] == []
