"""What docs/coming-from shows of other libraries: the old program, and both in one process."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.machine import scaled
from tests.support.services import ENVIRONMENT
from tests.support.web_servers import DOCS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

POSTGRES: Final = "localhost/postgres"
"""Behind the scheme, which SQLAlchemy has another of."""

REDIS: Final = "redis://localhost"
LIMIT: Final = scaled(30.0)

PROGRAMS: Final = (
    ("asyncpg-listen.md", "with_asyncpg_listen.py", "asyncpg_listen"),
    ("asyncpg-listen.md", "both_asyncpg_listen.py", "asyncpg_listen"),
    ("psycopg.md", "with_psycopg.py", "psycopg"),
    ("psycopg.md", "with_psycopg2.py", "psycopg2"),
    ("psycopg.md", "with_sqlalchemy.py", "sqlalchemy"),
    ("broadcaster.md", "with_broadcaster.py", "broadcaster"),
    ("broadcaster.md", "both_broadcaster.py", "broadcaster"),
    ("redis.md", "with_redis.py", "redis"),
    ("redis.md", "with_redis_stream.py", "redis"),
    ("redis.md", "both_redis.py", "redis"),
    ("pgqueuer.md", "with_pgqueuer.py", "pgqueuer"),
    ("pgqueuer.md", "both_pgqueuer.py", "pgqueuer"),
)
"""Each with its page, and the library that it needs."""


@contextlib.contextmanager
def redis_server(folder: Path) -> Generator[str]:
    """Run an empty Redis, and return its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    socket = folder / "redis.sock"
    options = ("--port", "0", "--save", "", "--unixsocket", str(socket))
    with subprocess.Popen(
        [program, *options], cwd=folder, encoding="utf-8", stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        try:
            assert any("ready to accept" in line.lower() for line in server.stdout)
            yield f"unix://{socket}"
        finally:
            server.kill()


@pytest.mark.parametrize(("page", "name", "library"), PROGRAMS)
def test_program_prints_what_the_page_says(
    page: str, name: str, library: str, dsn: str, tmp_path: Path
) -> None:
    """A reader finds the code that is to be replaced, and it does what the new code does."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    text = (DOCS / "coming-from" / page).read_text(encoding="utf-8")
    block = rf"^```python\n# {name}\n(.*?)^```\n+```text\n(.*?)^```$"
    ((program, printed),) = re.findall(block, text, re.MULTILINE | re.DOTALL)
    assert program.count(POSTGRES) + program.count(REDIS)
    with contextlib.ExitStack() as stack:
        program = program.replace(POSTGRES, dsn.partition("://")[2])
        if REDIS in program:
            program = program.replace(REDIS, stack.enter_context(redis_server(tmp_path)))
        (tmp_path / name).write_text(program, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, name],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            encoding="utf-8",
            env=ENVIRONMENT,
            timeout=LIMIT,
        )
    assert (ended.stderr, ended.stdout) == ("", printed)
    assert ended.returncode == 0
