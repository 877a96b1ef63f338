"""What goes to the two streams: results to standard output, words to standard error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._escaping import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

__all__ = [
    "Output",
    "as_json",
    "discard_output",
    "is_terminal",
    "print_json",
    "say",
    "say_now",
    "show_table",
]

_STDOUT: Final = 1


def say(text: str) -> None:
    """Say something on standard error, in one line; a stream that is closed is no error."""
    with contextlib.suppress(OSError):
        print(escaped(text), file=sys.stderr, flush=True)


def say_now(text: str) -> None:
    """Say something that has happened now: with the time, as log lines have it."""
    say(f"{time.strftime('%H:%M:%S')} {text}")


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def as_json(values: Mapping[str, Any]) -> str:
    """
    Return one line of JSON, which can be read, and which no terminal acts upon.

    Texts stay as they are, except for what is not printable: that is escaped as JSON does.
    """
    text = json.dumps(values, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def print_json(values: Mapping[str, Any]) -> None:
    """Print one line of JSON as a result."""
    print(as_json(values), flush=True)


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as a result, as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table: Table = Table(title=Text(escaped(title), style="bold"), box=box.SIMPLE_HEAD)
    table.title_justify = "left"
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(escaped(str(value))) for value in row))
    Console(highlight=False).print(table)
    sys.stdout.flush()


def discard_output() -> None:
    """Let what is still buffered go nowhere: the reader of a pipe has left."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), _STDOUT)


class Output:
    """
    Standard output for a coroutine: a reader that is slow holds up no event loop.

    A thread writes. It ends with the process, also where it waits for a reader for ever.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._write_all, name="standard output", daemon=True).start()

    async def write(self, text: str) -> None:
        """
        Write a text; return once the system has taken it.

        Cancelling it leaves unknown how much of the text was written.

        Raises:
            OSError: The text cannot be written; BrokenPipeError: the reader has left.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put((text.encode(errors="backslashreplace"), written))
        await written

    def _write_all(self) -> None:
        while True:
            data, written = self._jobs.get()
            error: OSError | None = None
            try:
                _write(data)
            except OSError as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                written.get_loop().call_soon_threadsafe(_finish, written, error)


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(_STDOUT, left) :]
        except BlockingIOError:  # another program has made the terminal non-blocking
            select.select([], [_STDOUT], [])


def _finish(written: asyncio.Future[None], error: OSError | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
