"""Where the database is: what users have in their environment, and what is said if it is wrong."""

from __future__ import annotations

import pytest

from asyncnotify.cli.options import plain_dsn
from tests.support.commands import ran


def wrong_dsns(port: int) -> list[tuple[dict[str, str], int, str]]:
    """Return environments, the exit status, and what is said."""
    return [
        ({"ASYNCNOTIFY_DSN": "mysql://me:secret@localhost/x"}, 2, "begins with mysql://"),
        ({"DATABASE_URL": "no url, but secret"}, 2, "is no URL"),
        ({"DATABASE_URL": f"postgres://me:secret@127.0.0.1:{port}/x"}, 3, "Connect call failed"),
    ]


@pytest.mark.parametrize("command", [("listen", "x", "--wait", "0.2"), ("notify", "x")])
def test_a_wrong_dsn_is_one_line(command: tuple[str, ...], unused_tcp_port: int) -> None:
    """With status 2 if it cannot be read, 3 if nobody answers; no traceback, and no password."""
    for given, status, words in wrong_dsns(unused_tcp_port):
        run = ran(*command, **given)
        assert (run.returncode, run.stdout) == (status, ""), run
        assert words in run.stderr
        assert "Traceback" not in run.stderr
        assert "secret" not in run.stderr


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_database_url_is_taken_as_programs_keep_it(scheme: str, dsn: str) -> None:
    """Also SQLAlchemy's URLs, for whatever driver; ASYNCNOTIFY_DSN goes before, and --dsn first."""
    url = scheme + dsn.removeprefix("postgresql")
    wrong = "postgresql://nobody@127.0.0.1:1/x"
    assert ran("notify", "x", DATABASE_URL=url).returncode == 0
    assert ran("notify", "x", dsn=url, DATABASE_URL=wrong).returncode == 0
    assert ran("notify", "x", "--dsn", url, dsn=wrong, DATABASE_URL=wrong).returncode == 0


def test_only_the_name_of_the_driver_is_left_out() -> None:
    """All else of a URL stays as it is."""
    assert (
        plain_dsn("postgres+pg8000://a+b:c+d@h/x?e=f+g") == "postgres+asyncpg://a+b:c+d@h/x?e=f+g"
    )
    assert plain_dsn(" postgresql://a@h/x ") == "postgresql://a@h/x"
