"""What users are told who have not installed what an integration needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(sys.modules["asyncnotify"].__path__[0])
ROOT: Final = Path(__file__).parents[2]

NEEDS: Final = {
    "aiohttp": ("aiohttp", "aiohttp"),
    "django": ("django", "django"),
    "fastapi": ("fastapi", "fastapi"),
    "litestar": ("litestar", "litestar"),
    "opentelemetry": ("opentelemetry", "otel"),
    "prometheus": ("prometheus_client", "prometheus"),
    "starlette": ("starlette", "starlette"),
}
"""By module: what it needs, and the extra that installs that."""

WITHOUT_NEEDS: Final = {"fanout", "reporting", "shutdown"}

IMPORT: Final = """
import sys

sys.path.insert(0, sys.argv[1])
sys.modules[sys.argv[2]] = None  # as if it were not installed
try:
    __import__(sys.argv[3])
except ImportError as error:
    print(error)
"""


def test_the_tables_know_every_integration() -> None:
    """So that a new one is not forgotten below."""
    found = {path.stem for path in (PACKAGE / "ext").iterdir() if not path.name.startswith("_")}
    assert found == NEEDS.keys() | WITHOUT_NEEDS


@pytest.mark.parametrize("module", NEEDS)
def test_what_is_missing_is_told_in_one_line_with_its_cure(module: str) -> None:
    """By an ImportError that names the extra, and an extra that there is."""
    needed, extra = NEEDS[module]
    command = [sys.executable, "-c", IMPORT, str(PACKAGE.parent), needed]
    run = subprocess.run(
        [*command, f"asyncnotify.ext.{module}"], capture_output=True, text=True, check=True
    )
    (line,) = run.stdout.splitlines()
    assert line.startswith(f"asyncnotify.ext.{module} needs ")
    assert line.endswith(f": pip install 'asyncnotify-pg[{extra}]'")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("module", sorted(WITHOUT_NEEDS))
def test_the_others_need_nothing_but_the_package(module: str) -> None:
    """None of them imports a framework."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2])\n"
        "print([name for name in sys.argv[3:] if name in sys.modules])"
    )
    frameworks = [needed for needed, _ in NEEDS.values()]
    command = [sys.executable, "-c", code, str(PACKAGE.parent), f"asyncnotify.ext.{module}"]
    run = subprocess.run([*command, *frameworks], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


OPTIONAL: Final = (
    *("aiohttp", "alembic", "django", "fastapi", "litestar", "msgspec", "opentelemetry"),
    *("prometheus_client", "psycopg", "pydantic", "rich", "sqlalchemy", "starlette", "typer"),
)
OF_EXTRAS: Final = (
    *(f"asyncnotify.ext.{module}" for module in NEEDS),
    *("asyncnotify.__main__", "asyncnotify.cli", "asyncnotify.doctor.printing"),
    *("asyncnotify.testing.plugin", "asyncnotify.top.screen", "asyncnotify.triggers.alembic"),
)
IMPORT_ALL: Final = """
import importlib, pkgutil, sys

sys.path.insert(0, sys.argv[1])
for name in sys.argv[2].split():
    sys.modules[name] = None  # as if it were not installed
import asyncnotify

left_out = tuple(sys.argv[3].split())
for found in pkgutil.walk_packages(asyncnotify.__path__, "asyncnotify.", onerror=lambda _: None):
    is_private = any(part.startswith("_") for part in found.name.split("."))
    if not is_private and not found.name.startswith(left_out):
        importlib.import_module(found.name)
        print(found.name)
"""


def test_every_module_that_is_of_no_extra_needs_none() -> None:
    """Annotations that can be read at run time import no more than what is installed."""
    command = [sys.executable, "-c", IMPORT_ALL, str(PACKAGE.parent)]
    run = subprocess.run(
        [*command, " ".join(OPTIONAL), " ".join(OF_EXTRAS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert {"asyncnotify.log", "asyncnotify.top", "asyncnotify.testing.fake"} <= {
        *run.stdout.splitlines()
    }
