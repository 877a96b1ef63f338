from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType

import pytest

import asyncnotify
import asyncnotify.lock
import asyncnotify.log
from asyncnotify._owner import OfOneProcess

WHAT_AN_IMPORT_LOADS = """
import sys
before = set(sys.modules)
import asyncnotify
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""

DEPENDENCIES = {"anyio", "asyncpg"}


def test_all_names_the_public_api_sorted_and_nothing_else() -> None:
    """What has no underscore and is no module is public, and is listed."""
    public = [
        name
        for name, value in vars(asyncnotify).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert asyncnotify.__all__ == sorted(public)


def test_everything_public_has_a_docstring() -> None:
    """So have the methods that users call."""
    for name in asyncnotify.__all__:
        thing = getattr(asyncnotify, name)
        if not inspect.isclass(thing):
            continue  # an alias of types
        assert inspect.getdoc(thing), name
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and callable(value):
                assert inspect.getdoc(value), f"{name}.{attribute}"


VALUES = {"Batches", "Channel", "ExponentialBackoff", "Event", "Position", "Retry", "Signal"}
"""Classes that hold neither connections nor tasks, or are gone through once."""


@pytest.mark.parametrize("module", [asyncnotify, asyncnotify.log, asyncnotify.lock])
def test_what_holds_a_connection_belongs_to_one_process(module: ModuleType) -> None:
    """A copy of it, or one in another process, would do nothing, or share a socket."""
    for name in module.__all__:
        cls = getattr(module, name)
        if inspect.isclass(cls) and not (
            issubclass(cls, BaseException | Enum | OfOneProcess)
            or dataclasses.is_dataclass(cls)
            or hasattr(cls, "_fields")
        ):
            assert name in VALUES, name


# Of dataclasses the fields are; of errors and enumerations other tests say so
MEMBERS: dict[str, set[str]] = {
    "Batches": set(),  # an iterator, and no more
    "BlockingEventStream": {"get"},
    "BlockingListener": {
        "add_middleware",
        "channels",
        "close",
        "end_streams",
        "events",
        "from_sqlalchemy",
        "health",
        "is_connected",
        "listen",
        "notify",
        "notify_many",
        "on",
        "start",
        "state",
        "stats",
        "stream",
        "unlisten",
        "wait_closed",
        "wait_connected",
    },
    "BlockingNotifier": {"close", "from_sqlalchemy", "notify", "notify_many", "start"},
    "BlockingStream": {"close", "get", "stats"},
    "BlockingSubscription": {"active", "cancel", "channel", "stats"},
    "Channel": {"decode", "encode", "name"},
    "EventStream": set(),
    "Listener": {
        "aclose",
        "add_middleware",
        "channels",
        "end_streams",
        "events",
        "from_sqlalchemy",
        "health",
        "is_connected",
        "listen",
        "notify",
        "notify_many",
        "on",
        "start",
        "state",
        "stats",
        "stream",
        "unlisten",
        "wait_closed",
        "wait_connected",
    },
    "Notification": {"channel", "context", "payload", "pid"},
    "Notifier": {"aclose", "from_sqlalchemy", "notify", "notify_many", "start"},
    "Stream": {"aclose", "batches", "stats"},
    "Subscription": {"active", "cancel", "channel", "stats"},
}


def test_the_public_members_of_each_class_are_those_that_users_need() -> None:
    """What only the other parts of asyncnotify call begins with an underscore."""
    found, expected = {}, {}
    for name in asyncnotify.__all__:
        cls = getattr(asyncnotify, name)
        if inspect.isclass(cls) and not issubclass(cls, BaseException | Enum):
            parts = [part for part in cls.__mro__ if part.__module__.startswith("asyncnotify")]
            members = {member for part in parts for member in vars(part)}
            found[name] = {member for member in members if not member.startswith("_")}
            fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
            expected[name] = MEMBERS.get(name, {field.name for field in fields})
    assert found == expected


def test_the_version_is_that_of_the_changelogs_newest_entry() -> None:
    """It can be read without the metadata of an installed package, which takes longer."""
    changelog = Path(__file__).parents[2].joinpath("CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest is not None
    assert asyncnotify.__version__ == newest[1]


def test_importing_it_is_light() -> None:
    """It loads the standard library and what it depends on: no extra, nothing of the tests."""
    command = [sys.executable, "-c", WHAT_AN_IMPORT_LOADS]
    loaded = set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert {"asyncnotify", "asyncpg"} <= loaded
    foreign = loaded - sys.stdlib_module_names - DEPENDENCIES - {"asyncnotify"}
    assert not {name for name in foreign if "cython" not in name}


def test_nothing_happens_at_import_time() -> None:
    """A listener can be made in a module: no event loop is needed, and none is made."""
    listener = asyncnotify.Listener("postgresql://joe:s3cret@db/app")
    assert repr(listener) == "<Listener joe@db/app new>"
    assert listener.stats() == asyncnotify.Stats()
    assert listener.channels == frozenset()
    assert not listener.is_connected
