"""How the modules log: read from their sources."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(sys.modules["asyncnotify"].__path__[0])
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("testing", "cli", "_logs.py")
]


LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def calls_in(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of attributes in a module, with the names of the attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_logs_past_the_limit(path: Path) -> None:
    """Each has its logger from here, a warning names its limit, and texts are not joined before."""
    for name, call in calls_in(path):
        assert name != "getLogger"
        is_level = name in LEVELS
        logs = is_level and ast.unparse(getattr(call.func, "value", call)) == "log"
        if logs and name == "warning":
            limit, key, text = call.args[:3]
            assert ast.unparse(limit).endswith("warnings")
            assert "id(" not in ast.unparse(key), "an address is used again"
            assert isinstance(text, ast.Constant | ast.Name)
        elif name == "warning":
            pytest.fail("a warning that no limit is asked for")
        elif logs:
            assert isinstance(call.args[0], ast.Constant | ast.Name)
