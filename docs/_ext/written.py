"""
Annotations and defaults as they are written in the source, with public names for what they name.

What Python makes of an annotation is longer than what was written: an alias is replaced by what it
stands for, and a class has the name of the private module that defines it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, get_overloads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from public_api import PublicName

Parameters: TypeAlias = Mapping[str, inspect.Parameter]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
VARIABLE = re.compile(r"(\w+T|T|P|R)(_co|_contra)?")
"""How type variables are named."""

LONGEST = 60
"""Characters of a default."""

TOO_MUCH = (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.Lambda)
MANAGERS = {"Generator": "AbstractContextManager", "AsyncGenerator": "AbstractAsyncContextManager"}


@cache
def module_tree(module: str) -> ast.Module:
    """Return the syntax of a module's source."""
    return ast.parse(inspect.getsource(sys.modules[module]))


@cache
def imports_of(module: str) -> Mapping[str, tuple[str, str]]:
    """Return where each imported name of a module is from, also of those for type checkers only."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(module_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return found


def definition_of(module: str, name: str) -> tuple[str, ast.expr, str] | None:
    """
    Return where a name gets its value by an assignment, what is assigned, and the text below it.

    None for what is not assigned: a class, a function, what another library defines.
    """
    package = module.partition(".")[0]
    while name in (imported := imports_of(module)):
        module, name = imported[name]
        if module.partition(".")[0] != package:
            return None
        importlib.import_module(module)
    body = module_tree(module).body
    for node, below in zip(body, [*body[1:], None], strict=True):
        for statement in node.body if isinstance(node, ast.If) else [node]:
            if (value := _assigned(statement, name)) is not None:
                return module, value, _text_of(below)
    return None


def private_class(module: str, name: str) -> str | None:
    """Return the full name of a private class of the package, None if it is no such class."""
    package = module.partition(".")[0]
    if name in (imported := imports_of(module)):
        module, name = imported[name]
    if module.partition(".")[0] != package:
        return None
    value = getattr(importlib.import_module(module), name, None)
    return f"{source_module(value)}.{name}" if isinstance(value, type) else None


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    match node:
        case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
            return value
        case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
            return value
        case _:
            return None


def _text_of(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return inspect.cleandoc(text)
        case _:
            return ""


class Writer:
    """
    Writes annotations and defaults for readers.

    Args:
        names: The public names.
    """

    def __init__(self, names: list[PublicName]) -> None:
        self._names = {(id(name.value), name.path.rpartition(".")[2]): name.full for name in names}
        self._by_module = {(name.module, name.path): name.full for name in names}

    def annotation(self, node: ast.expr, module: str) -> str:
        """Return an annotation of a module with full public names, and no private alias."""
        return ast.unparse(_Public(self, module).written(node))

    def default(self, node: ast.expr, module: str, value: object) -> str:
        """Return a default as written, or its value if what is written is private."""
        if isinstance(node, ast.Name) and (found := definition_of(module, node.id)):
            module, node, _ = found
        called = node.func if isinstance(node, ast.Call) else node
        is_private = isinstance(called, ast.Name) and self.public(module, called.id) is None
        if not is_private and not any(isinstance(part, TOO_MUCH) for part in ast.walk(node)):
            return ast.unparse(node)
        shown = repr(value)
        return "..." if "<" in shown or len(shown) > LONGEST else shown

    def public(self, module: str, name: str) -> str | None:
        """Return the full public name of what a module calls so, None if it is not public."""
        if full := self._by_module.get((module, name)):
            return full
        value = getattr(sys.modules[module], name, None)
        if value is None and name in (imported := imports_of(module)):
            origin, name = imported[name]
            if origin in sys.modules:
                value = getattr(sys.modules[origin], name, None)
        return self._names.get((id(value), name))

    def signature(self, function: Any) -> tuple[str, str]:
        """
        Return the arguments of a function, and the annotation of what it returns.

        Of overloads the last one counts, which is the most general: the implementation may say Any.
        """
        node, module = _node_of(function), source_module(function)
        values = inspect.signature(inspect.unwrap(function)).parameters
        arguments = f"({', '.join(self._arguments(node, module, values))})"
        overloads = [] if isinstance(function, type) else get_overloads(inspect.unwrap(function))
        if overloads:
            node = _node_of(overloads[-1])
        if _is_context_manager(node):
            return arguments, _as_manager(node, lambda inner: self.annotation(inner, module))
        returns = "" if node.returns is None else self.annotation(node.returns, module)
        return arguments, returns

    def _arguments(self, node: Function, module: str, values: Parameters) -> Iterator[str]:
        given = node.args
        plain = [*given.posonlyargs, *given.args]
        for number, argument in enumerate(plain, 1):
            if argument.arg not in {"self", "cls"}:
                yield self._argument(argument, module, _defaults(given), values)
                yield from ["/"] * (number == len(given.posonlyargs))
        if given.vararg:
            yield f"*{self._argument(given.vararg, module)}"
        elif given.kwonlyargs:
            yield "*"
        for argument in given.kwonlyargs:
            yield self._argument(argument, module, _defaults(given), values)
        if given.kwarg:
            yield f"**{self._argument(given.kwarg, module)}"

    def _argument(
        self,
        argument: ast.arg,
        module: str,
        defaults: Mapping[str, ast.expr | None] = MappingProxyType({}),
        values: Parameters = MappingProxyType({}),
    ) -> str:
        text, default = argument.arg, defaults.get(argument.arg)
        if argument.annotation is not None:
            text += f": {self.annotation(argument.annotation, module)}"
        if default is not None:
            equals = " = " if argument.annotation is not None else "="
            text += equals + self.default(default, module, values[argument.arg].default)
        return text

    def attribute(self, cls: type, name: str) -> str | None:
        """Return the annotation of a field or attribute of a class, None if there is none."""
        package = cls.__module__.partition(".")[0]
        for base in cls.__mro__:
            if base.__module__.partition(".")[0] == package:
                for node in _class_node(base).body:
                    if (annotation := _annotation_in(node, name)) is not None:
                        return self.annotation(annotation, source_module(base))
        return None

    def fields(self, cls: type) -> str:
        """Return the arguments of a dataclass or named tuple, which are its fields."""
        bases = [base for base in reversed(cls.__mro__) if base is not object and has_fields(base)]
        found = (
            self._field(node, source_module(base)) for base in bases for node in fields_of(base)
        )
        return f"({', '.join(found)})"

    def _field(self, node: ast.AnnAssign, module: str) -> str:
        text = f"{ast.unparse(node.target)}: {self.annotation(node.annotation, module)}"
        if node.value is None:
            return text
        return f"{text} = {self.default(node.value, module, ...)}"


class _Public(ast.NodeTransformer):
    """Puts full public names for short ones, and for private aliases what they stand for."""

    def __init__(self, writer: Writer, module: str) -> None:
        self._writer = writer
        self._module = module

    def written(self, node: ast.expr) -> ast.expr:
        """Return an annotation as it is to be read."""
        changed: ast.expr = self.visit(_unquoted(node))
        return changed

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if full := self._writer.public(self._module, node.id):
            return ast.parse(full, mode="eval").body
        if found := definition_of(self._module, node.id):
            module, value, _ = found
            if not _is_type_variable(value):
                return _Public(self._writer, module).written(value)
        return ast.parse(private_class(self._module, node.id) or node.id, mode="eval").body

    def _is_private_alias(self, name: str) -> bool:
        is_public = self._writer.public(self._module, name) is not None
        return not is_public and definition_of(self._module, name) is not None

    def _filled_in(self, alias: str, given: ast.expr) -> ast.expr:
        """Return what a generic alias stands for, with arguments in the place of its variables."""
        expanded = self.written(ast.Name(alias))
        arguments = given.elts if isinstance(given, ast.Tuple) else [given]
        names = [node.id for node in ast.walk(expanded) if isinstance(node, ast.Name)]
        variables = [name for name in dict.fromkeys(names) if VARIABLE.fullmatch(name)]
        filled: ast.expr = _Filled(dict(zip(variables, arguments, strict=False))).visit(expanded)
        return filled

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        match node:
            case ast.Subscript(value=ast.Name(id="Literal")):
                return node
            case ast.Subscript(value=ast.Name(id=name)) if self._is_private_alias(name):
                return self._filled_in(name, self.written(node.slice))
            case ast.Subscript(value=ast.Name(id="Unpack")):
                return self.written(node.slice)
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
                return self.written(first)
            case _:
                self.generic_visit(node)
                return node


class _Filled(ast.NodeTransformer):
    """Puts arguments in the place of type variables."""

    def __init__(self, arguments: Mapping[str, ast.expr]) -> None:
        self._arguments = arguments

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._arguments.get(node.id, node)


def _unquoted(node: ast.expr) -> ast.expr:
    match node:
        case ast.Constant(value=str(text)):
            return ast.parse(text, mode="eval").body
        case _:
            return ast.parse(ast.unparse(node), mode="eval").body


def _is_type_variable(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec" | "NewType")):
            return True
        case _:
            return False


@cache
def source_module(thing: Any) -> str:
    """Return the module whose source defines a class or function, whatever ``__module__`` says."""
    globals_ = getattr(inspect.unwrap(thing), "__globals__", None)
    if globals_ is not None:
        return str(globals_["__name__"])
    own, module = str(thing.__name__), str(thing.__module__)
    package = module.partition(".")[0]
    for name, found in sorted(sys.modules.items()):
        is_ours = name.partition(".")[0] == package
        if is_ours and vars(found).get(own) is thing and _defines(name, own):
            return name
    return module


@cache
def _defines(module: str, name: str) -> bool:
    try:
        tree = module_tree(module)
    except (OSError, TypeError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)


def _node_of(function: Any) -> Function:
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    node = ast.parse(source).body[0]
    if not isinstance(node, Function):
        raise TypeError(function)
    return node


def _class_node(cls: type) -> ast.ClassDef:
    module = source_module(cls)
    for node in module_tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            return node
    raise TypeError(cls)


def _annotation_in(node: ast.stmt, name: str) -> ast.expr | None:
    match node:
        case ast.AnnAssign(target=ast.Name(id=found), annotation=annotation) if found == name:
            return annotation
        case ast.FunctionDef(name="__init__"):
            return _annotation_in_constructor(node, name)
        case _:
            return None


def _annotation_in_constructor(constructor: ast.FunctionDef, name: str) -> ast.expr | None:
    """Return the annotation of an attribute, or of the argument that is kept under its name."""
    given = {argument.arg: argument.annotation for argument in constructor.args.args}
    for node in ast.walk(constructor):
        match node:
            case ast.AnnAssign(target=ast.Attribute(attr=found)) if found == name:
                return node.annotation
            case ast.Assign(targets=[ast.Attribute(attr=found)], value=ast.Name(id=argument)) if (
                found == name
            ):
                return given.get(argument)
            case _:
                pass
    return None


def fields_of(cls: type) -> Iterator[ast.AnnAssign]:
    """Yield the public fields that a class has itself."""
    for node in _class_node(cls).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                if not _is_left_out(node):
                    yield node
            case _:
                pass


def has_fields(cls: type) -> bool:
    """Return whether a class is a dataclass or a named tuple."""
    return dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")


def _is_left_out(node: ast.AnnAssign) -> bool:
    text = "" if node.value is None else ast.unparse(node.value)
    return "init=False" in text or "ClassVar" in ast.unparse(node.annotation)


def _is_context_manager(node: Function) -> bool:
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"contextmanager", "asynccontextmanager"})


def _defaults(arguments: ast.arguments) -> dict[str, ast.expr | None]:
    """Return the defaults of arguments by their names."""
    plain = [*arguments.posonlyargs, *arguments.args][::-1]
    found = dict(zip([argument.arg for argument in plain], arguments.defaults[::-1], strict=False))
    named = [argument.arg for argument in arguments.kwonlyargs]
    return {**found, **dict(zip(named, arguments.kw_defaults, strict=True))}


def _as_manager(node: Function, write: Callable[[ast.expr], str]) -> str:
    match node.returns:
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in MANAGERS:
            first = inner.elts[0] if isinstance(inner, ast.Tuple) else inner
            return f"{MANAGERS[name]}[{write(first)}]"
        case _:
            return write(node.returns) if node.returns is not None else ""
