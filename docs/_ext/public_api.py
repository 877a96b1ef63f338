"""
What is public in a package, and what its docstrings must say.

A module is public if no part of its path begins with an underscore and it has ``__all__``. The
names in ``__all__`` are public, and the members of public classes that have no underscore, those
included that a class has from a private base class.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import FunctionType, ModuleType

RAISES = re.compile(r"^Raises:\n +\S|\b[Rr]aises nothing\b", re.MULTILINE)
ARGUMENTS = re.compile(r"^Args:\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PublicName:
    """
    Something that users may name.

    Attributes:
        module: The module that has it in ``__all__``.
        path: The name in the module; that of a member with the name of its class and a dot.
        value: What the name means; of a method the function.
    """

    module: str
    path: str
    value: Any

    @property
    def full(self) -> str:
        """The name with its module."""
        return f"{self.module}.{self.path}"


def modules_of(package: str, excluded: Collection[str] = ()) -> Iterator[ModuleType]:
    """
    Yield the public modules of a package.

    Args:
        package: The name of the package.
        excluded: Modules that are left out, with all that is below them.

    Raises:
        ImportError: A module needs something that is not installed.
    """
    root = importlib.import_module(package)
    if hasattr(root, "__all__"):
        yield root
    for found in pkgutil.iter_modules(root.__path__, f"{package}."):
        name = found.name
        if name.rpartition(".")[2].startswith("_") or name in excluded:
            continue
        if found.ispkg:
            yield from modules_of(name, excluded)
        elif hasattr(module := importlib.import_module(name), "__all__"):
            yield module


def names_in(module: ModuleType) -> Iterator[PublicName]:
    """Yield the public names of a module, those of members behind the one of their class."""
    for name in module.__all__:
        value = getattr(module, name)
        yield PublicName(module.__name__, name, value)
        if isinstance(value, type):
            for member, function in members_of(value):
                yield PublicName(module.__name__, f"{name}.{member}", function)


def members_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the methods and properties of a class that users call, in the order of the source."""
    package = cls.__module__.partition(".")[0]
    seen: set[str] = set()
    for base in cls.__mro__:
        if not is_part(base, cls, package):
            continue
        for name, value in vars(base).items():
            function = getattr(value, "__func__", value)
            if name.startswith("_") or name in seen or not _is_member(function):
                continue
            seen.add(name)
            yield name, function


def is_part(base: type, cls: type, package: str) -> bool:
    """Return whether the members of a base class are described with a class of the package."""
    if base is cls:
        return True
    parts = base.__module__.split(".")
    return parts[0] == package and any(part.startswith("_") for part in parts)


def _is_member(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, property)


def docstring_of(value: object) -> str:
    """
    Return the docstring that something has itself, or the empty string.

    Of a function the one in its source: Alembic puts a text of its own in the place of that.
    """
    if inspect.isfunction(value):
        return _docstring_in_source(value)
    own = value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__
    return inspect.cleandoc(own) if isinstance(own, str) else ""


def _docstring_in_source(function: FunctionType) -> str:
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    match ast.parse(source).body[0]:
        case ast.FunctionDef() | ast.AsyncFunctionDef() as node:
            return ast.get_docstring(node) or ""
        case _:
            return ""


def is_constant(value: object) -> bool:
    """Return whether this is a constant, or an alias of types: its text stands in the source."""
    return not (inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, property))


def can_raise(name: PublicName) -> bool:
    """
    Return whether a docstring has to say what is raised.

    It has to for what takes arguments, and for what can be awaited. Of a class it has to if the
    docstring describes arguments: the others are not for users to make.
    """
    value = name.value
    if inspect.isclass(value):
        return bool(ARGUMENTS.search(docstring_of(value)))
    if not inspect.isroutine(value):
        return False
    names = [p for p in inspect.signature(value).parameters if p not in {"self", "cls"}]
    return bool(names) or inspect.iscoroutinefunction(value)


def problems_of(name: PublicName) -> Iterator[str]:
    """Yield what the docstring of a public name lacks."""
    if is_constant(name.value):
        return
    docstring = docstring_of(name.value)
    if not docstring:
        yield f"{name.full} has no docstring"
    elif can_raise(name) and not RAISES.search(docstring):
        yield f'{name.full} says neither "Raises:" nor "Raises nothing"'
