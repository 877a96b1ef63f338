"""The runs of a listener, one after another: whether there is one now, and whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify._errors import ClosedError, NotStartedError
from asyncnotify._model import State, Stats

if TYPE_CHECKING:
    from asyncnotify._run.lifetime import Lifetime

_NOT_STARTED: Final = "the listener has not been started: use `async with` or `await start()`"


class Runs:
    """
    Holds the last run of a listener, which goes on, or is over, or is that of another process.

    Attributes:
        last: The last run, None before the first one. In a fork of the process that began it, it is
            the parent's: its connection must not be touched.
    """

    def __init__(self) -> None:
        self.last: Lifetime | None = None

    @property
    def last_is_parents(self) -> bool:
        """Whether the last run was begun by the process of which this one is a fork."""
        return self.last is not None and self.last.owner.is_other_process

    @property
    def has_present(self) -> bool:
        """Whether a run goes on, be it in this process or in that of which this one is a fork."""
        return self.last is not None and not self.last.has_ended

    @property
    def present_here(self) -> Lifetime | None:
        """The present run of this process, in whatever event loop."""
        return self.last if self.has_present and not self.last_is_parents else None

    @property
    def state(self) -> State:
        """What the listener is doing in this process."""
        return State.NEW if self.last is None or self.last_is_parents else self.last.state

    def stats(self) -> Stats:
        """Return the counters of the last run of this process."""
        return Stats() if self.last is None or self.last_is_parents else self.last.stats()

    def running(self) -> Lifetime:
        """
        Return the present run, which the caller may use.

        Raises:
            NotStartedError: There has been none.
            ClosedError: The last one is over.
            WrongLoopError: It belongs to another event loop or process.
        """
        if self.last is None:
            raise NotStartedError(_NOT_STARTED)
        if self.last.has_ended and not self.last_is_parents:
            raise ClosedError(self.last.how_ended)
        self.last.owner.check()
        return self.last

    async def end(self, *, drain: bool, timeout: float) -> None:
        """
        End the present run, if there is one, as ``Lifetime.end()`` does.

        Raises:
            WrongLoopError: The run belongs to another event loop or process.
        """
        if self.last is not None and self.has_present:
            self.last.owner.check()
            await self.last.end(drain=drain, timeout=timeout)

    async def wait_ended(self, timeout: float | None) -> None:
        """
        Return when the last run is over.

        Raises:
            TimeoutError: The run goes on.
            NotStartedError: There has been none.
            ClosedError: A bug in asyncnotify has ended the run.
            WrongLoopError: The run belongs to another event loop or process.
        """
        if self.last is None:
            raise NotStartedError(_NOT_STARTED)
        if self.has_present or self.last_is_parents:
            self.last.owner.check()
        await self.last.wait_ended(timeout)
