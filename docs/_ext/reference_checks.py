"""
Warns of public names that lack something: with ``--fail-on-warning`` none of them is published.

That is a name without a docstring, a docstring that does not say what is raised, and a name that
stands on no page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from documented import names_of
from public_api import problems_of
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.util.typing import ExtensionMetadata

logger = logging.getLogger(__name__)


def check_docstrings(app: Sphinx) -> None:
    """Warn of what docstrings lack."""
    for name in names_of(app.config):
        for problem in problems_of(name):
            logger.warning("%s", problem, type="reference", subtype="docstring")


def check_pages(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of names that stand on no page."""
    for name in names_of(app.config):
        if name.full not in env.domains.python_domain.objects:
            text = "%s stands on no page of the reference"
            logger.warning(text, name.full, type="reference", subtype="page")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the checks."""
    app.connect("builder-inited", check_docstrings)
    app.connect("env-check-consistency", check_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
