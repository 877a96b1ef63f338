"""
Links names to their entries in the reference.

A name in an annotation, in a ``Raises:`` section or in backticks stands without its module. It is
looked for in the module and the class that are described, then among the names of the package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from documented import names_of
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxRole
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

NAME = re.compile(r"(\w+(?:\.\w+)*)(?:\(\))?")
CLASS = re.compile(r"[A-Z]\w*[a-z]\w*")
PRIVATE = re.compile(r"\._")
SECTIONS = ("", ".typing", ".log")
"""Where a name is looked for that is not in the module that is described."""


class NameRole(SphinxRole):
    """What single backticks mean: code, which is a link where it is a public name."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return code; LinkNames makes the link."""
        return [nodes.literal(self.rawtext, self.text)], []


class _Names(SphinxPostTransform):
    def found(self, target: str, module: str, cls: str) -> str | None:
        """Return the full public name that a short one stands for."""
        package = self.config.reference_package
        parts = module.split(".")
        modules = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        places = [f"{module}.{cls}", *modules, *(f"{package}{section}" for section in SECTIONS)]
        names = [f"{place}.{target}" for place in places]
        objects = self.env.domains.python_domain.objects
        known = next((name for name in [*names, target] if name in objects), None)
        return self._only_one(target) if known is None and CLASS.fullmatch(target) else known

    def _only_one(self, cls: str) -> str | None:
        """Return the full name of a class that only one module has."""
        found = [name.full for name in names_of(self.config) if name.path == cls]
        return found[0] if len(found) == 1 else None


class FullNames(_Names):
    """Puts full names for short ones in references; of private names only the text stays."""

    default_priority = 5  # before references are resolved

    def run(self, **_: object) -> None:
        """Change the references of a page."""
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("refdomain") == "py":
                self._complete(node)

    def _complete(self, node: addnodes.pending_xref) -> None:
        target = str(node["reftarget"])
        if target.startswith(f"{self.config.reference_package}.") and PRIVATE.search(target):
            node.replace_self(nodes.Text(target.rpartition(".")[2]))
            return
        module, cls = str(node.get("py:module") or ""), str(node.get("py:class") or "")
        if (name := self.found(target, module, cls.partition(".")[0])) is not None:
            node["reftarget"] = name
            node["refspecific"] = False


class LinkNames(_Names):
    """Makes links of code that is nothing but a public name, in the pages of the reference."""

    default_priority = 20

    def run(self, **_: object) -> None:
        """Change the code of a page."""
        if self.env.docname.startswith(self.config.reference_folder):
            for node in list(self.document.findall(nodes.literal)):
                if not isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                    self._link(node)

    def _link(self, node: nodes.literal) -> None:
        found = NAME.fullmatch(node.astext())
        described = next(_descriptions(node), None)
        if found is None:
            return
        module, cls, own = _place(described)
        name = self.found(found[1], module, cls)
        if name is None or name == own:
            return
        entry = self.env.domains.python_domain.objects[name]
        place = (self.env.docname, entry.docname, entry.node_id)
        node.replace_self(make_refnode(self.app.builder, *place, node.deepcopy(), name))


def _descriptions(node: nodes.Node) -> Iterator[addnodes.desc]:
    """Yield the descriptions that a node is part of, the innermost first."""
    while (parent := node.parent) is not None:
        if isinstance(parent, addnodes.desc) and parent.get("domain") == "py":
            yield parent
        node = parent


def _place(description: addnodes.desc | None) -> tuple[str, str, str]:
    """Return the module and the class that a description belongs to, and its full name."""
    if description is None or (signature := _signature(description)) is None:
        return "", "", ""
    module, name = str(signature.get("module") or ""), str(signature.get("fullname") or "")
    is_class = description["objtype"] in {"class", "exception"}
    return module, name if is_class else name.rpartition(".")[0], f"{module}.{name}"


def _signature(description: addnodes.desc) -> addnodes.desc_signature | None:
    return next((n for n in description if isinstance(n, addnodes.desc_signature)), None)


def show_text(translator: Any, node: nodes.Element) -> None:
    """Add the text of a node to a page in Markdown, whose builder does not know the node."""
    translator.add(node.astext())
    raise nodes.SkipNode


def show_nothing(translator: Any, node: nodes.Element) -> None:
    """Add nothing."""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the role and the transforms."""
    app.add_config_value("reference_folder", "", "env", types=[str])
    app.add_role("name", NameRole())
    app.add_post_transform(FullNames)
    app.add_post_transform(LinkNames)
    # The star in a signature
    app.add_node(nodes.abbreviation, override=True, markdown=(show_text, show_nothing))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
