"""The commands ``log …`` where they cannot do what they are asked for."""

from __future__ import annotations

import pytest

from tests.support.commands import ran


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--retention", "soon"], "is no duration"),
        (["--retention", "2d", "--limit", "1d"], "limit must be at least retention"),
        (["--ring", "99"], "ring must be 3 to 64"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: list[str], problem: str) -> None:
    """With status 2, before any connection is made."""
    run = ran("log", "install", "shop", *arguments)
    assert run.returncode == 2
    assert problem in " ".join(run.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["status", "shop"], 4, "the database has no log 'shop'"),
        (["read", "shop"], 4, "the database has no log 'shop'"),
        (["seek", "shop", "mailer", "start"], 4, "the database has no log 'shop'"),
        (["status", "No Name"], 2, "No Name"),
        (["read", "shop", "--after", "soon"], 2, "is no place in a log"),
        (["read", "shop", "--after", "shop:x"], 2, "is not the text of a position"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], status: int, problem: str, dsn: str
) -> None:
    """With its status, and without a traceback."""
    run = ran("log", *arguments, dsn=dsn)
    assert (run.returncode, run.stdout) == (status, "")
    assert problem in " ".join(run.stderr.replace("│", " ").split())
    assert "Traceback" not in run.stderr
