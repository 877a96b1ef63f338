"""What of the contract does not run on the fake server: few tests, each for a reason of a list."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTRACT: Final = Path(__file__).parents[1] / "contract"

MOST_MARKS: Final = {
    "catalog": 1,  # what a server has besides notifications, such as databases
    "driver": 30,  # arguments, callables, statements and errors of asyncpg and psycopg
    "encoding": 2,  # databases that are not in UTF-8
    "network": 3,  # addresses, several hosts
    "pool": 20,  # a pool of asyncpg's
    "process": 4,  # forks, or a server whose memory is not that of the test
    "sql": 1,  # payloads that the server makes
    "sqlalchemy": 34,  # an engine of SQLAlchemy's, its events and its errors
    "tls": 9,  # certificates and handshakes
}
"""
The reasons for which a test may be marked ``needs_server``, and how many tests are.

A new test that sends, loses a connection or is refused does that by the fixtures ``database`` and
``proxy``, which have one face for all kinds of connections. What these lack is to be added to them.
A number grows only for a test of the thing itself.
"""


def marks_of(nodes: list[ast.expr]) -> Iterator[str]:
    """Yield the reasons of the marks among these expressions."""
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.needs_server":
            [reason] = node.args
            yield ast.literal_eval(reason)


def of_module(module: ast.Module) -> list[str]:
    """Return the reasons of the marks of a whole module."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            given = node.value
            return [*marks_of(given.elts if isinstance(given, ast.List) else [given])]
    return []


def reasons() -> Iterator[str]:
    """Yield the reason of each test function that is marked."""
    for path in sorted(CONTRACT.glob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
                "test_"
            ):
                yield from [*marks_of(node.decorator_list), *of_module(module)][:1]


def test_few_tests_of_the_contract_need_a_server_and_each_says_why() -> None:
    """The reasons are those of the list, and no more tests have them than it says."""
    found = Counter(reasons())
    too_many = {why: count for why, count in found.items() if count > MOST_MARKS.get(why, 0)}
    assert too_many == {}, "send, lose and refuse by the fixtures `database` and `proxy`"
