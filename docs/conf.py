"""How Sphinx builds the site: ``nox -s docs``."""

from __future__ import annotations

import builtins
import collections.abc
import contextlib
import sys
import typing
from pathlib import Path

from pygments.lexers import get_lexer_by_name
from sphinx.highlighting import lexers

import asyncnotify

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "asyncnotify"
author = "asyncnotify contributors"
version = release = asyncnotify.__version__
repository_url = "https://github.com/asyncnotify/asyncnotify"

FOREIGN = (
    *(name for name in dir(builtins) if not name.startswith("_")),
    *collections.abc.__all__,
    *contextlib.__all__,
    *typing.__all__,
    *("Path", "UUID", "datetime", "timedelta"),
    # asyncpg, pydantic and SQLAlchemy
    *("Pool", "PostgresError", "PydanticUrl", "SqlalchemyUrl"),
    # Django
    *(
        "AppConfig",
        "ConnectionDoesNotExist",
        "DatabaseError",
        "HttpRequest",
        "ImproperlyConfigured",
    ),
    *("JsonResponse", "SynchronousOnlyOperation", "TransactionManagementError"),
    # FastAPI, Starlette and Litestar
    *("ASGIConnection", "ClientException", "Depends", "HTTPConnection", "HTTPException", "Header"),
    *("JSONResponse", "Request", "ServerSentEvent", "ServerSentEventMessage", "WebSocket"),
    # aiohttp-sse, Alembic, OpenTelemetry, Prometheus and rich
    *("EventSourceResponse", "Operations", "MeterProvider", "TracerProvider", "Metric", "Console"),
)
"""Names of other libraries, as annotations have them."""

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_llm.txt",
    "contents_lists",
    "repository_links",
    "documented",
    "reference_autodoc",
    "reference_checks",
    "reference_directives",
    "reference_links",
    "reference_programs",
]
exclude_patterns = ["_*", "performance", "telemetry", "images"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
lexers["ipython"] = get_lexer_by_name("python")
lexers["mermaid"] = get_lexer_by_name("text")
lexers["sql"] = get_lexer_by_name("postgresql")  # has the quotes of PL/pgSQL

napoleon_numpy_docstring = False
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
default_role = "name"
nitpick_ignore_regex = [
    # Other libraries, of which no inventory is read: the build needs no network
    ("py:.*", r"(?!asyncnotify\.).+\..+"),
    ("py:.*", "|".join(FOREIGN)),
    # Type variables
    ("py:class", r"(\w+T|T|P|R)(_co|_contra)?"),
]
reference_package = "asyncnotify"
reference_folder = "reference/"
reference_excluded = [
    "asyncnotify.cli",
    "asyncnotify.ext.django.apps",
    "asyncnotify.ext.django.management",
]
# Members without an underscore that only other parts of asyncnotify call
reference_hidden = [
    "asyncnotify.log.BlockingConnection.end",
    "asyncnotify.log.Consumer.next_batch",
    "asyncnotify.log.Consumer.put_back",
    "asyncnotify.log.Log.append_entries",
    "asyncnotify.log.Log.append_in",
    "asyncnotify.log.Log.append_within",
    "asyncnotify.log.Log.call_for",
    "asyncnotify.log.LogStream.end",
    "asyncnotify.log.LogStream.end_after_portion",
    "asyncnotify.testing.fake.FakeTransaction.commit_here",
    "asyncnotify.testing.fake.FakeTransaction.cut",
    "asyncnotify.testing.fake.FakeTransaction.end",
    "asyncnotify.testing.fake.FakeTransaction.forget_channels",
    "asyncnotify.testing.fake.FakeTransaction.pause",
    "asyncnotify.testing.fake.FakeTransaction.resume",
    "asyncnotify.testing.fake.FakeTransaction.roll_back_here",
    "asyncnotify.testing.fake.FakeTransaction.send",
    "asyncnotify.testing.fake.FakeTransaction.when_committed",
    "asyncnotify.testing.proxy.PatternDetector.inspect",
    "asyncnotify.testing.proxy.ProxiedConnection.dial",
    "asyncnotify.testing.proxy.ProxiedConnection.run",
]

html_theme = "furo"
html_title = f"asyncnotify {release}"
html_show_copyright = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")
html_theme_options = {
    "source_repository": f"{repository_url}/",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_exclude = ".linenos, .gp, .go"
