"""The exit statuses of all commands."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BAD_RESULT",
    "HUNG_UP",
    "INTERRUPTED",
    "MEANINGS",
    "NOT_DONE",
    "READER_LEFT",
    "TERMINATED",
    "UNREACHABLE",
    "USAGE",
]

BAD_RESULT: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_DONE: Final = 4
HUNG_UP: Final = 129
INTERRUPTED: Final = 130
READER_LEFT: Final = 141
TERMINATED: Final = 143

MEANINGS: Final = {
    0: "the command did what it was asked for",
    BAD_RESULT: "the command ran, and its result is bad, or could not be written",
    USAGE: "wrong arguments, or something that the command needs is missing",
    UNREACHABLE: "no connection to the database, or the connection was lost",
    NOT_DONE: "the database refused, or the log or the table does not exist",
    5: "`doctor` only: warnings, and no error",
    6: "`doctor` only: a check could not find out",
    HUNG_UP: "ended by SIGHUP: its terminal was closed",
    INTERRUPTED: "ended by Ctrl-C",
    READER_LEFT: "the reader of the output has left, as with `head -1`",
    TERMINATED: "ended by SIGTERM",
}
"""What each status says; those of signals are as shells count them: 128 and the number."""
