"""
What the documents say holds: their code is run, their names and links exist.

How a fenced block is run, by its language:

* ``python`` that calls ``asyncio.run``: a program, run as a file of its own.
* ``python`` whose first line is the name of a file: a file for a tool; FILES says who tests it.
* ``python`` that imports from ``asyncnotify.testing`` and names no DSN: the same, without a server.
* ``python`` with tests for pytest: pytest runs it, with the plugin.
* other ``python``: a part of one, put where FRAME says, with a running ``listener``.
* ``text`` right behind a ``python`` block: what that prints, exactly. Elsewhere: a drawing.
* ``sql``: executed in an empty database, and undone.
* ``bash``: one line, which has to be one of COMMANDS.
* ``console``: a session of a shell, with what its commands write; numbers may be others.
* ``shell``: commands that change the reader's machine. They are not run.
* ``yaml``, ``ini``: a file of settings. It is parsed.
* ``mermaid``: a drawing.

Where a block says DSN, the test puts in that of its own database.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import configparser
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import pydantic
import pytest
import sqlalchemy.ext.asyncio
from litestar.channels import ChannelsPlugin

import asyncnotify
import asyncnotify.doctor
import asyncnotify.ext.aiohttp
import asyncnotify.ext.fastapi
import asyncnotify.ext.litestar
import asyncnotify.ext.reporting
import asyncnotify.lock
import asyncnotify.log
import asyncnotify.testing.clock
import asyncnotify.testing.fake
import asyncnotify.top
import asyncnotify.triggers
from asyncnotify import Channel, Listener, Notifier, State, Stream
from asyncnotify.cli.exits import MEANINGS
from asyncnotify.ext.litestar import (
    LogChannelsBackend,
    LogPlugin,
    NotifyChannelsBackend,
    NotifyPlugin,
)
from asyncnotify.ext.reporting import Reporting, roll_call
from asyncnotify.lock import Leader, Lock, Locks
from asyncnotify.log import Log
from asyncnotify.top import snapshot
from asyncnotify.triggers import Table
from tests.support.console import alike, played
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "asyncnotify"
DOCUMENTS: Final = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(p for p in (ROOT / "docs").glob("**/*.md") if "_build" not in p.parts),
)
DESIGN: Final = ROOT / "docs" / "design.md"
RELIABILITY: Final = ROOT / "docs" / "reliability.md"
CONTRIBUTING: Final = ROOT / "CONTRIBUTING.md"
DRIVER_REPORTS: Final = ROOT / "docs" / "driver-reports.md"
FOR_DEVELOPERS: Final = (DESIGN, CONTRIBUTING, DRIVER_REPORTS)
FOR_USERS: Final = tuple(path for path in DOCUMENTS if path not in FOR_DEVELOPERS)

DSN: Final = "postgresql://localhost/postgres"
LANGUAGES: Final = {
    "bash",
    "console",
    "ini",
    "ipython",
    "mermaid",
    "python",
    "shell",
    "sql",
    "text",
    "yaml",
}
COMMANDS: Final = {
    "pip install asyncnotify-pg",
    "python -m pip install nox && python -m nox -s demo",
    "python -m pip install nox && python -m nox -s tests",
}
FRAME: Final = f"""
import asyncio

from asyncnotify import Gap, Listener, Notification


async def main() -> None:
    async with Listener("{DSN}") as listener:
{{part}}

asyncio.run(main())
"""
FILES: Final = {
    "aiohttp_app.py": "tests/frameworks/test_aiohttp.py",
    "aiohttp_authorize.py": "tests/frameworks/test_aiohttp.py",
    "aiohttp_log.py": "tests/frameworks/test_aiohttp.py",
    "aiohttp_parts.py": "tests/frameworks/test_aiohttp.py",
    "both_asyncpg_listen.py": "tests/frameworks/test_coming_from.py",
    "both_broadcaster.py": "tests/frameworks/test_coming_from.py",
    "both_pgqueuer.py": "tests/frameworks/test_coming_from.py",
    "both_redis.py": "tests/frameworks/test_coming_from.py",
    "celery_app.py": "tests/frameworks/test_celery.py",
    "django_app.py": "tests/frameworks/test_django_docs.py",
    "fastapi_app.py": "tests/frameworks/test_fastapi_pages.py",
    "fastapi_log.py": "tests/frameworks/test_fastapi_pages.py",
    "fastapi_sockets.py": "tests/frameworks/test_fastapi_pages.py",
    "flask_app.py": "tests/frameworks/test_flask.py",
    "gevent_app.py": "tests/frameworks/test_gevent.py",
    "gunicorn.conf.py": "tests/frameworks/test_flask.py",
    "litestar_app.py": "tests/frameworks/test_litestar_page.py",
    "litestar_log.py": "tests/frameworks/test_litestar_page.py",
    "orders_worker.py": "tests/frameworks/test_deployment.py",
    "migrations/env.py": "tests/frameworks/test_alembic.py",
    "mailer.py": "tests/log/test_page.py",
    "orders.py": "tests/examples/test_tutorial.py",
    "prices.py": "tests/examples/test_tutorial.py",
    "send.py": "tests/examples/test_tutorial.py",
    "rooms_asyncnotify.py": "tests/frameworks/test_coming_from.py",
    "rooms_broadcaster.py": "tests/frameworks/test_coming_from.py",
    "server.py": "tests/examples/test_tutorial.py",
    "shop.py": "tests/examples/test_tutorial.py",
    "orders/listeners.py": "tests/frameworks/test_coming_from.py",
    "orders/migrations/0002_changes.py": "tests/frameworks/test_coming_from.py",
    "orders/models.py": "tests/frameworks/test_coming_from.py",
    "orders/notifications.py": "tests/frameworks/test_coming_from.py",
    "shop/management/commands/send_mails.py": "tests/frameworks/test_django_docs.py",
    "shop/migrations/0001_log.py": "tests/frameworks/test_django_docs.py",
    "shop/notifications.py": "tests/frameworks/test_django_docs.py",
    "shop/views.py": "tests/frameworks/test_django_docs.py",
    "sse_app.py": "tests/frameworks/test_fastapi_pages.py",
    "starlette_app.py": "tests/frameworks/test_fastapi_pages.py",
    "test_aiohttp_app.py": "tests/frameworks/test_aiohttp.py",
    "test_fastapi_app.py": "tests/frameworks/test_fastapi_pages.py",
    "test_prices.py": "tests/examples/test_tutorial.py",
    "totals.py": "tests/log/test_page.py",
    "web_app.py": "tests/frameworks/test_shutdown.py",
    "web/asgi.py": "tests/frameworks/test_django_docs.py",
    "web/pooled_settings.py": "tests/frameworks/test_django_docs.py",
    "web/settings.py": "tests/frameworks/test_django_docs.py",
    "with_asyncpg_listen.py": "tests/frameworks/test_coming_from.py",
    "with_broadcaster.py": "tests/frameworks/test_coming_from.py",
    "with_pgqueuer.py": "tests/frameworks/test_coming_from.py",
    "with_psycopg.py": "tests/frameworks/test_coming_from.py",
    "with_psycopg2.py": "tests/frameworks/test_coming_from.py",
    "with_redis.py": "tests/frameworks/test_coming_from.py",
    "with_redis_stream.py": "tests/frameworks/test_coming_from.py",
    "with_sqlalchemy.py": "tests/frameworks/test_coming_from.py",
}
TIME_LIMIT: Final = scaled(30.0)  # seconds for a block; a few tenths are usual

FOR_TESTS: Final = "from asyncnotify.testing."
"""In a program of this kind nothing else says where the server is."""

IS_TEST: Final = "async def test_"

SETTINGS: Final = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LINKED: Final = re.compile(r"\[([^\]]*)\]\([^)\s]+\)")
INLINE_CODE: Final = re.compile(r"`([^`\n]+)`")
CLASS_NAME: Final = re.compile(r"[A-Z][a-z]\w*")
MEMBER: Final = re.compile(r"([A-Z][a-z]\w*)\.(\w+)(?:\(.*\))?")
ATTRIBUTE: Final = re.compile(r"listener\.(\w+)\b.*")
ARGUMENT: Final = re.compile(r"([a-z]\w*)=(?:[^=].*)?")  # not of the environment
CALL: Final = re.compile(r"(?:await )?([a-z]\w*)\(\)")
OF_THE_SERVER: Final = re.compile(r"now|pg_\w+")
PUBLIC: Final = {
    name: getattr(module, name)
    for module in (
        asyncnotify,
        asyncnotify.doctor,
        asyncnotify.ext.aiohttp,
        asyncnotify.ext.litestar,
        asyncnotify.ext.reporting,
        asyncnotify.lock,
        asyncnotify.log,
        asyncnotify.testing.clock,
        asyncnotify.testing.fake,
        asyncnotify.top,
        asyncnotify.triggers,
    )
    for name in module.__all__
}
TOOL: Final = re.compile(r"asyncnotify\.testing\.(\w+)\.(\w+)")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the one that follows it with nothing but a blank line between."""

    document: Path
    line: int
    language: str
    text: str
    next: Block | None = None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """Return the blocks of a document, the last one first."""
    source = document.read_text(encoding="utf-8")
    blocks: list[Block] = []
    follower_at = -1
    for match in reversed(list(FENCE.finditer(source))):
        follows = bool(blocks) and not source[match.end() : follower_at].strip()
        line = source.count("\n", 0, match.start()) + 1
        block = Block(document, line, match[1], match[2], blocks[-1] if follows else None)
        blocks.append(block)
        follower_at = match.start()
    return blocks


BLOCKS: Final = [block for document in DOCUMENTS for block in reversed(blocks_of(document))]


def file_of(block: Block) -> str | None:
    """Return the name of the file that a block shows, None if it is no file for a tool."""
    found = re.match(r"# ([\w/.]+\.py)\n", block.text)
    return found[1] if found else None


def in_language(language: str) -> pytest.MarkDecorator:
    """Run a test for each block in a language that is no file for a tool."""
    chosen = [b for b in BLOCKS if b.language == language and file_of(b) is None]
    return pytest.mark.parametrize("block", chosen, ids=str)


def prose_of(document: Path) -> str:
    """Return a document without its blocks."""
    return FENCE.sub("\n", document.read_text(encoding="utf-8"))


def inline_code(*documents: Path) -> set[str]:
    """Return what stands between backticks, outside of blocks."""
    return {code for document in documents for code in INLINE_CODE.findall(prose_of(document))}


each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)

# -- blocks ---------------------------------------------------------------------------------------


def as_program(text: str) -> str:
    """Return a python block as the text of a file."""
    if "asyncio.run(" in text or "Blocking" in text or FOR_TESTS in text:
        return text
    return FRAME.format(part=textwrap.indent(text, " " * 8))


def run_python(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this with no warning allowed."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        check=False,
        cwd=folder,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        timeout=TIME_LIMIT,
    )


@in_language("python")
def test_python_block_works(block: Block, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What a reader pastes into a file runs without a warning, ends, and prints what it should."""
    if IS_TEST in block.text:
        check_tests(block, request.getfixturevalue("dsn"), tmp_path)
        return
    program = as_program(block.text)
    if FOR_TESTS not in program or DSN in program:
        assert program.count(f'"{DSN}"') == 1
        program = program.replace(DSN, request.getfixturevalue("dsn"))
    file = tmp_path / "pasted.py"
    file.write_text(program, encoding="utf-8")
    run = run_python([str(file)], tmp_path)
    assert (run.stderr, run.returncode) == ("", 0)
    assert block.next is not None, "it is not said what this prints"
    assert (block.next.language, block.next.text) == ("text", run.stdout)


def check_tests(block: Block, dsn: str, folder: Path) -> None:
    """Run the tests of a block, as a reader does who has pytest-asyncio; all of them pass."""
    (folder / "test_pasted.py").write_text(block.text, encoding="utf-8")
    (folder / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    plugins = ["-p", "asyncnotify.testing.plugin", "-p", "no:anyio"]
    run = run_python(["-m", "pytest", "-q", *plugins, f"--asyncnotify-dsn={dsn}"], folder)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{block.text.count(IS_TEST)} passed" in run.stdout


def test_what_the_readme_shows_runs_by_itself() -> None:
    """Each of its programs is whole: pasted alone into a file, it imports what it uses."""
    in_readme = [b for b in BLOCKS if b.document.name == "README.md" and b.language == "python"]
    assert len(in_readme) > 2
    assert [str(block) for block in in_readme if as_program(block.text) != block.text] == []


def test_files_for_tools_are_tested_elsewhere() -> None:
    """Every file that is shown is read from the document by the test that FILES names."""
    shown = {(name, str(b.document.name)) for b in BLOCKS if (name := file_of(b)) is not None}
    assert {name for name, _ in shown} == FILES.keys()
    for name, document in shown:
        test = (ROOT / FILES[name]).read_text(encoding="utf-8")
        assert name in test or re.escape(name) in test
        assert document in test


def test_cells_of_notebooks_are_run_elsewhere() -> None:
    """They share their variables, and need a kernel."""
    shown = {block.document.name for block in BLOCKS if block.language == "ipython"}
    assert shown == {"jupyter.md"}
    test = (ROOT / "tests" / "frameworks" / "test_jupyter.py").read_text(encoding="utf-8")
    assert "jupyter.md" in test
    assert "```ipython" in test


@in_language("sql")
async def test_sql_block_works(block: Block, admin: asyncpg.Connection[asyncpg.Record]) -> None:
    """What a reader pastes into psql is accepted by a server that has nothing in it."""
    transaction = admin.transaction()  # roles belong to the whole server, which others use
    await transaction.start()
    await admin.execute(block.text)
    await transaction.rollback()


@in_language("bash")
def test_bash_block_is_a_known_command(block: Block) -> None:
    """No command is shown that is not in the list above, of which each is seen to below."""
    assert block.text.strip() in COMMANDS


@in_language("yaml")
def test_yaml_block_can_be_read(block: Block) -> None:
    """Each document of a YAML file says what kind of object it is."""
    yaml = pytest.importorskip("yaml")
    kinds = [document["kind"] for document in yaml.safe_load_all(block.text)]
    assert kinds
    assert all(kinds)


@in_language("ini")
def test_ini_block_can_be_read(block: Block) -> None:
    """A file of settings has sections, and each line is a setting or a comment."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";", "#"))
    parser.read_string(block.text)
    assert parser.sections()


@in_language("console")
def test_console_block_shows_what_happens(block: Block, dsn: str, tmp_path: Path) -> None:
    """Each command of a session writes what the document says, but for numbers and times."""
    assert alike(played(block.text, dsn, tmp_path)) == alike(block.text)


def test_every_exit_status_is_told() -> None:
    """The table has the same statuses, and the same words, as the help."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", prose_of(ROOT / "docs" / "tools.md"), re.MULTILINE)
    assert {int(status): text for status, text in rows} == MEANINGS


LOG_LINE: Final = re.compile(r'(?:WARNING|ERROR)(?: \||,) "([^"|]+)"')


def logged_texts() -> list[str]:
    """Return the texts in the modules that log, docstrings left out; … is what is put in."""
    texts: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if re.search(r"^_?log(ger)?\b.* = Log\(", source, re.MULTILINE):
            texts += map(text_of, ast.walk(without_docstrings(ast.parse(source))))
    return texts


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Return a module without what stands as a statement and does nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    return tree


def text_of(node: ast.AST) -> str:
    """Return a str, or an f-string without its values; empty for any other node."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "…".join(map(text_of, parts))
        case _:
            return ""


def test_every_log_line_that_is_told_is_logged() -> None:
    """What a document says that a line begins with, or contains, is in a text that is logged."""
    told = {line for path in FOR_USERS for line in LOG_LINE.findall(prose_of(path))}
    assert len(told) >= 8
    texts = logged_texts()
    for line in told:
        pattern = ".*".join(re.escape(part.strip()) for part in line.split("…"))
        assert any(re.search(pattern, text) for text in texts), line


def test_every_block_has_a_language() -> None:
    """Every block has a language, so that none is left out of the run."""
    assert {str(block) for block in BLOCKS if block.language not in LANGUAGES} == set()


def test_every_fence_is_paired() -> None:
    """No block escapes being run because its fence is written differently."""
    fences = sum(
        line.lstrip().startswith(("```", "~~~"))
        for document in DOCUMENTS
        for line in document.read_text(encoding="utf-8").splitlines()
    )
    assert fences == 2 * len(BLOCKS)


@each_document
def test_inline_code_stays_in_its_line(document: Path) -> None:
    """No name escapes being looked up because its backticks stand in two lines."""
    lines = prose_of(document).splitlines()
    assert [line for line in lines if line.count("`") % 2] == []


# -- commands -------------------------------------------------------------------------------------


def sessions() -> set[str]:
    """Return the names of the nox sessions; nox itself need not be installed."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        name
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
        if (name := session_name(decorator, function.name)) is not None
    }


def session_name(decorator: ast.expr, default: str) -> str | None:
    """Return the name that a decorator gives to a session, None if it makes no session."""
    if ast.unparse(decorator) == "nox.session":
        return default
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "nox.session":
        names = [word.value for word in decorator.keywords if word.arg == "name"]
        return str(ast.literal_eval(names[0])) if names else default
    return None


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_readme_shows_each_command_once(command: str) -> None:
    """Each command stands in the README exactly once, as a line that can be copied."""
    assert (ROOT / "README.md").read_text(encoding="utf-8").splitlines().count(command) == 1


def test_nox_sessions_exist() -> None:
    """Every nox session that is named anywhere exists."""
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"nox -s ([\w-]+)", document.read_text(encoding="utf-8"))
    }
    assert named >= {"demo", "tests"}
    assert named <= sessions()


def test_contributors_are_told_of_every_nox_session() -> None:
    """The table of the checks has all of them, and no other."""
    rows = re.findall(r"^\| `(\w[\w-]*)` \|", prose_of(CONTRIBUTING), re.MULTILINE)
    assert sorted(rows) == sorted(sessions())


def test_contributors_are_told_where_everything_is() -> None:
    """The tree has every file and package of asyncnotify and of its tests, and no other."""
    (tree,) = (b.text for b in BLOCKS if b.document == CONTRIBUTING and "├" in b.text)
    drawn: dict[str, set[str]] = {}
    folder = ""
    for line in tree.splitlines():
        name = re.sub(r"^[├└]── ", "", line).split()[0]
        if line.startswith(("├", "└")):
            drawn[folder].add(name)
        else:
            folder = name
            drawn[folder] = set()
    assert drawn.keys() == {"asyncnotify/", "tests/"}
    for folder, names in drawn.items():
        there = (ROOT / folder).iterdir()
        assert names == {p.name + "/" * p.is_dir() for p in there if p.name != "__pycache__"}


def test_package_name_is_ours() -> None:
    """What is to be installed bears the name of this project."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert f"pip install {project['name']}" in COMMANDS


# -- links ----------------------------------------------------------------------------------------


def anchors_of(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    slugs: Counter[str] = Counter()
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", prose_of(document), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{slugs[slug]}" if slugs[slug] else slug)
        slugs[slug] += 1
    return anchors


def is_broken(document: Path, link: str) -> bool:
    """Return whether a link inside the project leads nowhere."""
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    if not target.is_file():
        return True
    return bool(anchor) and anchor not in anchors_of(target)


@each_document
def test_internal_links_lead_somewhere(document: Path) -> None:
    """Every link to a file or heading of this project has its target."""
    links = [link for link in LINK.findall(prose_of(document)) if not link.startswith("https://")]
    assert [link for link in links if is_broken(document, link)] == []


# -- names ----------------------------------------------------------------------------------------


def members() -> dict[str, set[str]]:
    """Return every class of the core with the names of its methods and fields."""
    found: dict[str, set[str]] = {}
    for file in (*PACKAGE.glob("*.py"), *PACKAGE.glob("_*/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(names_in(node))
    return found


def names_in(node: ast.ClassDef) -> Iterator[str]:
    """Yield the names of a class's methods and fields."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
        elif isinstance(statement, ast.AnnAssign):
            yield ast.unparse(statement.target)


def is_foreign(name: str) -> bool:
    """Return whether Python, a driver, SQLAlchemy or pydantic calls something by this name."""
    modules = (builtins, asyncio, asyncpg, sqlalchemy.ext.asyncio, pydantic)
    return any(hasattr(module, name) for module in modules)


def test_users_are_told_of_public_names_only() -> None:
    """Every class that users are told of is public, or somebody else's who is known."""
    named = {code.partition("(")[0] for code in inline_code(*FOR_USERS)}
    classes = {name for name in named if CLASS_NAME.fullmatch(name)}
    unknown = classes - PUBLIC.keys() - of_integrations()
    assert {name for name in unknown if not is_foreign(name)} == set()


def test_listener_has_what_is_said_of_it() -> None:
    """Everything written as `listener.name` is there."""
    named = {match[1] for code in inline_code(*DOCUMENTS) if (match := ATTRIBUTE.fullmatch(code))}
    assert named
    assert {name for name in named if not hasattr(Listener, name)} == set()


def test_public_members_exist() -> None:
    """Every `Class.member` that users are told of is there."""
    dotted = [match for code in inline_code(*FOR_USERS) if (match := MEMBER.fullmatch(code))]
    assert dotted
    assert {m[0] for m in dotted if not hasattr(PUBLIC[m[1]], m[2])} == set()


def test_testing_tools_exist() -> None:
    """Every tool for tests that is named can be imported from there."""
    assert tools()
    assert {name for name, tool in tools().items() if tool is None} == set()


def tools() -> dict[str, object]:
    """Return the tools for tests that users are told of; None for one that is not there."""
    named = [match for code in inline_code(*FOR_USERS) if (match := TOOL.fullmatch(code))]
    return {
        m[0]: getattr(importlib.import_module(f"asyncnotify.testing.{m[1]}"), m[2], None)
        for m in named
    }


def test_calls_exist() -> None:
    """Everything written as `name()` for users is a method of ours, or the server's function."""
    ours = [*PUBLIC.values(), *tools().values()]
    named = {match[1] for code in inline_code(*FOR_USERS) if (match := CALL.fullmatch(code))}
    assert named
    methods = {name for name in named if any(hasattr(thing, name) for thing in ours)}
    unknown = named - methods - PUBLIC.keys() - of_integrations()
    assert {name for name in unknown if not OF_THE_SERVER.fullmatch(name)} == set()


def of_integrations() -> set[str]:
    """Return what the modules for other libraries offer, which need not be installed."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in Path(*asyncnotify.ext.__path__).rglob("*.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    coroutines = {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)}
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    found = functions | coroutines | classes
    return {name for name in found if not name.startswith("_")}


def test_arguments_exist() -> None:
    """Everything written as `name=` is an argument of the listener or of what it is asked for."""
    calls = (Listener.listen, Listener.on, Listener.stream, Listener.end_streams, Listener.health)
    senders = (Notifier, Notifier.notify, Notifier.notify_many, Channel, Stream.batches)
    logs = (Log, Log.install, Log.append, Log.read, Log.consumer, Log.on)
    functions = (
        Listener,
        *calls,
        *senders,
        *logs,
        *(Table, Table.install),
        *(Lock, Locks, Leader),
        *(Reporting, roll_call, snapshot),
        *(ChannelsPlugin, LogChannelsBackend, LogPlugin, NotifyChannelsBackend, NotifyPlugin),
        *(asyncnotify.ext.fastapi.lifespan, asyncnotify.ext.fastapi.sse),
        asyncnotify.testing.fake.FakeServer.lose_on,
        *(asyncpg.connect, asyncpg.create_pool),
    )  # the listener passes on what is asyncpg's
    known = {name for function in functions for name in inspect.signature(function).parameters}
    named = {match[1] for code in inline_code(*DOCUMENTS) if (match := ARGUMENT.fullmatch(code))}
    assert named
    assert named - known == set()


def test_design_names_classes_and_members_that_exist() -> None:
    """Every class and member that the page on the design names is somewhere in the core."""
    known = members()
    code = inline_code(DESIGN)
    classes = {text for text in code if CLASS_NAME.fullmatch(text)}
    assert {name for name in classes - known.keys() if not is_foreign(name)} == set()
    dotted = [match for text in code if (match := MEMBER.fullmatch(text))]
    assert dotted
    assert {match[0] for match in dotted if match[2] not in known.get(match[1], ())} == set()


def test_design_names_files_that_exist() -> None:
    """Every file that the page on the design names is there."""
    text = DESIGN.read_text(encoding="utf-8")
    files = set(re.findall(r"(?<![\w/.])([\w/]+\.py)\b", text))
    assert files
    assert {name for name in files if not (PACKAGE / name).is_file()} == set()


def measured(table: str, row: str, column: int) -> float:
    """Return a figure of the page on performance."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    (rows,) = re.findall(rf"<!-- table: {table} -->\n(.*?)<!-- end -->", page, re.DOTALL)
    (found,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", rows, re.MULTILINE)
    return float(found.split("|")[column].replace(",", ""))


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    """When they are measured anew, the README follows."""
    told = " ".join(prose_of(ROOT / "README.md").split())
    by_stream = measured("burst", "asyncnotify stream()", 1)
    by_driver = measured("burst", "asyncpg add_listener", 1)
    back = [measured("recovery", "asyncnotify", channels) for channels in (0, 2)]
    sent = measured("publishing", "asyncnotify notify()", 1)
    kept = measured("million", "asyncnotify handler that is stuck", 2)
    by_queue = measured("million", "asyncpg + Queue that is stuck", 2)
    for text in (
        f"again after {back[0]:.0f} ms, on 10,000 channels after {back[1] + 0.01:.0f} ms",
        f"{by_stream:.2f} µs",
        f"{by_driver:.2f} µs of asyncpg's",
        f"{sent / 1_000:.0f} thousand",
        f"{kept:.0f} MB",
        f"{by_queue:.0f} MB",
    ):
        assert text in told


def test_the_rates_on_the_page_about_brokers_are_those_that_were_measured() -> None:
    """When they are measured anew, that page follows too."""
    told = prose_of(ROOT / "docs" / "topics" / "broker.md")
    received = 1_000_000 / measured("burst", "asyncnotify stream()", 2)
    rates = {
        "asyncnotify notify()": measured("publishing", "asyncnotify notify()", 1),
        "1 listener": measured("writers", "NOTIFY, 1 idle listener", 1),
        "no NOTIFY": measured("writers", "without NOTIFY", 1),
        "100 listeners": measured("writers", "NOTIFY, 100 idle listeners", 1),
        "append": measured("log append", "asyncnotify log", 1),
        "append, no NOTIFY": measured("log append", "asyncnotify log, no NOTIFY", 1),
        "consume": measured("log consume", "asyncnotify log", 2),
        "pgqueuer": measured("log consume", "pgqueuer", 2),
        "procrastinate": measured("log consume", "procrastinate", 2),
        "received": round(received, -4),
    }
    assert {name for name, rate in rates.items() if f"{rate:,.0f}" not in told} == set()


def cells_of(page: str, row: str) -> list[str]:
    """Return the cells of a table's row behind the first one, links without their targets."""
    text = LINKED.sub(r"\1", prose_of(ROOT / "docs" / page))
    (found,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", text, re.MULTILINE)
    return [cell.strip() for cell in found.split("|")]


def test_the_figures_of_the_comparison_are_those_that_were_measured() -> None:
    """When they are measured anew, the tables of the comparison follow."""
    peers = ("asyncnotify stream()", "asyncpg add_listener", "psycopg 3 notifies()")
    bursts = [
        measured("burst", row, 1) for row in (*peers, "asyncpg-listen", "broadcaster", "psqlpy")
    ]
    row = "processor time of a notification in a burst, µs"
    assert cells_of("comparison.md", row) == [f"{figure:.2f}" for figure in bursts]
    back = [measured("recovery", row, 0) for row in ("asyncnotify", "asyncpg-listen")]
    cells = cells_of("comparison.md", "receives again after the end of its session, ms")
    assert [cells[0], cells[3]] == [f"{figure:.0f}" for figure in back]
    latencies = [measured("latency p50", row, 0) for row in peers[:2]]
    cells = cells_of("comparison.md", "from NOTIFY to the consumer, idle, median µs")
    assert cells[:2] == [f"{figure:.0f}" for figure in latencies]


def test_the_figures_on_the_pages_about_changing_over_are_those_that_were_measured() -> None:
    """When they are measured anew, those pages follow too."""
    cpu = {
        "asyncpg.md": ("asyncpg add_listener", "asyncnotify def handler"),
        "asyncpg-listen.md": ("asyncpg-listen", "asyncnotify async def handler"),
        "psycopg.md": ("psycopg 3 notifies()", "asyncnotify stream()"),
        "broadcaster.md": ("broadcaster", "asyncnotify stream()"),
    }
    for page, rows in cpu.items():
        told = prose_of(ROOT / "docs" / "coming-from" / page)
        assert {row for row in rows if f"{measured('burst', row, 1):.2f}" not in told} == set()
    latencies = [
        round(measured("latency p50", row, 0))
        for row in ("asyncpg add_listener", "asyncnotify stream()", "asyncnotify def handler")
    ]
    told = " ".join(prose_of(ROOT / "docs" / "coming-from" / "asyncpg.md").split())
    assert f"{latencies[0]} µs against {latencies[2]} on an idle" in told
    assert f"the {latencies[2] - latencies[0]} µs above" in told
    told = " ".join(prose_of(ROOT / "docs" / "comparison.md").split())
    assert f"{latencies[1] - latencies[0]} to {latencies[2] - latencies[0]} µs sooner" in told
    by_hand = measured("recovery", "asyncpg, connected anew by hand", 0)
    assert f"connecting anew takes {by_hand} ms" in told


def test_the_figures_beside_the_log_are_those_that_were_measured() -> None:
    """When they are measured anew, the table of ways to lose nothing follows."""
    rows = {
        "events a second, appended by 8 writers, with a NOTIFY": (
            "log append",
            1,
            ("asyncnotify log", "pgmq, NOTIFY", "pgqueuer", "procrastinate"),
        ),
        "the same without a NOTIFY": ("log append", 1, ("asyncnotify log, no NOTIFY", "pgmq")),
        "events a second, consumed by 100": (
            "log consume",
            2,
            ("asyncnotify log", "pgmq", "pgqueuer", "procrastinate"),
        ),
    }
    for row, (table, column, peers) in rows.items():
        told = re.findall(r"[\d,]+", " ".join(cells_of("comparison.md", row)))
        assert told == [f"{measured(table, peer, column):,.0f}" for peer in peers]


# -- tables and drawings of the design ------------------------------------------------------------


def test_design_draws_every_state() -> None:
    """The diagram has exactly the states that a listener can be in."""
    (diagram,) = (block.text for block in BLOCKS if block.language == "mermaid")
    drawn = {*re.findall(r"(\w+) -->", diagram), *re.findall(r"--> (\w+)", diagram)}
    assert drawn == set(State)


def seconds_in(function: Callable[..., object]) -> dict[str, float]:
    """Return the arguments of a function that are a number of seconds, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, float)}


@pytest.mark.parametrize("document", [DESIGN, RELIABILITY], ids=lambda path: path.name)
def test_every_deadline_is_told(document: Path) -> None:
    """The table of deadlines has every argument that is one, with its default."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", prose_of(document), re.MULTILINE)
    expected = seconds_in(Listener) | seconds_in(Listener.listen) | seconds_in(Listener.stream)
    assert {name: float(default) for name, default in rows} == expected


def test_design_shows_the_layers() -> None:
    """The layers shown are those that the imports are checked against."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["asyncnotify"])
    assert "\n".join(layers) + "\n" in {block.text for block in BLOCKS if block.document == DESIGN}
