"""Which files the tests are in, and what each test must have: read from their sources."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(sys.modules["asyncnotify"].__path__[0])
TESTS = Path(__file__).parent.parent
OUTER_PARTS = ("testing", "cli", "doctor", "ext", "lock", "log", "top", "triggers")
WITHOUT_RULES = ("__init__", "__main__", "ports", "typing")
"""Modules that hold no logic: protocols and names alone."""

MODULES = sorted(
    path.relative_to(PACKAGE)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in WITHOUT_RULES and path.relative_to(PACKAGE).parts[0] not in OUTER_PARTS
)
FACADES = {
    "_listener.py",
    "_blocking/listener.py",
    "log/_blocking/log.py",
    "log/_log.py",
    "testing/proxy.py",
    "testing/server.py",
}
"""Each is one class, whose methods are contracts: in several modules help() would be in pieces."""

MOST_LINES = 400
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
DOCUMENTED = ast.Module | ast.ClassDef | FUNCTIONS
VIRTUAL_TIME = {TESTS / "unit", TESTS / "properties"}
RANDOM_TIMES = {TESTS / "chaos"}
TEST = re.compile(r"""def (test_\w+)\(.*?\) -> None:[^\n]*\n\s*(r?\"{3})?""", re.DOTALL)
"""A definition, and the quotes that its body begins with; reading the syntax would take 1 s."""

SUPPRESSION = re.compile(r"# (noqa|type: ignore|pyright: ignore|pragma)\b")
REASON = re.compile(r"# noqa: [A-Z0-9, ]+ - \S|ignore\[[\w, -]+\]\s+# (?!pyright|type|noqa)\w")

SLEEP = re.compile(r"^\s.*\b(?:time|asyncio)\.sleep\((?!0\))")
"""A call in a function, of more than one turn of the event loop."""


def unit_tests_of(module: Path) -> Path:
    """Return where the unit tests of a module stand: without the underscores of private names."""
    rooms = [part.removeprefix("_") for part in module.parent.parts]
    return Path("unit", *rooms, f"test_{module.stem.removeprefix('_')}.py")


def test_every_module_of_the_core_has_its_unit_tests() -> None:
    """In a file of its own name, in the folder of its own room."""
    files = [unit_tests_of(module) for module in MODULES]
    assert [str(file) for file in files if not (TESTS / file).is_file()] == []


def code_lines_of(module: Path) -> int:
    """Return how many lines a module has that are neither empty nor docstrings or overloads."""
    source = module.read_text(encoding="utf-8")
    code = [bool(line.strip()) for line in source.splitlines()]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            text = node.body[0]
            code[text.lineno - 1 : text.end_lineno] = [False] * _height(text.lineno, text)
        if isinstance(node, FUNCTIONS) and any(map(_is_overload, node.decorator_list)):
            begin = node.decorator_list[0].lineno
            code[begin - 1 : node.end_lineno] = [False] * _height(begin, node)
    return sum(code)


def _height(begin: int, node: ast.stmt) -> int:
    return (node.end_lineno or begin) - begin + 1


def _is_overload(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "overload"


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    """Of the classes that users call, the docstrings and overloads are not counted."""
    heights = {
        str(module.relative_to(PACKAGE)): len(module.read_text(encoding="utf-8").splitlines())
        for module in PACKAGE.rglob("*.py")
    }
    for facade in FACADES & heights.keys():
        heights[facade] = code_lines_of(PACKAGE / facade)
    assert {name: height for name, height in heights.items() if height > MOST_LINES} == {}


def test_what_a_checker_is_told_to_overlook_has_a_reason() -> None:
    """Behind the rules that are switched off in a line."""
    bare = [
        f"{module.relative_to(PACKAGE)}:{number}"
        for module in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(module.read_text(encoding="utf-8").splitlines(), start=1)
        if SUPPRESSION.search(line) and not REASON.search(line)
    ]
    assert bare == []


def test_every_test_has_a_docstring() -> None:
    """Which is the claim that it proves."""
    missing = [
        f"{path.relative_to(TESTS)}: {match[1]}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for match in TEST.finditer(path.read_text(encoding="utf-8"))
        if match[2] is None
    ]
    assert missing == []


def sleeps_in(path: Path) -> Iterator[str]:
    """Yield the lines that let real time pass, and give no reason for that."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if SLEEP.search(line) and "#" not in line:
            yield f"{path.relative_to(TESTS)}:{number}: {line.strip()}"


def test_tests_wait_for_facts_and_not_for_time() -> None:
    """Each sleep has a comment that says why, except on the clock that jumps and in the chaos."""
    in_real_time = [
        path
        for path in sorted(TESTS.rglob("*.py"))
        if not (VIRTUAL_TIME | RANDOM_TIMES).intersection(path.parents)
    ]
    assert [line for path in in_real_time for line in sleeps_in(path)] == []
