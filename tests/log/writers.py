"""Those who append in transactions of every kind, and the judge of what readers have seen."""

from __future__ import annotations

import random
from itertools import chain
from typing import TYPE_CHECKING, Final

from tests.log.conftest import append
from tests.log.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.log.conftest import Connection

TRANSACTIONS: Final = 60


class Writer:
    """Appends in transactions that wait, roll back and have savepoints; keeps what committed."""

    def __init__(self, number: int, connection: Connection, seed: object) -> None:
        self.number = number
        self.committed: list[str] = []
        self._connection = connection
        self._random = random.Random(f"{seed} {number}")
        self._count = 0

    async def run(self) -> None:
        """Run all transactions."""
        for _ in range(TRANSACTIONS):
            transaction = self._connection.transaction()
            await transaction.start()
            sent = await self._some()
            if self._random.random() < 0.5:
                sent += await self._savepoint()
            if self._random.random() < 0.3:
                await self._pause()
            sent += await self._some()
            if self._random.random() < 0.2:
                await transaction.rollback()
            else:
                await transaction.commit()
                self.committed += sent

    async def _pause(self) -> None:
        if isinstance(self._connection, FakeConnection):
            await self._connection.pause(self._random.random() / 20)
        else:
            await self._connection.execute("SELECT pg_sleep(random() / 20)")

    async def _some(self) -> list[str]:
        sent: list[str] = []
        for _ in range(self._random.randrange(4)):
            sent.append(f"{self.number}:{self._count}")
            self._count += 1
            await append(self._connection, sent[-1])
        return sent

    async def _savepoint(self) -> list[str]:
        savepoint = self._connection.transaction()
        await savepoint.start()
        sent = await self._some()
        if self._random.random() < 0.5:
            await savepoint.rollback()
            return []
        await savepoint.commit()
        return sent


def judge(committed: Sequence[Sequence[str]], seen: Sequence[Sequence[str]]) -> None:
    """
    Check what readers have seen against what each writer has committed.

    0 missing, 0 made up, 0 twice, 0 inversions of one writer's events, one order for all.
    """
    first, *others = seen
    assert sorted(first) == sorted(chain.from_iterable(committed))
    for number, sent in enumerate(committed):
        assert [payload for payload in first if payload.startswith(f"{number}:")] == sent
    assert all(other == first for other in others)
