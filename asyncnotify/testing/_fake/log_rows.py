"""Rows as a log wants them of a server: by number, in slices and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from uuid import UUID


class Row:
    """A row of an answer."""

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: tuple[str, ...], values: Iterable[Any]) -> None:
        self._columns = columns
        self._values = tuple(values)

    def __repr__(self) -> str:
        return f"<Row of {', '.join(self._columns)}>"

    def __getitem__(self, key: str | int | slice) -> Any:  # noqa: ANN401 - a column of any type
        return self._values[self._columns.index(key) if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns: ``dict(row)`` asks for them."""
        return self._columns


def row(values: Mapping[str, Any]) -> Row:
    """Return the row of these columns."""
    return Row(tuple(values), values.values())


def answer(value: object) -> list[Row]:
    """Return the rows of an answer that is one value."""
    return [Row(("answer",), (value,))]


class StoredEvent(NamedTuple):
    """
    An event in a log.

    Attributes:
        id: Its number, which it has had since it was appended.
        uid: Its identity.
        channel: Where it was appended.
        key: What it is about.
        payload: The coded payload.
        headers: JSON of the headers.
        appended_at: When, by the server's clock.
        xid: The transaction that has appended it.
        slot: In which part of the log it is kept.
    """

    id: int
    uid: UUID
    channel: str
    key: str | None
    payload: str
    headers: str | None
    appended_at: datetime
    xid: int
    slot: int


class StoredTick(NamedTuple):
    """
    A tick. What belongs to it was committed after the tick before was taken.

    Attributes:
        number: Ascending, without holes.
        xmax: No transaction from this one on had begun.
        running: The transactions that were open.
        top: The greatest id that had been given.
        final: The greatest id of its events; 0 without any.
        total: How many events this tick and all before it hold.
        taken_at: When, by the server's clock.
    """

    number: int
    xmax: int
    running: frozenset[int]
    top: int
    final: int
    total: int
    taken_at: datetime

    def sees(self, xid: int) -> bool:
        """Return whether what a transaction has committed belongs to this tick or to one before."""
        return xid < self.xmax and xid not in self.running

    @property
    def row(self) -> Row:
        """The tick as a log reads it."""
        running = ",".join(map(str, sorted(self.running)))
        return row(
            {
                "number": self.number,
                "epoch": 1,
                "base": 0,
                "snapshot": f"{min(self.running, default=self.xmax)}:{self.xmax}:{running}",
                "own": str(self.xmax),
                "top": self.top,
                "final": self.final,
                "total": self.total,
                "whole": False,
                "taken_at": self.taken_at,
            }
        )
