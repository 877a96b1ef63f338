"""A wrong argument of the test kit is told where it is given, before anything is done."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

import asyncnotify.testing
from asyncnotify.testing.server import PostgresServer
from tests.support.docstrings import raised_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOT_FOR_USERS: Final = {
    "FakeServer.error_for_missing": "other parts of the library call it",
    "FakeServer.listening": "a Listener calls it",
    "FakeServer.log_sessions": "a Log calls it",
    "FakeServer.publishing": "a Notifier calls it",
    "FakeTransaction": "FakeServer.transaction() makes it",
    "FakeTransaction.append": "a Log calls it",
    "FakeTransaction.commit_here": "the fake server calls it",
    "FakeTransaction.cut": "the fake server calls it",
    "FakeTransaction.error_for_missing": "other parts of the library call it",
    "FakeTransaction.send": "the fake server calls it",
    "FakeTransaction.when_committed": "the fake server calls it",
    "Lookups": "dns_fails() and dns_hangs() make it",
    "PatternDetector": "FaultProxy.detect() and cut_on() make it",
    "PatternDetector.inspect": "the proxy calls it",
    "ProxiedConnection": "the proxy makes it",
    "ProxiedConnection.dial": "the proxy calls it",
    "Verdict": "judge() makes it",
}

RIGHT: Final[dict[str, Any]] = {
    "Collection[int]": (),
    "Direction": "to_client",
    "Iterable[int | GapMark]": (),
    "bool": True,
    "bytes": b"LISTEN",
    "float": 1.0,
    "int": 1,
    "str": "postgresql://db",
    "timedelta": timedelta(1),
}
"""What a parameter without a default is given while another one is wrong."""


class Other:
    """Of no type that any parameter has: not even to be hashed."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


def kit() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield what users call of the public modules: functions, classes, and their methods."""
    for found in pkgutil.iter_modules(asyncnotify.testing.__path__, "asyncnotify.testing."):
        if found.name.rpartition(".")[2].startswith("_"):
            continue
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield name, thing
            elif inspect.isclass(thing) and not issubclass(thing, BaseException):
                yield from of_class(name, thing)


def of_class(name: str, cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield a class, if it is made with arguments of ours, and its methods."""
    if is_ours(inspect.getattr_static(cls, "__init__")):
        yield name, cls
    for member in dir(cls):
        if not member.startswith("_") and is_ours(inspect.getattr_static(cls, member)):
            yield f"{name}.{member}", getattr(bare(cls), member)


def is_ours(value: object) -> bool:
    """Return whether it is a method that the kit defines."""
    function = getattr(value, "__func__", value)
    return inspect.isfunction(function) and function.__module__.startswith("asyncnotify.testing")


def bare(cls: type) -> Any:
    """Return an object with the methods of a class, and no state that a method could touch."""
    made: Any = type("Bare", (cls,), {"__del__": leave})
    return made.__new__(made)


def leave(_: object) -> None:
    """Do nothing when an object ends: an event loop would look at its state."""


def parameters(thing: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return those that do not take any object whatever."""
    found = inspect.signature(thing).parameters.values()
    return [parameter for parameter in found if parameter.annotation != "object"]


CALLABLES: Final = {name: thing for name, thing in kit() if parameters(thing)}


def wrong_values(annotation: str) -> Iterator[object]:
    """Yield what a parameter with this annotation must not be given."""
    yield Other()
    yield Other
    yield 5 if annotation.startswith("str") else "nonsense"
    if annotation.startswith(("int", "float")):
        yield True
        yield "5"
    if "None" not in annotation:
        yield None


def call(thing: Callable[..., Any], wrong: inspect.Parameter, value: object) -> None:
    """Call it with one wrong argument, as far as it runs without an event loop."""
    args: list[object] = []
    named: dict[str, object] = {}
    for parameter in parameters(thing):
        if parameter.name == wrong.name:
            given = value
        elif parameter.kind is parameter.VAR_POSITIONAL:
            continue
        elif parameter.default is not parameter.empty:
            given = parameter.default
        else:
            given = RIGHT[parameter.annotation]
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = given
        else:
            args.append(given)
    result = thing(*args, **named)
    if inspect.iscoroutine(result):
        with contextlib.closing(result):
            result.send(None)
    elif inspect.isgeneratorfunction(inspect.unwrap(thing)):  # runs when its context is entered
        with result:
            pass


def shortcoming(thing: Callable[..., Any], wrong: inspect.Parameter, value: object) -> str | None:
    """Return how a wrong argument is taken, unless it is refused as it has to be."""
    meant = wrong.name
    if wrong.kind is wrong.VAR_POSITIONAL:
        meant = meant.removesuffix("s")  # one of them is wrong
    try:
        call(thing, wrong, value)
    except (TypeError, ValueError) as error:
        if not re.search(rf"\b{meant}\b", str(error)):
            return f"does not name it: {error!r}"
        listed = {*raised_names(thing), *raised_names(getattr(thing, "__init__", None))}
        if not listed & {kind.__name__ for kind in type(error).__mro__}:
            return f"Raises: does not list {type(error).__name__}"
        return None
    except Exception as error:  # noqa: BLE001 - each is told
        return f"came so far: {error!r}"
    return "accepted"


@pytest.mark.parametrize("name", sorted(CALLABLES.keys() - NOT_FOR_USERS.keys()))
def test_r48_a_wrong_argument_is_named(name: str) -> None:
    """By a TypeError or ValueError that the docstring lists, before any state is looked at."""
    thing = CALLABLES[name]
    taken = [
        (parameter.name, value, told)
        for parameter in parameters(thing)
        for value in wrong_values(parameter.annotation)
        if (told := shortcoming(thing, parameter, value)) is not None
    ]
    assert taken == []


def test_r48_what_is_not_for_users_is_there() -> None:
    """An exception that is needed no more must not hide another method one day."""
    assert NOT_FOR_USERS.keys() <= CALLABLES.keys()


WRONG_ELEMENTS: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "hba": ("PostgresServer", {"hba": [5]}, "each line of hba must be a str"),
    "settings": ("PostgresServer", {"settings": {5: "x"}}, "each name in settings must be a str"),
    "published": ("judge", {"published": ["1"], "seen": []}, "each of published must be a whole"),
    "seen": ("judge", {"published": [1], "seen": [None]}, "each of seen must be a whole number"),
    "in_doubt": (
        "judge",
        {"published": [], "seen": [], "in_doubt": "1"},
        "each of in_doubt must be a whole number",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_ELEMENTS)
def test_r48_a_wrong_element_is_named(wrong: str) -> None:
    """With the argument that it is in."""
    name, arguments, told = WRONG_ELEMENTS[wrong]
    with pytest.raises((TypeError, ValueError), match=told):
        CALLABLES[name](**arguments)


IMPOSSIBLE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "payload too large": (
        "FakeServer.lose_on",
        {"payload": 9_000 * "x", "committed": True},
    ),
    "payload with NUL": (
        "FakeServer.lose_on",
        {"payload": "a\0", "channel": "orders", "committed": True},
    ),
    "user that is empty": ("PostgresServer", {"user": ""}),
    "user with NUL": ("PostgresServer", {"user": "a\0"}),
    "user with a lone surrogate": ("PostgresServer", {"user": "\udc80"}),
    "user too long": ("PostgresServer", {"user": 32 * "ä"}),
    "user of PostgreSQL's own": ("PostgresServer", {"user": "pg_read_all_data"}),
    "user of a DSN": ("PostgresServer.dsn_for", {"database": "shop", "user": ""}),
    "database of a DSN": ("PostgresServer.dsn_for", {"database": ""}),
    "port of a DSN": ("FaultProxy.for_dsn", {"dsn": "postgresql://db:abc/shop"}),
    "port in the query of a DSN": ("FaultProxy.for_dsn", {"dsn": "postgresql:///?host=db&port=x"}),
}
"""What is of the right type, and still nothing that PostgreSQL could have."""


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_r48_what_postgresql_cannot_have_is_named(case: str) -> None:
    """A test that waited for it would wait for ever."""
    name, arguments = IMPOSSIBLE[case]
    named = case.partition(" ")[0]
    thing = PostgresServer().dsn_for if name == "PostgresServer.dsn_for" else CALLABLES[name]
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        thing(**arguments)


WRONG_FUNCTIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "FakeServer.refuse_notifications": ("error_for", {}),
    "FaultProxy.cut_after": ("then", {"size": 1}),
    "FaultProxy.cut_on": ("then", {"pattern": b"LISTEN"}),
    "FaultProxy.tap": ("tap", {}),
}


async def coroutine(*_: object) -> None:
    """Be awaited, by nobody."""


@pytest.mark.parametrize("name", WRONG_FUNCTIONS)
@pytest.mark.parametrize("function", [coroutine, lambda: None])
def test_r48_a_function_that_would_not_run_is_refused(
    name: str, function: Callable[..., object]
) -> None:
    """An async one would never be awaited, and one that takes less would raise when it is due."""
    parameter, needed = WRONG_FUNCTIONS[name]
    with pytest.raises(TypeError, match=rf"\b{parameter}\b"):
        CALLABLES[name](**needed, **{parameter: function})


@pytest.mark.parametrize("name", ["FaultProxy.cut_after", "FaultProxy.cut_on"])
def test_r48_what_a_cut_can_do_is_listed(name: str) -> None:
    """A ValueError says which names there are."""
    _, needed = WRONG_FUNCTIONS[name]
    with pytest.raises(ValueError, match="one of reset, fin, half_close, pause, black_hole, not"):
        CALLABLES[name](**needed, then="rst")
