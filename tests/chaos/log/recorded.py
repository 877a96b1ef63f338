"""What a consumer that is a process of its own records: lines in a file, which outlive it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from asyncnotify import Gap
from tests.chaos.judge.log_history import Kind, Mark, Seen

if TYPE_CHECKING:
    from pathlib import Path

    from asyncnotify.log import Event, Position
    from tests.chaos.judge.log_history import Entry, Place

__all__ = ["Recorder", "ends_with", "entries_in", "mark_of", "name_of", "place_of", "seen_of"]

_EVENT = "E"


def name_of(payload: str) -> str:
    """Return the name of an event: the first line of its payload, behind which it may be long."""
    return payload.partition("\n")[0]


def place_of(position: Position) -> Place:
    """Return a position without the name of the log."""
    return (position.epoch, position.tick, position.id)


def seen_of(event: Event[str]) -> Seen:
    """Return what is to be noted of an event that has come now."""
    return Seen(place_of(event.position), name_of(event.payload), time.monotonic())


def mark_of(gap: Gap) -> Mark:
    """Return what is to be noted of a Gap."""
    return Mark(Kind.GAP, dropped=gap.dropped)


class Recorder:
    """Appends lines to a file, each by one system call: SIGKILL leaves them whole."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def item(self, item: Event[str] | Gap) -> None:
        """Note an event, or a Gap."""
        if isinstance(item, Gap):
            self.mark(Kind.GAP, "" if item.dropped is None else str(item.dropped))
            return
        seen = seen_of(item)
        self._write(f"{_EVENT} {' '.join(map(str, seen.place))} {seen.at} {seen.name}")

    def mark(self, kind: Kind, text: str = "") -> None:
        """Note what has happened."""
        self._write(f"{kind} {text}")

    def _write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def entries_in(path: Path) -> list[Entry]:
    """Read what was recorded."""
    return [_entry(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _entry(line: str) -> Entry:
    kind, _, rest = line.partition(" ")
    if kind == _EVENT:
        epoch, tick, number, at, name = rest.split(" ", 4)
        return Seen((int(epoch), int(tick), int(number)), name, float(at))
    return Mark(Kind(kind), dropped=int(rest) if rest else None)


def ends_with(path: Path, name: str) -> bool:
    """Return whether the event recorded last has this name."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4_096))
        events = [line for line in file.read().splitlines() if line.startswith(_EVENT.encode())]
    return bool(events) and events[-1].endswith(f" {name}".encode())
