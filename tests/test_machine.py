"""Time limits fit the machine: they are scaled by one factor, which is measured once and shown."""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncnotify import BlockingListener, Listener
from tests.support import machine
from tests.support.machine import MOST, VARIABLE, described, scaled, share, slowness
from tests.support.server_time import OPTIONS, has_server, scale_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT = 40.0
TESTS = Path(__file__).parent
TIMELESS = ("unit", "properties", "typing")
"""What runs on a clock that jumps, or never."""

PLAYED = {
    "chaos/listening.py",
    "chaos/log/process.py",
    "chaos/other_program.py",
    "chaos/publishing.py",
    "support/server_programs.py",
}
"""What programs that faults befall give up after, and a download."""

WAITS = re.compile(
    r"asyncio\.(timeout|wait_for)|subprocess\.\w+|.*\.(communicate|join|result|wait)"
)
NEVER = 15.0
"""Seconds from which on such a limit is one that no test can meet, or that no test waits for."""

CLOCKS = re.compile(r"\b(monotonic|perf_counter|time)\(\)|\.(seconds|downtime)\b|time_of\(")
STANDS = 1.0
"""Seconds from which on a wait is for what has to come; a shorter one shows that it does not."""


def test_the_factor_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 1 at least; and what else runs later changes nothing of it."""
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.delenv(VARIABLE)
    factor = slowness()
    assert 1 <= factor <= MOST
    monkeypatch.setattr(machine, "_load", lambda: factor * 2)
    assert slowness() == factor
    assert scaled(LIMIT) == LIMIT * factor


def test_a_busy_machine_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many times as processes wait for each core; there is a bound."""
    monkeypatch.setenv(VARIABLE, "1")
    for load, factor in ((4.0, 4.0), (1_000.0, MOST)):
        monkeypatch.delenv(VARIABLE)
        monkeypatch.setattr(machine, "_measured", lambda: 1.5)
        monkeypatch.setattr(machine, "_load", lambda load=load: load)
        assert slowness() == factor
        assert described().startswith(f"time limits: {factor:g} times as long")


def test_the_factor_may_be_set_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """And child processes have the same."""
    monkeypatch.setenv(VARIABLE, "2.5")
    assert scaled(LIMIT) == 2.5 * LIMIT
    program = f"import os; print(os.environ[{VARIABLE!r}])"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert child.stdout.strip() == b"2.5"


def test_the_processes_of_the_run_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its share of the machine; but not where the factor was set by hand."""
    cores = os.cpu_count() or 1
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(machine, "_load", lambda: 1.0)
    for given, factor in ((False, 4.0), (True, 1.0)):
        monkeypatch.setenv(VARIABLE, "1")
        monkeypatch.setattr(machine, "_GIVEN", given)
        share(3 * cores)
        assert slowness() == factor


def test_defaults_are_scaled_where_there_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all classes alike, and for a test only: what says something of a default sees it as is."""
    monkeypatch.setenv(VARIABLE, "3")
    with monkeypatch.context() as during_a_test:
        scale_defaults(during_a_test)
        scaled_ones = [default_of(cls) for cls in (Listener, BlockingListener)]
    assert scaled_ones == [15.0] * 2
    assert default_of(Listener) == 5.0
    assert has_server(("faults", "test_refusals.py"))
    assert not has_server(("package", "test_parity.py"))


def default_of(cls: type[Listener | BlockingListener]) -> object:
    """Return how long a heartbeat may take by default."""
    return inspect.signature(cls).parameters["heartbeat_timeout"].default


def constants_of(module: ast.Module) -> dict[str, ast.expr]:
    """Return what each name of a module stands for."""
    found: dict[str, ast.expr] = {}
    for node in module.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                found[name] = value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                found |= {ast.unparse(n): v for n, v in zip(names, values, strict=True)}
            case _:
                pass
    return found


def number_of(expression: ast.expr, constants: Mapping[str, ast.expr]) -> float | None:
    """Return the number that an expression is on every machine; None where it is not."""
    match expression:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Name(id=name) if name in constants:
            return number_of(constants[name], constants)
        case ast.BinOp(left=left, right=right):
            numbers = [number_of(side, constants) for side in (left, right)]
            return None if None in numbers else sum(filter(None, numbers))
        case _:
            return None


def options_in(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Return the options that a call, a dict or a function of its own gives, by their names."""
    match node:
        case ast.Call(keywords=words):
            return [(word.arg, word.value) for word in words if word.arg]
        case ast.Dict(keys=keys, values=values):
            names = [key.value if isinstance(key, ast.Constant) else "" for key in keys]
            return [(str(name), value) for name, value in zip(names, values, strict=True)]
        case ast.arguments(kwonlyargs=arguments, kw_defaults=defaults):
            given = zip(arguments, defaults, strict=True)
            return [(argument.arg, value) for argument, value in given if value is not None]
        case _:
            return []


def unscaled_options(source: str) -> list[str]:
    """Return the options of asyncnotify in a module that give a server the same time everywhere."""
    module = ast.parse(source)
    constants, found = constants_of(module), []
    for name, value in itertools.chain.from_iterable(map(options_in, ast.walk(module))):
        number = number_of(value, constants) if name in OPTIONS else None
        if number is not None and 0 < number < NEVER:
            found.append(f"{value.lineno}: {name}={ast.unparse(value)}")
    return found


def unscaled(source: str) -> list[str]:
    """Return the time limits of a module that are the same on every machine."""
    module = ast.parse(source)
    constants, found = constants_of(module), []
    for node in ast.walk(module):
        match node:
            case ast.Call(func=function) if WAITS.fullmatch(ast.unparse(function)):
                given = [word.value for word in node.keywords if word.arg == "timeout"]
                numbers = [number_of(each, constants) for each in given or node.args[-1:]]
                wrong = any(number is not None and number >= STANDS for number in numbers)
            case ast.Compare(ops=[*_, ast.Lt() | ast.LtE()]) if CLOCKS.search(ast.unparse(node)):
                wrong = number_of(node.comparators[-1], constants) is not None
            case _:
                wrong = False
        if wrong and isinstance(node, ast.expr):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def modules() -> Iterator[tuple[Path, str]]:
    """Yield the modules in which time passes, and their sources."""
    for path in sorted(TESTS.rglob("*.py")):
        relative = path.relative_to(TESTS)
        if relative.parts[0] not in TIMELESS and relative.as_posix() not in PLAYED:
            yield relative, path.read_text("utf-8")


def test_each_limit_is_scaled() -> None:
    """In all tests: how long something may take, and how long is waited for what has to come."""
    assert [f"{path}:{limit}" for path, source in modules() for limit in unscaled(source)] == []


def test_each_option_gives_the_server_time() -> None:
    """
    Also one that expires on purpose: what comes before and after the fault has to be in time.

    Nor does a test know why a limit has expired, if that is 50 ms and the machine is busy.
    """
    found = [
        f"{path}:{option}" for path, source in modules() for option in unscaled_options(source)
    ]
    assert found == []


@pytest.mark.parametrize(
    "wrong",
    [
        "Listener(dsn, connect_timeout=0.1)",
        "LIMITS = {'heartbeat_timeout': 0.2}",
        "notifier_of(dsn, operation_timeout=SHORT)",
        "def new(*, start_timeout=SHORT): ...",
    ],
)
def test_an_option_that_is_not_scaled_is_found(wrong: str) -> None:
    """In a call, among options that are kept, and as a default."""
    program = f"SHORT = 0.3\n{wrong}"
    assert len(unscaled_options(program)) == 1
    assert unscaled_options(re.sub(r"\b(0\.\d)\b", r"scaled(\1)", program)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "async with asyncio.timeout(20): ...",
        "await asyncio.wait_for(told, timeout=5)",
        "thread.join(20)",
        "subprocess.run([], timeout=WAIT)",
        "assert time.monotonic() - began < 0.2 + WAIT",
    ],
)
def test_a_limit_that_is_not_scaled_is_found(wrong: str) -> None:
    """A number, a name for one, or a sum; as soon as a part of it is scaled, it fits."""
    program = "WAIT = {}\nasync def test():\n    {}"
    assert len(unscaled(program.format("3.0", wrong))) == 1
    scaled_one = re.sub(r"\b(20|5|0\.2)\b", r"scaled(\1)", wrong)
    assert unscaled(program.format("scaled(3.0)", scaled_one)) == []


def test_the_limit_of_each_test_is_scaled(request: pytest.FixtureRequest) -> None:
    """The one that pytest-timeout keeps, too."""
    marker = request.node.get_closest_marker("timeout")
    assert marker.args == (scaled(float(request.config.getini("timeout"))),)
