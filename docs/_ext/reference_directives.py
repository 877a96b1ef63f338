"""Directives for what autodoc does not describe: constants, aliases, and tables of names."""

from __future__ import annotations

import ast
import importlib
import re
from itertools import groupby
from typing import TYPE_CHECKING

from documented import names_of, writer_of
from public_api import docstring_of, is_constant
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from written import definition_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from public_api import PublicName
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

ABOUT_API = re.compile(
    r" ?The\s+module's\s+path\s+is\s+its\s+API,\s+with\s+the\s+names\s+in\s+``__all__``\.? ?"
)

logger = logging.getLogger(__name__)


class Lines(SphinxDirective):
    """A directive that writes reStructuredText."""

    def lines(self) -> Iterator[str]:
        """Yield the lines."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the lines; titles may stand in them."""
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)

    def missing(self, problem: str) -> None:
        """Warn of something that has no text."""
        logger.warning("%s", problem, location=self.get_location(), type="reference")


class Assigned(Lines):
    """A public constant, or an alias of types, with its value and the text below it."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield an entry for the name."""
        module, _, name = self.arguments[0].rpartition(".")
        importlib.import_module(module)
        found = definition_of(module, name)
        if found is None or not found[2]:
            self.missing(f"{module}.{name} has no text below its value")
            return
        origin, value, text = found
        match value:
            case ast.Call() | ast.Constant():
                kind, shown = "data", f":value: {ast.unparse(value)}"
            case _:
                annotation = writer_of(self.config).annotation(value, origin)
                kind, shown = "type", f":canonical: {annotation}"
        yield from [f".. py:{kind}:: {name}", f"   :module: {module}", f"   {shown}", ""]
        yield from (f"   {line}" for line in text.splitlines())


class ModuleText(Lines):
    """The docstring of a module, without what it says of the module's API."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield the docstring."""
        module = importlib.import_module(self.arguments[0])
        text = docstring_of(module)
        if not text:
            self.missing(f"{module.__name__} has no docstring")
        yield from ABOUT_API.sub("", text).splitlines()


class PublicNames(Lines):
    """Tables of all public names, one for each module, with the beginning of each docstring."""

    def lines(self) -> Iterator[str]:
        """Yield a row for each name."""
        names = [name for name in names_of(self.config) if "." not in name.path]
        for module, of_module in groupby(names, lambda name: name.module):
            yield from ["", f".. rubric:: ``{module}``", "", ".. list-table::"]
            yield from ["   :widths: 40 60", ""]
            for name in of_module:
                yield f"   * - :obj:`{name.path} <{name.full}>`"
                yield f"     - {_beginning(name)}"


def _beginning(name: PublicName) -> str:
    text = docstring_of(name.value)
    if is_constant(name.value):
        found = definition_of(name.module, name.path)
        text = "" if found is None else found[2]
    return text.partition("\n\n")[0].replace("\n", " ")


class ExceptionTree(Lines):
    """The public exceptions of a module, each below the one that it is a kind of."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a list, in which each exception stands below its base."""
        module = importlib.import_module(self.arguments[0])
        errors = [value for name in module.__all__ if _is_error(value := getattr(module, name))]
        for error in errors:
            if not any(base in errors for base in error.__bases__):
                yield from _tree(error, errors, "")


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _tree(error: type, errors: list[type], indent: str) -> Iterator[str]:
    others = [base.__name__ for base in error.__bases__ if base not in [*errors, Exception]]
    also = f" (also {', '.join(others)})" if others else ""
    yield from [f"{indent}* :exc:`~{error.__module__}.{error.__name__}`{also}", ""]
    for child in errors:
        if error in child.__bases__:
            yield from _tree(child, errors, f"{indent}  ")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("assigned", Assigned)
    app.add_directive("exception-tree", ExceptionTree)
    app.add_directive("module-text", ModuleText)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
