"""The pages of the site: how they link, and what the site leaves out of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

DOCS: Final = Path(__file__).parents[2] / "docs"
NAMED_BY_FILE: Final = re.compile(r"\[[\w/.-]+\.md\]\(")

PAGE: Final = """# A page

* [One](#one)
* [Two](#two)

Prose.

* [One](#one): more is said of it

## One

* [Two](#two)

## Two
"""


def named_by_file(page: Path) -> list[str]:
    """Return the links of a page whose text is the name of a file."""
    return NAMED_BY_FILE.findall(page.read_text(encoding="utf-8"))


def test_links_to_pages_are_named_by_what_they_lead_to() -> None:
    """No page shows the name of a file as a link: readers of the site have no files."""
    pages = [page for page in DOCS.rglob("*.md") if "_build" not in page.parts]
    assert pages
    named = [f"{page.name}: {link}" for page in pages for link in named_by_file(page)]
    assert not named


def test_a_list_of_the_sections_of_a_page_is_marked(tmp_path: Path) -> None:
    """Only the list before the first section whose items are links to sections gets the class."""
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    settings = f"import sys\nsys.path.insert(0, {str(DOCS / '_ext')!r})\n"
    settings += "extensions = ['myst_parser', 'contents_lists']\nmyst_heading_anchors = 2\n"
    (tmp_path / "conf.py").write_text(settings, encoding="utf-8")
    (tmp_path / "index.md").write_text(PAGE, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", tmp_path, tmp_path / "out"], check=True)
    html = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert html.count("page-contents") == 1
    assert "page-contents" in html.partition("Prose.")[0]
