"""Where a listener may be used: in the event loop and in the process that started it."""

from __future__ import annotations

import asyncio
import os

from asyncnotify._errors import WrongLoopError


class Owner:
    """The event loop and the process in which it was made."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this code runs in it. In a fork no loop is running until one is started."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def check(self) -> None:
        """Raise WrongLoopError if the call comes from elsewhere. Touches no socket."""
        if self.is_here:
            return
        if self.is_other_process:
            msg = (
                "it was started by another process: a fork cannot share its connection; make and"
                " start one in each process"
            )
            raise WrongLoopError(msg)
        msg = (
            "it belongs to another event loop; from another thread use"
            " asyncio.run_coroutine_threadsafe(…, loop) with the loop that started it, or from"
            " threads without one BlockingListener or BlockingNotifier"
        )
        raise WrongLoopError(msg)

    @property
    def is_other_process(self) -> bool:
        """Whether this is a fork of the process in which it was made."""
        return os.getpid() != self._process
