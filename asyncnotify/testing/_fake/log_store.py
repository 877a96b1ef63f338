"""A log in memory: what it can be asked, by the verbs of ``asyncnotify.log.sources``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncnotify.log.sources import GivenSettings, newest_version, wake_channel
from asyncnotify.testing._fake.log_consumers import Consumers
from asyncnotify.testing._fake.log_order import Order
from asyncnotify.testing._fake.log_rows import Row, answer, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.log.sources import Settings
    from asyncnotify.testing._fake.state import State

    Verb = Callable[..., list[Row]]


class LogStore:
    """
    A log that has been installed. Called under the server's lock.

    Attributes:
        order: The events and the ticks.
        consumers: The cursors and the dead letters.
        verbs: What can be asked without a session.
    """

    def __init__(self, state: State, log: str, settings: Settings) -> None:
        self._state, self._log = state, log
        self.wake_channel: Final = wake_channel(log)
        self.order: Order = Order(state, settings)
        self.consumers: Consumers = Consumers(state, self.order)
        order, consumers = self.order, self.consumers
        self.verbs: dict[str, Verb] = {
            "tick": order.tick,
            "ticks": order.rows_of_ticks,
            "news": order.news,
            "place": order.place,
            "last_before": order.last_before,
            "visible": order.visible,
            "short": order.short,
            "late": order.late,
            "first_late": order.first_late,
            "expire": self._expire,
            "buckets_of": consumers.buckets_of,
            "add_consumer": consumers.add,
            "knows": consumers.buckets_of,
            "seek": lambda *arguments: self._woken(consumers.seek(*arguments[:-1])),
            "pause": lambda *arguments: self._woken(consumers.pause(*arguments[:-1])),
            "drop": lambda *arguments: self._woken(consumers.drop(*arguments[:-1])),
            "has_consumer": consumers.has,
            "commit": consumers.commit,
            "bury": consumers.bury,
            "discard": consumers.discard,
            "dead_letters": consumers.dead_letters,
            "log_status": self._status,
            "consumers": consumers.rows,
        }

    def install(self, given: GivenSettings) -> None:
        """Keep events for as long as was given; the number of parts stays as it is."""
        self.order.settings = given.for_log(self._log, self.order.settings)

    def wake(self, pid: int) -> None:
        """Notify those who read."""
        self._state.commit(pid, [(self.wake_channel, "")])

    def _woken(self, is_there: bool) -> list[Row]:  # noqa: FBT001 - an answer
        """Wake those who serve the consumer, which has been changed; answer whether it is there."""
        if is_there:
            self.wake(self._state.own_pid)
        return answer(is_there)

    def _expire(self) -> list[Row]:
        ticks = list(self.order.ticks)
        emptied = self.order.expire(self.consumers.consumed_up_to)
        self.consumers.note_removed(ticks[: self.order.ticks[0].number - ticks[0].number])
        return emptied

    def _status(self) -> list[Row]:
        newest, settings = self.order.ticks[-1], self.order.settings
        values: dict[str, Any] = {
            "epoch": 1,
            "tick": newest.number,
            "top": newest.top,
            "total": newest.total,
            "kept_since": self.order.ticks[0].taken_at,
            "version": newest_version(),
            "retention": settings.retention,
            "keep_at_most": settings.limit,
            "size": self.order.size,
        }
        return [row(values)]
