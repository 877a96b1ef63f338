"""The record of numbered orders: which were sent, and which of them two subscriptions received."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from asyncnotify.testing.history import History, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Subscription: TypeAlias = Literal["handler", "stream"]
SUBSCRIPTIONS: Final[tuple[Subscription, ...]] = ("handler", "stream")


class OrderRecord:
    """
    Records, as it happens, what the writer sends and what each subscription receives.

    Attributes:
        view: The numbers that the handler has received or read from the table.
        absences: The ranges of numbers that were sent while the listener was not listening.
            A number missing elsewhere was lost while it listened, even next to a Gap.
    """

    def __init__(self) -> None:
        self.view: set[int] = set()
        self.absences: list[tuple[int, int]] = []
        self._away_from = 1
        self._history = History()
        self._under_way = self._sent = 0
        self._highest = dict.fromkeys(SUBSCRIPTIONS, 0)
        self._gaps = dict.fromkeys(SUBSCRIPTIONS, 0)
        self._received: dict[Subscription, list[int]] = {name: [] for name in SUBSCRIPTIONS}
        self._changed = asyncio.Event()

    @property
    def sent(self) -> int:
        """The highest number that is committed; all that are smaller are so too."""
        return self._sent

    def sending(self, number: int) -> None:
        """Note that a number is about to be sent."""
        self._under_way = number

    def committed(self, number: int) -> None:
        """Note that a number was sent."""
        self._history.published(number)
        self._sent = number
        self._changed.set()

    def settle(self, table: Collection[int]) -> None:
        """
        Note which numbers are in the table at the end: those were sent, and no others.

        So nothing is left in doubt, not even a commit whose connection died in flight.
        """
        self._history.published(*table)

    def saw(self, subscription: Subscription, number: int) -> None:
        """Note a number that a subscription received."""
        self._history.saw(subscription, number)
        self._highest[subscription] = max(self._highest[subscription], number)
        self._received[subscription].append(number)
        self._changed.set()

    def gap(self, subscription: Subscription) -> None:
        """Note a Gap at this place of a subscription."""
        self._history.gap(subscription)
        self._gaps[subscription] += 1
        self._changed.set()

    def listener_lost(self) -> None:
        """Note that the connection was lost: what was not received by now may be missed."""
        self._away_from = min(self._highest.values()) + 1
        self._changed.set()

    def listener_listens(self) -> None:
        """Note that LISTEN is in effect: only what was being sent by now may have been missed."""
        self.absences.append((self._away_from, self._under_way))
        self._changed.set()

    def read(self, numbers: Collection[int]) -> int:
        """Replace the view by the table; return how many numbers are new to it."""
        news = len(set(numbers) - self.view)
        self.view = set(numbers)
        return news

    def wake(self) -> None:
        """Let `until()` check its fact again: something happened that is not recorded here."""
        self._changed.set()

    def received(self, subscription: Subscription) -> int:
        """Return how many notifications a subscription has received."""
        return len(self._received[subscription])

    def count(self, subscription: Subscription, first: int, last: int) -> int:
        """Return how many of the numbers from one to another a subscription has received."""
        return sum(first <= number <= last for number in self._received[subscription])

    def all_saw(self, number: int) -> bool:
        """Tell whether both subscriptions have received this number or a higher one."""
        return min(self._highest.values()) >= number

    def gaps_seen(self) -> int:
        """Return how many Gaps both subscriptions have seen."""
        return min(self._gaps.values())

    async def until(self, fact: Callable[[], bool], *, within: float) -> bool:
        """Wait until something is true; return whether it became so in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not fact():
                    self._changed.clear()
                    await self._changed.wait()
        return fact()

    def verdicts(self) -> dict[Subscription, Verdict]:
        """Judge both subscriptions; one that saw nothing is judged as well."""
        return {name: self._history.verdict(name) for name in SUBSCRIPTIONS}
