"""
Makes autodoc show signatures and types as the source has them, and members in its order.

Classes say the public module as theirs, which only imports them: autodoc looks there for the source
and finds none.
"""

from __future__ import annotations

import inspect
import re
import sys
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from documented import is_hidden, names_of, writer_of
from public_api import ARGUMENTS, docstring_of, members_of
from sphinx.ext import napoleon
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from written import has_fields, source_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata
    from written import Writer

ATTRIBUTE = re.compile(r"\.\. attribute:: (\w+)")
WITHOUT_ARGUMENTS = {"attribute", "data", "property"}


# -- signatures -----------------------------------------------------------------------------------


def write_signature(app: Sphinx, *event: Any) -> tuple[str, str] | None:
    """Return the arguments of something, and what it returns, as its source has them."""
    kind, _, thing, _, arguments, _ = event
    if arguments is None or kind in WITHOUT_ARGUMENTS:
        return None
    _forget_overloads(thing)
    if isinstance(thing, type):
        return _constructor(writer_of(app.config), thing), ""
    return writer_of(app.config).signature(thing)


def _constructor(writer: Writer, cls: type) -> str:
    """Return the arguments of a class that users make; of others, none are shown."""
    if ARGUMENTS.search(docstring_of(cls)):
        return writer.signature(vars(cls)["__init__"])[0]
    return writer.fields(cls) if has_fields(cls) else ""


def _forget_overloads(thing: Any) -> None:
    """Let autodoc show the implementation: its signature has every argument once."""
    function = inspect.unwrap(
        vars(thing).get("__init__", thing) if isinstance(thing, type) else thing
    )
    for module in {thing.__module__, getattr(function, "__module__", thing.__module__)}:
        if getattr(sys.modules.get(module), "__file__", None):
            _analyzer(module).overloads.clear()


# -- members --------------------------------------------------------------------------------------


def skip_member(app: Sphinx, *event: Any) -> bool | None:
    """Leave out what a class has from another library, and what is not for users."""
    member = event[2]
    if type(member).__name__ == "_tuplegetter":
        return True  # the docstring of the class describes the fields
    function = getattr(member, "fget", None) or getattr(member, "__func__", member)
    is_foreign = _is_foreign(function, app.config.reference_package)
    return True if is_foreign or is_hidden(app.config, function) else None


def _is_foreign(member: object, package: str) -> bool:
    if isinstance(member, MemberDescriptorType | GetSetDescriptorType):  # of OSError, for one
        return member.__objclass__.__module__.partition(".")[0] != package
    module = getattr(member, "__module__", None) or ""
    return inspect.isroutine(member) and module.partition(".")[0] != package


def tell_sources(app: Sphinx) -> None:
    """Tell autodoc the order of the members of each class, and the texts below constants."""
    for name in names_of(app.config):
        if isinstance(name.value, type):
            _tell_source(name.value)


def _tell_source(cls: type) -> None:
    analyzer, origin = _analyzer(cls.__module__), _analyzer(source_module(cls))
    for number, (member, _) in enumerate(members_of(cls)):
        analyzer.tagorder[f"{cls.__name__}.{member}"] = number
    for (owner, attribute), text in list(origin.attr_docs.items()):
        if owner == cls.__name__:
            analyzer.attr_docs[owner, attribute] = text
            place = origin.tagorder[f"{owner}.{attribute}"]
            analyzer.tagorder[f"{owner}.{attribute}"] = place


def _analyzer(module: str) -> ModuleAnalyzer:
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return analyzer


# -- docstrings -----------------------------------------------------------------------------------


def convert_docstring(app: Sphinx, *event: Any) -> None:
    """Make reStructuredText of a docstring, and write the types of attributes."""
    kind, name, thing, options, lines = event
    # Of attributes napoleon would take what stands before a colon for a type
    shown: Any = "object" if kind in WITHOUT_ARGUMENTS else kind
    function = getattr(thing, "__func__", thing)
    text = docstring_of(function) if inspect.isfunction(function) else "\n".join(lines)
    lines[:] = GoogleDocstring(text, app.config, app, shown, name, thing, options).lines()
    if isinstance(thing, type):
        lines[:] = _with_types(writer_of(app.config), thing, lines)


def _with_types(writer: Writer, cls: type, lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield line
        found = ATTRIBUTE.fullmatch(line)
        if found and (annotation := writer.attribute(cls, found[1])) is not None:
            yield f"   :type: {annotation}"


def _replace_napoleon(app: Sphinx) -> None:
    listeners = app.events.listeners["autodoc-process-docstring"]
    for listener in [one for one in listeners if one.handler.__module__ == napoleon.__name__]:
        app.disconnect(listener.id)
    app.connect("autodoc-process-docstring", convert_docstring)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Take the place of napoleon, which has to be loaded before."""
    _replace_napoleon(app)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("builder-inited", tell_sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
