"""A folder with a few tests, and the project's own conftest: for tests of how tests are run."""

from __future__ import annotations

import shutil
from pathlib import Path

TESTS = Path(__file__).parent.parent
SETTINGS = """
[pytest]
timeout = 30
asyncio_default_fixture_loop_scope = function
"""


def make_project(folder: Path, tests: str) -> None:
    """Write these tests into a folder, with all that ``tests/conftest.py`` imports."""
    shutil.copytree(TESTS / "support", folder / "tests" / "support")
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    (folder / "test_file.py").write_text(tests, encoding="utf-8")
