"""The password file: as libpq reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncnotify._asyncpg._parameters.files import find_password, password_file
from asyncnotify._logs import WarningLimit

if TYPE_CHECKING:
    from pathlib import Path

TEXT = r"""# db:5432:app:joe:comment
broken line
db:5432:app:ann:anns
db:5433:app:joe:other port
db:5432:app:joe:pass:word\\\:
\:\:1:*:*:j\:oe:by escapes
localhost:*:app:joe:socket
*:*:*:*:anybodys
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A password file that only its owner can read."""
    file = tmp_path / "pgpass"
    file.write_text(TEXT)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("host", "port", "user", "password"),
    [
        ("db", 5432, "joe", r"pass:word\:"),
        ("db", 5433, "joe", "other port"),
        ("db", 5432, "ann", "anns"),
        ("::1", 1, "j:oe", "by escapes"),
        ("localhost", 1, "joe", "socket"),
        ("elsewhere", 1, "joe", "anybodys"),
    ],
)
def test_the_first_line_that_matches_has_the_password(
    file: Path, host: str, port: int, user: str, password: str
) -> None:
    """A star matches all; a backslash takes the meaning from what follows it."""
    assert find_password(file, {host}, port, "app", user) == password


def test_without_a_line_that_matches_there_is_no_password(file: Path) -> None:
    """Nor with a file that cannot be read, or that is no text."""
    file.write_text("db:5432:app:ann:anns\n")
    assert find_password(file, {"db"}, 5432, "app", "ann") == "anns"
    assert find_password(file, {"db"}, 5432, "app", "joe") is None
    file.write_bytes(b"\xff")
    assert find_password(file, {"db"}, 5432, "app", "ann") is None


def test_a_file_that_others_can_read_is_not_used(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, as libpq does; a file that is not there is none."""
    warnings = WarningLimit()
    assert password_file(str(file), warnings) == file
    file.chmod(0o640)
    assert password_file(str(file), warnings) is None
    assert "others have access" in caplog.text
    assert password_file(str(file.parent), warnings) is None
    assert password_file(str(file / "none"), warnings) is None
    assert find_password(None, {"db"}, 5432, "app", "joe") is None


def test_a_file_that_is_not_used_is_no_flood(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is looked at for each attempt to connect; one WARNING in a minute is enough."""
    file.chmod(0o640)
    warnings = WarningLimit()
    for _ in range(100):
        password_file(str(file), warnings)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
