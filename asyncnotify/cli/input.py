"""Standard input as lines, for a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, Self

from asyncnotify import AsyncNotifyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["InputError", "Lines", "portions"]

_STDIN: Final = 0
_CHUNK: Final = 65_536
_LONGEST: Final = 7_999
"""Bytes of a payload."""

_MOST: Final = 1_000
"""Notifications in one transaction, as a Notifier sends them."""


class InputError(AsyncNotifyError, ValueError):
    """A line of standard input that cannot be sent."""


class Lines:
    """
    The lines of standard input, in lists, as they come; without their ends.

    Holds a chunk of 64 KiB and the beginning of a line. A thread reads; it ends with the process,
    also where it waits for input for ever.

    Raises:
        InputError: While iterating, behind the lines before: a line cannot be sent.
    """

    def __init__(self) -> None:
        self._error: InputError | None = None
        self._rest = b""
        self._number = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[str]:
        """Return the next lines, at least one; cancelling it loses what was read meanwhile."""
        while not self._ended:
            data = await _read()
            self._ended = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            if (self._ended and self._rest) or len(self._rest) > _LONGEST:
                lines.append(self._rest)
            if lines and (texts := self._decoded(lines)):
                return texts
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def _decoded(self, lines: list[bytes]) -> list[str]:
        """Return lines as far as they can be sent; the next call raises what ends them."""
        texts: list[str] = []
        for line in lines:
            self._number += 1
            if (problem := _problem_of(line)) is not None:
                self._error = InputError(f"line {self._number} {problem}")
                self._ended = True
                break
            texts.append(line.decode())
        return texts


def _problem_of(line: bytes) -> str | None:
    if len(line) > _LONGEST:
        return f"has {len(line):,} bytes; a notification holds at most {_LONGEST:,}"
    if b"\0" in line:
        return "holds a NUL, which no notification can"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "is no UTF-8"
    return None


def portions(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield lines in portions, in which no two are equal: of those the server delivers one."""
    portion: dict[str, None] = {}
    for line in lines:
        if line in portion or len(portion) == _MOST:
            yield list(portion)
            portion = {}
        portion[line] = None
    if portion:
        yield list(portion)


async def _read() -> bytes:
    """Return what is there to be read; nothing at the end of the input."""
    loop = asyncio.get_running_loop()
    read: asyncio.Future[bytes] = loop.create_future()

    def in_thread() -> None:
        data, error = b"", None
        try:
            data = os.read(_STDIN, _CHUNK)
        except OSError as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(_finish, read, data, error)

    threading.Thread(target=in_thread, name="standard input", daemon=True).start()
    return await read


def _finish(read: asyncio.Future[bytes], data: bytes, error: OSError | None) -> None:
    if read.done():
        return
    if error is None:
        read.set_result(data)
    else:
        read.set_exception(error)
