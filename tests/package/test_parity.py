"""That the classes for threads are those for asyncio, without ``await``."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import asyncnotify
from tests.support.docstrings import raised_names

PAIRS = {
    name: (getattr(asyncnotify, name), getattr(asyncnotify, f"Blocking{name}"))
    for name in ["Listener", "Notifier", "Stream", "Subscription", "EventStream"]
}
SPELLED: dict[str, str] = {"aclose": "close", "StopAsyncIteration": "StopIteration"} | {
    f"__a{n}__": f"__{n}__" for n in ["enter", "exit", "iter", "next"]
}
DIFFERENT = {
    "Stream.batches": "what is fetched from the event loop at once are batches already",
    "Stream.get": "in asyncio anext() within asyncio.timeout() does the same",
    "EventStream.get": "in asyncio anext() within asyncio.timeout() does the same",
    "Listener.listen(in_thread)": "the handlers of a BlockingListener always run in threads",
    "Listener.on(in_thread)": "the handlers of a BlockingListener always run in threads",
    "Notifier.__init__(pool)": "a pool belongs to an event loop, which is not the notifier's own",
}


def members(cls: type) -> dict[str, Any]:
    """Return what users may call or read of a class, under the names of the blocking classes."""
    return {
        SPELLED.get(name, name): getattr(value, "__func__", value)
        for part in reversed(cls.__mro__)
        if part.__module__.startswith("asyncnotify")
        for name, value in vars(part).items()
        if name in {"__init__", *SPELLED, *SPELLED.values()} or not name.startswith("_")
    }


def raises(function: object) -> set[str]:
    """Return the exceptions that a docstring lists."""
    return {SPELLED.get(name, name) for name in raised_names(function)}


def parameters(function: Any) -> dict[str, tuple[Any, Any]]:
    """Return the kind and the default of each parameter, in their order."""
    found = inspect.signature(function).parameters
    return {name: (parameter.kind, parameter.default) for name, parameter in found.items()}


@pytest.mark.parametrize("name", PAIRS)
def test_both_faces_are_the_same(name: str) -> None:
    """Same members, with the same parameters, which raise the same; what differs has a reason."""
    ours, theirs = map(members, PAIRS[name])
    internal = set() if name in {"Listener", "Notifier"} else {"__init__"}  # users call no other
    found = {f"{name}.{member}" for member in (ours.keys() ^ theirs.keys()) - internal}
    for member in (ours.keys() & theirs.keys()) - internal:
        where, one, other = f"{name}.{member}", ours[member], theirs[member]
        assert isinstance(one, property) == isinstance(other, property), where
        if callable(one):
            missing = parameters(one).keys() ^ parameters(other).keys()
            found |= {f"{where}({parameter})" for parameter in missing}
            common = [n for n in parameters(one).items() if n[0] not in missing]
            assert common == [n for n in parameters(other).items() if n[0] not in missing], where
        found |= {f"{where} raises {error}" for error in raises(one) ^ raises(other)}
    assert found == {entry for entry in DIFFERENT if entry.startswith(f"{name}.")}
