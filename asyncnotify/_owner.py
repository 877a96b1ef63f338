"""A listener or notifier may be used only in the event loop and process that started it."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from asyncnotify._errors import WrongLoopError


class Owner:
    """The event loop and the process in which this object was made."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether the caller runs in this event loop. In a fork no loop is running at first."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def check(self) -> None:
        """
        Return if the call comes from this event loop. Touches no socket.

        Raises:
            WrongLoopError: The call comes from another event loop, thread or process.
        """
        if self.is_here:
            return
        if self.is_other_process:
            msg = (
                "the listener or notifier was started by another process, and a fork cannot share"
                " its connection: start it in this process too"
            )
            raise WrongLoopError(msg)
        msg = (
            "the listener or notifier belongs to another event loop: from another thread use"
            " asyncio.run_coroutine_threadsafe(…, loop) with the loop that started it; in a"
            " program without an event loop use BlockingListener or BlockingNotifier"
        )
        raise WrongLoopError(msg)

    @property
    def is_other_process(self) -> bool:
        """Whether the caller runs in a fork of the process in which this object was made."""
        return os.getpid() != self._process


def leave_to_parent(*things: object) -> None:
    """In a fork, keep inherited objects: if collected, they would close the parent's connection."""
    _left_to_parent.extend(things)


_left_to_parent: Final[list[object]] = []
