from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from typing import TYPE_CHECKING, Any

import pytest

import asyncnotify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

NEEDS_MORE = {
    "asyncnotify.cli": "imports what its commands need when they run",
    "asyncnotify.ext.django": "wants settings of Django",
    "asyncnotify.testing.plugin": "is of pytest",
    "asyncnotify.triggers.alembic": "its bases, which are Alembic's, cannot be read",
}
"""What is left out, and why."""


NO_VALUES = ("sources.", "log.sources.", "testing.")
"""Modules whose classes nobody stores or sends: they are for other sources, and for tests."""


def public_modules() -> Iterator[ModuleType]:
    """Yield every module that users import, of those whose libraries are installed."""
    yield asyncnotify
    for found in pkgutil.walk_packages(asyncnotify.__path__, "asyncnotify."):
        is_private = any(part.startswith("_") for part in found.name.split("."))
        if is_private or found.name.startswith(tuple(NEEDS_MORE)):
            continue
        try:
            yield importlib.import_module(found.name)
        except ImportError:
            continue


PUBLIC = {
    f"{module.__name__}.{name}".removeprefix("asyncnotify."): getattr(module, name)
    for module in public_modules()
    for name in getattr(module, "__all__", ())
}
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}


def functions_of(cls: type) -> Iterator[Callable[..., object]]:
    """Yield each public or special method, its overloads, and the getter of each property."""
    for name, value in vars(cls).items():
        if name.startswith("_") and not name.startswith("__"):
            continue
        if name == "__new__" and hasattr(cls, "_fields"):
            continue  # Python makes it: its annotations are those of the class, once read
        function = value.fget if isinstance(value, property) else value
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function):
            yield function
            yield from typing.get_overloads(function)


FUNCTIONS = [
    *(
        pytest.param(function, id=f"{name}.{function.__name__}")
        for name, cls in CLASSES.items()
        for function in functions_of(cls)
    ),
    *(
        pytest.param(function, id=name)
        for name, thing in PUBLIC.items()
        if inspect.isfunction(thing)
        for function in (thing, *typing.get_overloads(thing))
    ),
]


@pytest.mark.parametrize("name", CLASSES)
def test_the_annotations_of_every_public_class_can_be_read(name: str) -> None:
    """By the name under which users know the class, which is not where it is defined."""
    typing.get_type_hints(CLASSES[name])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_annotations_of_every_public_function_can_be_read(
    function: Callable[..., object],
) -> None:
    """So dependency injectors, validators and documentation tools take them."""
    typing.get_type_hints(function)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_names_the_module_that_users_import_it_from(name: str) -> None:
    """In tracebacks, pickles and docs."""
    cls = CLASSES[name]
    assert not any(part.startswith("_") for part in cls.__module__.split("."))
    assert getattr(importlib.import_module(cls.__module__), cls.__name__) is cls


def test_there_is_something_to_be_read() -> None:
    """Methods, properties, overloads and constructors are among what is looked at."""
    ids = [str(param.id) for param in FUNCTIONS]
    assert {"Listener.__init__", "Listener.state", "Listener.from_sqlalchemy"} <= set(ids)
    assert {"Channel.encode", "BlockingStream.get", "Gap.__init__"} <= set(ids)
    assert ids.count("Listener.stream") > 6
    assert {"log.Log.__init__", "triggers.Table.install", "testing.server.PostgresServer.log"} <= {
        *ids
    }


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, cls in CLASSES.items()
        if dataclasses.is_dataclass(cls) and not name.startswith(NO_VALUES)
    ],
)
def test_the_values_annotations_are_types(name: str) -> None:
    """Not texts: some tools look at `__annotations__` as they are."""
    hints: dict[str, Any] = getattr(CLASSES[name], "__annotations__", {})
    assert not [hint for hint in hints.values() if isinstance(hint, str)]
