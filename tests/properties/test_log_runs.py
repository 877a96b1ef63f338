"""Ticks of any history of transactions: read together or one by one, the order is one."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnotify.log import Position
from asyncnotify.log._names import Names
from asyncnotify.log._walk.columns import columns_of, packed
from asyncnotify.log._walk.cursor import Cursor, Portion
from asyncnotify.log._walk.statements import Statements
from asyncnotify.log._walk.ticks import Snapshot, Tick
from asyncnotify.log._walk.walk import Size, Walk
from asyncnotify.testing._fake.log_rows import Row, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncnotify.log._ports import Statement

    Place = tuple[int, int]

NOW: Final = datetime.now(UTC)
NAMES: Final = Names("orders")
EVENT: Final = ("id", "uid", "channel", "key", "payload", "headers", "appended_at", "x")
PORTION: Final = (*EVENT, "found", "first_tick")
SIZES: Final = (
    Size(1, 1_000),
    Size(2, 1_000),
    Size(5, 1_000),
    Size(1_000, 3),
    Size(1_000, 12),
    Size(1_000, 40),
    Size(1_000, 100_000),
)


@dataclass
class History:
    """
    Transactions that append, and ticks between them, as PostgreSQL gives xids and snapshots.

    A snapshot's xmax is one more than the latest xid that is *completed*: greater ones may be
    running, and are not listed. Between the snapshot, the top and the xid of a tick all may happen.
    """

    chance: random.Random
    xid: int = 100
    completed: int = 99
    running: set[int] = field(default_factory=set[int])
    committed: set[int] = field(default_factory=set[int])
    events: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    ticks: list[Tick] = field(default_factory=list[Tick])

    def __post_init__(self) -> None:
        self.most = self.chance.choice((3, 1_000))  # ids of a tick
        snapshot = Snapshot.parse("3:3:")
        self.ticks.append(Tick(0, 1, 0, snapshot, 3, 0, 0, 0, whole=False, taken_at=NOW))
        for _ in range(self.chance.randrange(5, 80)):
            self.do_something()
            if self.chance.random() < 0.5:
                self.take_tick()
        for _ in range(len(self.events) // self.most + 1):
            self.take_tick()

    def do_something(self) -> None:
        """Begin a transaction, append in one, or end one."""
        if not self.running or self.chance.random() < 0.3:
            self.running.add(self.xid)
            self.xid += 1
        xid = self.chance.choice(sorted(self.running))
        if self.chance.random() < 0.6:
            payload = "x" * self.chance.choice((0, 1, 1, 5, 30))
            self.events.append((len(self.events) + 1, xid, payload))
        else:
            self.running.remove(xid)
            self.completed = max(self.completed, xid)
            if self.chance.random() < 0.8:
                self.committed.add(xid)

    def take_tick(self) -> None:
        """Take a tick: the snapshot, then the top, then the xid."""
        xmax = self.completed + 1
        listed = sorted(xid for xid in self.running if xid < xmax)
        snapshot = Snapshot(f"{min([*listed, xmax])}:{xmax}:{','.join(map(str, listed))}", xmax, ())
        snapshot = Snapshot.parse(snapshot.text)
        visible = {xid for xid in self.committed if snapshot.sees(xid)}
        self.perhaps_do_something()
        last = self.ticks[-1]
        top = min(len(self.events), last.top + self.most)
        self.perhaps_do_something()
        own, self.xid = self.xid, self.xid + 1
        self.completed = max(self.completed, own)
        held = [
            number
            for number, xid, _ in self.events
            if number <= top and xid in visible and not (number <= last.top and self.was_seen(xid))
        ]
        final, total = max(held, default=0), last.total + len(held)
        self.ticks.append(
            Tick(
                *(last.number + 1, 1, 0, snapshot, own, top, final, total),
                whole=False,
                taken_at=NOW,
            )
        )

    def was_seen(self, xid: int) -> bool:
        """Return whether the last tick sees a transaction that has committed."""
        return xid in self.committed and self.ticks[-1].snapshot.sees(xid)

    def perhaps_do_something(self) -> None:
        """Let others do something meanwhile."""
        if self.chance.random() < 0.3:
            self.do_something()

    @property
    def order(self) -> list[Place]:
        """Where each event stands: in the first tick that sees it and goes as far as its id."""
        return sorted(
            (tick.number, number)
            for number, xid, _ in self.events
            if xid in self.committed
            for tick in [
                next((t for t in self.ticks if t.top >= number and t.snapshot.sees(xid)), None)
            ]
            if tick is not None
        )


class Server:
    """Answers as PostgreSQL does, with what has been committed."""

    def __init__(self, history: History) -> None:
        self._ticks = history.ticks
        self._rows = [
            (number, UUID(int=number), "things", None, payload, None, NOW, xid)
            for number, xid, payload in history.events
            if xid in history.committed
        ]

    async def fetch(self, statement: Statement, /, *arguments: Any) -> Sequence[Any]:
        """Return the rows of the answer."""
        found: Sequence[Any] = getattr(self, statement.verb)(*arguments)
        return found

    def tick(self) -> list[Row]:
        """Nothing is new."""
        return answer(self._ticks[-1].number)

    def place(self, _: int) -> list[Row]:
        """There is one epoch."""
        names = ("newest", "epoch", "next_first")
        return [Row(names, (self._ticks[-1].number, 1, None))]

    def ticks(self, first: int, count: int) -> list[dict[str, Any]]:
        """Return ticks, as rows."""
        return [
            {name: getattr(tick, name) for name in Tick.__slots__}
            | {"snapshot": tick.snapshot.text, "own": str(tick.own)}
            for tick in self._ticks[first : first + count]
        ]

    news = ticks

    def visible(self, after: int, end: int, rows: int, size: int, snapshot: str) -> list[Row]:
        """Return what a snapshot sees."""
        return self._portion(after, end, rows, size, Snapshot.parse(snapshot).sees)

    def late(self, after: int, end: int, rows: int, size: int, xids: list[str]) -> list[Row]:
        """Return what some transactions have appended."""
        return self._portion(after, end, rows, size, set(map(int, xids)).__contains__)

    def short(  # noqa: PLR0917 - what the statement takes
        self, after: int, end: int, rows: int, size: int, usual: str | None, snapshot: str
    ) -> list[Any]:
        """Return what a snapshot sees, packed."""
        found = self._found(after, end, rows, Snapshot.parse(snapshot).sees)
        if not found:
            return [(*(None,) * 6, 0, 0)]
        columns = columns_of(found)
        payloads: Any = [text if len(text) <= size else None for text in columns.payloads]
        short = len(payloads) - payloads.count(None)
        return [(*packed(columns._replace(payloads=payloads), usual), short, 0)]

    def first_late(self, after: int, end: int, xids: list[str]) -> list[Row]:
        """Return the smallest id of some transactions."""
        found = self._found(after, end, 1, set(map(int, xids)).__contains__)
        return answer(found[0][0] if found else None)

    def _found(
        self, after: int, end: int, rows: int, is_wanted: Callable[[int], bool]
    ) -> list[tuple[Any, ...]]:
        return [row for row in self._rows if after < row[0] <= end and is_wanted(row[7])][:rows]

    def _portion(
        self, after: int, end: int, rows: int, size: int, is_wanted: Callable[[int], bool]
    ) -> list[Row]:
        found = self._found(after, end, rows, is_wanted)
        kept: list[tuple[Any, ...]] = []
        for row in found:
            if kept and sum(len(before[4]) for before in kept) >= size:
                break
            kept.append(row)
        nothing = Row(PORTION, (None,) * (len(EVENT) + 1) + (0,))
        return [Row(PORTION, (*row, len(found), 0)) for row in kept] or [nothing]


async def places(cursor: Cursor, size: Size) -> list[Place]:
    """Return the places of all events behind a cursor, each portion of which is small enough."""
    found: list[Place] = []
    while (portion := await cursor.portion()) is not None:
        assert isinstance(portion, Portion)
        lengths = list(map(len, portion.columns.payloads))
        assert sum(lengths) - max(lengths) < size.bytes
        assert 0 < len(lengths) <= size.rows
        found += zip(portion.ticks, portion.columns.ids, strict=True)
    return found


async def check(seed: int) -> None:
    """Read a history in portions of each size, from the start and from places in it."""
    history = History(random.Random(seed))
    server, order = Server(history), history.order
    assert history.ticks[-1].total == len(order)
    for size in SIZES:
        cursor = Cursor(Walk(server, Statements(NAMES), size), NAMES.log)
        await cursor.at_start()
        assert await places(cursor, size) == order
        for number in range(0, len(order), 7):
            await cursor.at_position(Position(NAMES.log, 1, *order[number]))
            assert await places(cursor, size) == order[number + 1 :]


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_the_order_is_one_however_it_is_read(seed: int) -> None:
    """Each event once, in the first tick that sees it, from the start and from each place on."""
    asyncio.run(check(seed))
