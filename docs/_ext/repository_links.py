"""
Makes the links of a page work on the site as they do in the repository.

A page may link to a file that is not a page: an example, a file of rules. On the site, such a
link goes to the repository. Files of the repository that the site includes as pages are in PAGES.
A link to a file that does not exist stays as written, and Sphinx reports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
PAGES = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "README.md": "index",
    "SECURITY.md": "security-policy",
}


class RepositoryLinks(SphinxTransform):
    """Points the links of one document to files that are not pages."""

    default_priority = 5

    def apply(self, **_: object) -> None:
        """Change the links to files of which MyST makes copies to download, or knows nothing."""
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for node in list(self.document.findall(kind)):
                if node.get("reftype") == "myst" or node.get("refdomain") == "doc":
                    self._point(node)

    def _point(self, node: nodes.Element) -> None:
        target, _, anchor = str(node["reftarget"]).partition("#")
        if page := PAGES.get(target.rpartition("/")[2].removesuffix(".md") + ".md"):
            node.replace_self(_to_page(node, page))
            return
        path = (DOCS / self.env.docname).parent.joinpath(target).resolve()
        if path.is_file() and path.is_relative_to(ROOT) and path.suffix != ".md":
            uri = f"{self.config.repository_url}/blob/main/{path.relative_to(ROOT).as_posix()}"
            uri += f"#{anchor}" if anchor else ""
            link = nodes.reference("", "", *node.children, refuri=uri, internal=False)
            node.replace_self(link)


def _to_page(node: nodes.Element, page: str) -> nodes.Element:
    options = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": True}
    text = nodes.inline("", "", *node.children, classes=["xref", "std", "std-doc"])
    return addnodes.pending_xref("", text, refdoc=node["refdoc"], reftarget=f"/{page}", **options)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transform, and the setting that says where the repository is."""
    app.add_config_value("repository_url", "", "env", types=[str])
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
