"""
Marks the list of a page's own sections, which the site repeats at the right of wide screens.

Such a list stands before the first section, and each of its items is one link to a section. The
style sheet hides it where the theme shows its own list; on a code host it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


class ContentsLists(SphinxTransform):
    """Gives such a list the class ``page-contents``."""

    default_priority = 5

    def apply(self, **_: object) -> None:
        """Mark the lists of the page's first level: those in sections are for the reader there."""
        for section in self.document.children:
            for node in section.children:
                if isinstance(node, nodes.bullet_list) and all(map(_is_link, node.children)):
                    node["classes"].append("page-contents")


def _is_link(item: nodes.Node) -> bool:
    """Return whether an item is one link to a section of its page, and nothing beside it."""
    links = list(item.findall(addnodes.pending_xref)) + list(item.findall(nodes.reference))
    if len(links) != 1 or item.astext() != links[0].astext():
        return False
    target = links[0].get("refuri") or links[0].get("reftarget") or ""
    return "refid" in links[0] or str(target).startswith("#")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transform."""
    app.add_transform(ContentsLists)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
