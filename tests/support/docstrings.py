"""What docstrings say, so that tests can hold them against what happens."""

from __future__ import annotations

import builtins
import inspect
import re
from typing import TYPE_CHECKING, Any

import asyncnotify

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTION = re.compile(r"^Raises:\n((?: .*\n|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+):", re.MULTILINE)


def raised_names(thing: object) -> list[str]:
    """Return the names under `Raises:` in the docstring of a function, method or class."""
    section = _SECTION.search((inspect.getdoc(thing) or "") + "\n")
    return _ENTRY.findall(section[1]) if section else []


def exception_named(name: str) -> type[BaseException] | None:
    """Return the exception that users know by this name: a public one, or one of Python's own."""
    found = getattr(asyncnotify, name, None) or getattr(builtins, name, None)
    is_exception = isinstance(found, type) and issubclass(found, BaseException)
    return found if is_exception else None


def raised_by(thing: object) -> tuple[type[BaseException], ...]:
    """Return the exceptions under `Raises:`, without Exception, which would name every one."""
    found = map(exception_named, raised_names(thing))
    return tuple(error for error in found if error is not None and error is not Exception)


def public_callables() -> Iterator[tuple[str, Any]]:
    """Yield each public class, and each of its methods that users call, under its name."""
    for name in asyncnotify.__all__:
        cls = getattr(asyncnotify, name)
        if not inspect.isclass(cls):
            continue
        yield name, cls
        for member, value in vars(cls).items():
            function = getattr(value, "__func__", value)
            if inspect.isfunction(function) and _is_for_users(member):
                yield f"{name}.{member}", function


def _is_for_users(member: str) -> bool:
    special = {f"__{prefix}{verb}__" for prefix in ("", "a") for verb in ("enter", "exit", "next")}
    return not member.startswith("_") or member in special
