"""How Sphinx builds the site: ``nox -s docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers import get_lexer_by_name
from sphinx.highlighting import lexers

import asyncnotify

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "asyncnotify"
author = "asyncnotify contributors"
version = release = asyncnotify.__version__
repository_url = "https://github.com/asyncnotify/asyncnotify"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_llm.txt",
    "repository_links",
]
exclude_patterns = ["_*", "performance", "telemetry", "images"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
lexers["ipython"] = get_lexer_by_name("python")
lexers["mermaid"] = get_lexer_by_name("text")
lexers["sql"] = get_lexer_by_name("postgresql")  # has the quotes of PL/pgSQL

napoleon_numpy_docstring = False
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"asyncnotify {release}"
html_show_copyright = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": f"{repository_url}/",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_exclude = ".linenos, .gp, .go"
