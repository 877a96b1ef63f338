"""Below what tracing agents replace; or publicly, where the driver is not as it was."""

from __future__ import annotations

import functools
import inspect
import sys
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from wrapt import ObjectProxy

from asyncnotify._asyncpg import untraced
from tests.unit.fake_connection import FakeConnection


def test_wrappers_are_looked_through() -> None:
    """Also one around another; a thing without a wrapper stands for itself."""
    thing = FakeConnection()
    assert untraced.unwrapped(ObjectProxy(ObjectProxy(thing))) is thing
    assert untraced.unwrapped(thing) is thing
    assert untraced.unwrapped(None) is None


def test_a_function_with_the_mark_of_a_wrapper_is_none() -> None:
    """Only the class of a thing says so: an instance may have any attribute, and a mock has all."""

    @functools.wraps(test_wrappers_are_looked_through)
    def function() -> None:
        pass

    assert untraced.unwrapped(function) is function


def test_wrappers_without_an_end_are_given_up() -> None:
    """Something whose wrapper leads to itself does not hang the program."""

    class Endless:
        __wrapped__: Any = None

    endless = Endless()
    endless.__wrapped__ = endless
    assert untraced.unwrapped(endless) is endless


# -- what asyncpg does not promise ----------------------------------------------------------------


def test_the_compiled_class_is_there() -> None:
    """If this fails, asyncpg has changed: agents note what is ours, and all else works."""
    compiled = untraced.compiled_protocol()
    assert compiled is not None
    assert issubclass(asyncpg.protocol.Protocol, compiled)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("_get_statement", ["query", "timeout"]),
        ("_do_execute", ["query", "executor", "timeout"]),
        ("_execute", ["query", "args", "limit", "timeout"]),
    ],
)
def test_the_methods_that_take_no_custom_codec_are_there(name: str, first: list[str]) -> None:
    """If this fails, asyncpg has changed: codecs of the caller's reach what is ours."""
    parameters = list(inspect.signature(getattr(asyncpg.Connection, name)).parameters)
    assert parameters[1 : 1 + len(first)] == first
    assert {"ignore_custom_codec", "record_class"} <= set(parameters)


async def without_timeout(self: object, query: str) -> None:
    """Take less than the method does."""


async def with_limit(self: object, query: str, limit: int) -> None:
    """Take something else."""


@pytest.mark.parametrize("query", [None, "no function", without_timeout, with_limit])
def test_a_compiled_class_that_has_changed_is_noticed(
    monkeypatch: pytest.MonkeyPatch, query: object
) -> None:
    """Then it is not used; nor if it is gone."""
    compiled = untraced.compiled_protocol()
    changed = SimpleNamespace(query=query, bind_execute=compiled.bind_execute)
    module: Any = asyncpg.protocol
    monkeypatch.setattr(module, "protocol", SimpleNamespace(BaseProtocol=changed))
    assert untraced.compiled_protocol() is None
    monkeypatch.setattr(module, "protocol", None)
    assert untraced.compiled_protocol() is None


# -- the public way -------------------------------------------------------------------------------


async def test_a_connection_whose_protocol_is_not_known_is_used_publicly() -> None:
    """By execute() and prepare(), as documented, and by what fetch() calls."""
    connection = FakeConnection()
    assert await untraced.execute(connection, "SELECT 1") == "SELECT 1"
    fetch = await untraced.prepare(connection, "SELECT 2", "name")
    await fetch()
    await untraced.fetch(connection, "SELECT 3")
    assert connection.statements == ["SELECT 1", "SELECT 2", "SELECT 3"]


async def test_a_connection_that_only_fetches_is_asked_for_rows() -> None:
    """One that is none of the driver's has nothing below fetch()."""
    asked: list[tuple[object, ...]] = []

    class Other:
        async def fetch(self, *arguments: object) -> list[str]:
            asked.append(arguments)
            return ["row"]

    assert await untraced.fetch(Other(), "SELECT $1", 1) == ["row"]
    assert asked == [("SELECT $1", 1)]


@pytest.mark.parametrize("sent", [False, True])
async def test_an_error_before_the_server_has_had_the_query_is_marked(
    monkeypatch: pytest.MonkeyPatch, *, sent: bool
) -> None:
    """What failed on the way may be asked again; not what the server may have had."""
    error = asyncpg.ConnectionDoesNotExistError("gone")

    class Known:
        """The compiled class of the driver's protocol."""

    class Connection(asyncpg.Connection):
        def __init__(self) -> None:
            """Have a protocol, and no transport."""
            self._protocol = Known()

        def __del__(self) -> None:
            """Warn of nothing."""

        async def _do_execute(self, query: str, executor: Any, *_: object, **__: object) -> Any:
            if sent:
                await executor(None, None)
            raise error

    async def bind_execute(*_: object) -> None:
        pass

    monkeypatch.setattr(Known, "bind_execute", bind_execute, raising=False)
    monkeypatch.setattr(untraced, "_COMPILED", Known)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await untraced.fetch(Connection(), "SELECT 1")
    assert hasattr(error, "_asyncnotify_unsent") is not sent


async def test_whoever_connects_in_place_of_asyncpg_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A function of the program's own is no wrapper: it may know better how to connect."""
    asked: list[dict[str, Any]] = []

    async def connect(**arguments: Any) -> object:
        asked.append(arguments)
        return None

    monkeypatch.setattr(asyncpg, "connect", connect)
    await untraced.connect(host="db")
    assert asked == [{"host": "db"}]


# -- what others do for us ------------------------------------------------------------------------

CURRENT: ContextVar[dict[str, object]] = ContextVar("current")


def set_value(key: str, *, value: object) -> dict[str, object]:
    """Stand for OpenTelemetry: return what is to be attached."""
    return {key: value}


def test_r50_opentelemetry_notes_nothing_in_a_context_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own mark stands there, and not in the context of the caller."""
    module = SimpleNamespace(set_value=set_value, attach=CURRENT.set)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", module)
    context = untraced.context()
    assert context[CURRENT] == {"suppress_instrumentation": True}
    assert CURRENT not in copy_context()


def test_without_opentelemetry_the_context_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to be told."""
    monkeypatch.delitem(sys.modules, "opentelemetry.context", raising=False)
    assert untraced.context() == copy_context()
