"""Arguments are checked when a Table is made."""

from __future__ import annotations

from typing import Any

import pytest

from asyncnotify import AsyncNotifyError, Channel, ChannelNameError
from asyncnotify.log import Log, LogNameError
from asyncnotify.triggers import DefinitionError, LockTimeoutError, Table

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": 7}, TypeError, "name must be a str"),
    ({"name": ""}, DefinitionError, "name must be a table"),
    ({"name": "a.b.c"}, DefinitionError, "name must be a table"),
    ({"name": "a."}, DefinitionError, "name must be a table"),
    ({"name": ".a"}, DefinitionError, "name must be a table"),
    ({"name": '"a'}, DefinitionError, "name must be a table"),
    ({"name": 'a."b"c'}, DefinitionError, "name must be a table"),
    ({"name": "x" * 64}, DefinitionError, "64 bytes"),
    ({"name": "é" * 32}, DefinitionError, "64 bytes"),
    ({"name": "a\0b"}, DefinitionError, "NUL"),
    ({"name": "a\ud800"}, DefinitionError, "surrogate"),
    ({"key": ()}, DefinitionError, "at least one column"),
    ({"key": ("id", "id")}, DefinitionError, "twice"),
    ({"key": 7}, TypeError, "key must be a column"),
    ({"key": (7,)}, TypeError, "key must name columns by str"),
    ({"key": b"id"}, TypeError, "key must be a column"),
    ({"watch": ("",)}, DefinitionError, "0 bytes"),
    ({"payload": None}, TypeError, "payload must be a column"),
    ({"when": 7}, TypeError, "when must be a condition"),
    ({"when": " "}, DefinitionError, "when must be a condition"),
    ({"channel": Channel("x")}, TypeError, "must be the name"),
    ({"channel": "x" * 64}, ChannelNameError, "64 bytes"),
    ({"channel": 7}, ChannelNameError, "int"),
    ({"level": "table"}, DefinitionError, "level must be one of"),
    ({"operations": "insert"}, TypeError, "operations"),
    ({"operations": ()}, DefinitionError, "at least one operation"),
    ({"operations": ["select"]}, DefinitionError, "operations must be one of"),
    ({"max_notifications": 0}, ValueError, "max_notifications"),
    ({"max_notifications": True}, ValueError, "max_notifications"),
    ({"max_notifications": 10_001}, DefinitionError, "10,000"),
    ({"to": "redis"}, DefinitionError, "to must be one of"),
    ({"log": "x"}, DefinitionError, "needs to='log'"),
    ({"to": "log"}, TypeError, "log must be a Log"),
    ({"to": "log", "log": "Not A Log"}, LogNameError, "Not A Log"),
    ({"types": {"other": int}}, DefinitionError, "'other'"),
    ({"types": {"id": 7}}, TypeError, "must be callable"),
    ({"types": [int]}, TypeError, "must map columns"),
    ({"key": {"a", "b"}}, TypeError, "key must name columns in an order"),
    ({"payload": frozenset("ab")}, TypeError, "payload must name columns in an order"),
    ({"watch": {"a"}}, TypeError, "watch must name columns in an order"),
    ({"when": "new.s = '\ud800'"}, DefinitionError, "when has a lone surrogate"),
    ({"trigger": "x" * 41}, DefinitionError, "40 bytes"),
    ({"trigger": ""}, DefinitionError, "trigger"),
]


@pytest.mark.parametrize(("options", "error", "text"), WRONG)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """Each is refused with an error that names it, before any I/O."""
    arguments: dict[str, Any] = {"name": "t", "key": "id", **options}
    with pytest.raises(error, match=text):
        Table(**arguments)


@pytest.mark.parametrize(
    ("name", "quoted", "channel"),
    [
        ("orders", '"public"."orders"', "orders"),
        ("shop.Orders", '"shop"."Orders"', "shop.Orders"),
        ('shop."odd.name"', '"shop"."odd.name"', "shop.odd.name"),
        ('"we""ird".we"ird', '"we""ird"."we""ird"', 'we"ird.we"ird'),
        (" .x", '" "."x"', " .x"),
    ],
)
def test_names(name: str, quoted: str, channel: str) -> None:
    """A name is as the catalog has it; a channel is called as its table."""
    table = Table(name, key="id")
    assert (table.name, table.changes.name) == (quoted, channel)
    assert repr(table) == f"<Table {quoted} on channel {channel!r}>"


def test_no_two_tables_have_one_function() -> None:
    """Wherever the prefix ends and the name of the table begins: installing would take it away."""
    prefixes = (None, "a", "a_b", "asyncnotify_log", "x" * 39, "x" * 38 + "_")
    names = ("c", "b_c", "a_b_c", "log_c", "asyncnotify_log_c", "_" + "x" * 60, "x" * 62)
    functions = [
        Table(name, key="id", trigger=trigger).definition.qualified_function
        for name in names
        for trigger in prefixes
    ]
    assert len(set(functions)) == len(functions)


def test_columns_come_once_and_the_key_first() -> None:
    """Also where payload= names a column of the key."""
    table = Table("t", key=["b", "a"], payload=iter(["c", "a"]))
    assert table.columns == ("b", "a", "c")


def test_a_log_may_be_given_as_such() -> None:
    """By its name or as the object, the SQL is the same."""
    by_name = Table("t", key="id", to="log", log="things")
    assert Table("t", key="id", to="log", log=Log("things")).statements() == by_name.statements()
    assert "asyncnotify.things_append" in "".join(by_name.statements())


def test_each_option_makes_other_sql() -> None:
    """So that a fingerprint shows every change of what is installed."""
    base: dict[str, Any] = {"key": "id"}
    options: list[dict[str, Any]] = [
        base,
        {"key": "other"},
        {"watch": "v"},
        {"when": "new.v > 0"},
        {"channel": "c"},
        {"payload": "v"},
        {"level": "row"},
        {"operations": ["insert"]},
        {"max_notifications": 17},
        {"to": "log", "log": "things"},
    ]
    made = [Table("t", **(base | some)).fingerprint for some in options]
    assert len(set(made)) == len(made)
    assert Table("t", key="id").fingerprint == made[0]


def test_errors_speak() -> None:
    """Their texts name what is meant, and all of them have the root of asyncnotify's."""
    error = LockTimeoutError('"a"."b"', 1.5)
    assert str(error).startswith('no lock on table "a"."b" within 1.5 s')
    assert isinstance(error, AsyncNotifyError | TimeoutError)
