"""
From the driver to the mailboxes: ``Router.on_notification``. The rest is fairness.

One read of the socket can bring more notifications than a buffer holds before any consumer has
run. So after a bounded number of notifications reading pauses until the consumers have had a
turn of the event loop. The pause ends whatever the consumers do: a stuck consumer loses its own
notifications and never stops the reading of the socket.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.turns import Turns
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._model import Notification

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from asyncnotify._delivery.moment import Moment

log = Log("delivery")

_READ_QUANTUM: Final = 4_096
"""Notifications after which reading pauses for a turn. The backlog of one turn of uvloop is then
about 12,000 instead of 376,000, and a burst a third faster (measured, PostgreSQL 18, 2 cores)."""

_EXTRA_TURNS: Final = 100
"""Further slices of time for a consumer whose buffer is over its limit, if they are enough at its
pace. A handler that keeps up needs 40 for the most that one turn of uvloop has brought."""

_TURNS_TO_JUDGE: Final = 16
"""Slices during which any progress is enough: the process may have had little processor time."""

_new_tuple = tuple.__new__  # calling the class runs a __new__ in Python: twice the time


class FlowControl(Protocol):
    """The reading side of a connection."""

    def pause(self) -> bool:
        """Stop reading; return False if that is not possible."""
        ...

    def resume(self) -> None:
        """Read again."""


Put: TypeAlias = "Callable[[Notification[Any]], None]"


class Route:
    """The mailboxes that get the notifications of one channel."""

    __slots__ = ("_puts", "channel", "put")

    def __init__(self, channel: str) -> None:
        self.channel = channel  # all of its notifications share this string
        self._puts: dict[object, Put] = {}
        self.put: Put = self._fan_out

    @property
    def members(self) -> tuple[object, ...]:
        """What has joined and not left."""
        return tuple(self._puts)

    def join(self, member: object, put: Put) -> None:
        """Call ``put`` with every notification, for this member."""
        self._puts[member] = put
        self._choose()

    def leave(self, member: object) -> None:
        """Call the ``put`` of this member no more."""
        del self._puts[member]
        self._choose()

    def _choose(self) -> None:
        only = len(self._puts) == 1
        self.put = next(iter(self._puts.values())) if only else self._fan_out

    def _fan_out(self, notification: Notification[Any]) -> None:
        for put in self._puts.values():
            put(notification)


class _Excess:
    """The progress of a consumer whose mailbox is over its limit, turn by turn."""

    __slots__ = ("backlog", "round", "turns")

    def __init__(self, backlog: int, round_: int) -> None:
        self.backlog = backlog
        self.round = round_  # of the consumer's last turn, or the one in which it may not have one
        self.turns = 0.0

    def is_shrinking(self, backlog: int, limit: int, share: float) -> bool:
        """After one more turn, return whether the consumer soon has made room, at its pace."""
        self.turns += share
        taken = self.backlog - backlog
        if taken <= 0:
            return self.turns <= 1  # its share may have passed while the process did not run
        turns_to_come = (backlog - limit) * self.turns / taken
        return self.turns <= _TURNS_TO_JUDGE or self.turns + turns_to_come < _EXTRA_TURNS


class Router:
    """Routes notifications to mailboxes, for one run of a listener, across its connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.routes: dict[str, Route] = {}
        self.turns: Turns = Turns(loop)
        self.last_contact: float = 0.0
        self._received = 0
        self._in_turn = 0
        self._turn_ends = False
        self._flow: FlowControl | None = None
        self._paused = False
        self._settling = False
        self._full: dict[BoundedMailbox, _Excess] = {}
        # What exceeds it is logged at DEBUG: a buffer may overflow hundreds of times in a second
        clock = lambda: self._loop.time()  # noqa: E731, PLW0108 - there may be no loop yet
        self.warnings: WarningLimit = WarningLimit(beyond=logging.DEBUG, clock=clock)
        self.verified_at: Moment | None = None  # when delivery was last known to be good

    def connect(self, flow: FlowControl | None) -> None:
        """Pause and resume this connection from here on; None: no connection."""
        self._resume()  # the former one, which has to read its end
        self._flow = flow

    def on_notification(self, pid: int, channel: str, payload: str) -> None:
        """Hand one notification to every mailbox of its channel. The hot path."""
        self._in_turn = count = self._in_turn + 1
        if count == 1:
            self._end_turn_soon()
        elif count == _READ_QUANTUM:
            self._pause()
        route = self.routes.get(channel)
        if route is not None:
            route.put(_new_tuple(Notification, (route.channel, payload, pid)))

    @property
    def received(self) -> int:
        """How many notifications have arrived."""
        return self._received + self._in_turn

    def verify(self, when: Moment | None) -> None:
        """Note that everything committed before ``when`` has arrived."""
        self.verified_at = when

    def touch(self) -> None:
        """Note that the server has just answered."""
        self.last_contact = self._loop.time()

    def on_full(self, mailbox: BoundedMailbox) -> None:
        """Pause reading, and give the consumer of this mailbox a turn before trim() is called."""
        if mailbox not in self._full:
            self._full[mailbox] = _Excess(len(mailbox), self.turns.rounds + 1)
            self._pause()
            self._end_turn_soon()

    def _end_turn_soon(self) -> None:
        if not self._turn_ends:
            self._turn_ends = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._received += self._in_turn
        self._in_turn = 0
        self._turn_ends = False
        self.touch()
        self.turns.begin()  # the consumers that were woken run next
        for mailbox, excess in self._full.items():
            if not excess.turns:
                excess.backlog = len(mailbox)  # what its consumer finds at its turn
        if (self._paused or self._full) and not self._settling:
            self._settling = True
            # One more turn: the consumers that these notifications have woken run before it
            self._loop.call_soon(self._after_consumers)

    def _after_consumers(self) -> None:
        for mailbox, excess in tuple(self._full.items()):
            if self.turns.is_past(excess.round):
                excess.round = self.turns.rounds
                self._settle(mailbox, excess)
        if self._full:
            self._loop.call_soon(self._after_consumers)
        else:
            self._settling = False
            self._resume()

    def _settle(self, mailbox: BoundedMailbox, excess: _Excess) -> None:
        """Trim a mailbox that is still full, unless its consumer will make room soon."""
        if mailbox.full and excess.is_shrinking(len(mailbox), mailbox.limit, self.turns.share):
            return
        del self._full[mailbox]
        lost = mailbox.trim()
        if lost:
            self._warn(mailbox, lost)

    def _warn(self, mailbox: BoundedMailbox, lost: int) -> None:
        log.warning(
            self.warnings,
            mailbox,
            "the consumer of %s is too slow: its buffer of %d overflowed and %d notifications"
            " were dropped; %s",
            mailbox.label,
            mailbox.limit,
            lost,
            "a Gap marks the place; use a faster consumer or a larger buffer="
            if mailbox.is_open
            else "the subscription ends",
            channel=mailbox.channel,
        )

    def forget(self, mailbox: object) -> None:
        """Forget a mailbox that has ended."""
        if isinstance(mailbox, BoundedMailbox):
            self._full.pop(mailbox, None)
            self.warnings.forget(mailbox)

    def _pause(self) -> None:
        if not self._paused and self._flow is not None:
            self._paused = self._flow.pause()

    def _resume(self) -> None:
        if self._paused and self._flow is not None:
            self._flow.resume()
        self._paused = False
