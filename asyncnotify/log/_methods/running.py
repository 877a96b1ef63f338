"""What all methods of a log need: its options, and what it has in the present event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnotify._owner import OfOneProcess, leave_to_parent
from asyncnotify.log._options import Options
from asyncnotify.log._runtime import Runtime

if TYPE_CHECKING:
    from asyncnotify.log._consuming.calling import Handling


class Running(OfOneProcess):
    """A log that runs in one event loop at a time, from the first call on until it is closed."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._names = options.names
        self._sessions = options.sessions
        self._runtime: Runtime | None = None
        self._handlings: dict[str, Handling] = {}
        self._ends_new_streams = False

    @property
    def name(self) -> str:
        """The name of the log."""
        return self._names.log

    def _running(self) -> Runtime:
        """Return what the log has in this event loop; refuse if another one has the log."""
        runtime = self._runtime
        if runtime is not None:
            if runtime.owner.is_here and not runtime.has_ended:
                return runtime
            if runtime.owner.is_other_process:
                leave_to_parent(runtime)
            elif not runtime.has_ended and not runtime.owner.loop.is_closed():
                runtime.owner.check()
        self._runtime = Runtime(self._options)
        return self._runtime
