"""Secrets, and a detector of every text that they might appear in."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS: Final = "asyncnotify"
USER: Final = "alice"
HALVES: Final = ("Kx7quarry", "Wm4lantern")
PASSWORD: Final = "@/:".join(HALVES)  # cut at any of these, a half of it would still be known
PAYLOAD: Final = "Pj9meadow, and Pj9meadow again"
SECRETS: Final = (*HALVES, quote(PASSWORD, safe=""), "Pj9meadow", f"//{USER}")


def chain(error: BaseException) -> list[BaseException]:
    """Return an error with all its causes and contexts, and the members of groups among them."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if id(link) not in found:
            found[id(link)] = link
            members = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
            waiting += [e for e in (link.__cause__, link.__context__, *members) if e is not None]
    return list(found.values())


def texts_of(error: BaseException) -> Iterable[str]:
    """Return every text of an error: its message, its parts, and its traceback."""
    for link in chain(error):
        yield from (str(link), repr(link), repr(link.args), repr(vars(link)))
    yield "".join(traceback.format_exception(error))


class SecretDetector(logging.Handler):
    """Collects what is logged at INFO and above, and the objects passed to `record()`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record: its line with the traceback, and what other formatters would show."""
        self.lines.append(self.format(record))
        self.record(self.lines[-1], record.args)
        if record.exc_info and record.name.startswith(OURS):
            self.record(record.exc_info[1])

    def record(self, *things: object) -> None:
        """Collect a text, an error, an event, or any object by its repr."""
        for thing in things:
            self.texts += [str(thing), f"{thing}", repr(thing)]
            error = getattr(thing, "cause", thing)
            if isinstance(error, BaseException):
                self.texts += texts_of(error)

    def containing(self, *secrets: str) -> list[str]:
        """Return the texts that contain one of these."""
        return [text for text in self.texts if any(secret in text for secret in secrets)]
