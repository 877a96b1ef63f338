"""Reporting: a service tells regularly, and when it is asked, how it does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import PurePath
from types import TracebackType
from typing import Final, Self

from asyncnotify import Listener, Notification, State, Subscription
from asyncnotify._arguments import check_number, check_present
from asyncnotify._errors import describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._tasks import cancel, retrieve, start
from asyncnotify.ext.reporting._channels import DEFAULT_CHANNEL, call_channel
from asyncnotify.ext.reporting._figures import Figures, Own
from asyncnotify.ext.reporting._report import LONGEST_TEXT, payload_of, payload_of_goodbye

log = Log("reporting")

LEAST_INTERVAL: Final = 0.1
"""Seconds between two reports, however often a service is asked."""

_WAIT_LIMIT: Final = 1.0
"""Seconds for which the start waits for LISTEN, and the end for the server."""

_ENDED: Final = frozenset({State.CLOSING, State.CLOSED})


class Reporting:
    """
    Publishes how a listener does, on a channel, regularly and at once when a roll call asks.

    ``async with Reporting(listener, name="orders-api")`` starts and ends it; ``start()`` and
    ``aclose()`` do the same. It ends by itself when the listener is closed. A report holds
    counters, the names of channels, the host and the process; neither payloads nor the DSN.

    Reporting listens on one more channel of the listener, and sends by ``listener.notify()``.
    While the listener has no connection, nothing is sent. What goes wrong is logged, and affects
    nothing else. What it causes itself is not counted in the reports; ``listener.stats()`` counts
    a notification for each roll call.

    Args:
        listener: A listener that has been started.
        name: What the service calls itself, 1 to 200 characters; None: the name of its program.
        channel: Where the reports go. Roll calls come on the channel of this name with ``.call``
            behind it.
        every: Seconds from one report to the next, at least 0.1. Each is a transaction on the
            server, and is read by those alone who have asked for it.

    Raises:
        TypeError: ``listener`` is not a Listener, or ``name`` is not a text.
        ValueError: ``every`` is not such a number, or ``name`` not of such a length.
        ChannelNameError: The name of a channel is not valid.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        name: str | None = None,
        channel: str = DEFAULT_CHANNEL,
        every: float = 1.0,
    ) -> None:
        check_present("listener", listener, Listener)
        check_number("every", every, minimum=LEAST_INTERVAL)
        self._calls = call_channel(channel)
        self._listener = listener
        self._channel = channel
        self._every = every
        self._name = _checked_name(name)
        self._figures = Figures(listener, self._name, every, self._calls)
        self._task: asyncio.Task[None] | None = None
        self._starts = 0
        self._has_started = False
        self._asked = asyncio.Event()
        self._ready = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._warnings = WarningLimit()

    def __repr__(self) -> str:
        return f"<Reporting {self._name!r} on {self._channel!r}>"

    async def start(self) -> None:
        """
        Begin to report; return once roll calls are answered, or after 1 s without a connection.

        While it reports, further calls only wait for that. A cancelled start leaves nothing behind,
        and does not affect other calls.

        Raises:
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The listener runs in another event loop or process.
        """
        await self._listener.health(server=False)  # refuses where nothing could be reported
        if self._task is None or self._task.done():
            self._ready.clear()
            self._has_started = False
            self._task = start(self._report_until_closed(), name="asyncnotify reporting")
        task = self._task
        ready = asyncio.create_task(self._ready.wait())
        self._starts += 1
        try:
            await asyncio.wait({ready, task}, timeout=_WAIT_LIMIT, return_when="FIRST_COMPLETED")
            self._has_started = True
        except asyncio.CancelledError:
            if self._starts == 1 and not self._has_started:
                task.cancel()
            raise
        finally:
            self._starts -= 1
            ready.cancel()

    async def aclose(self) -> None:
        """
        Stop reporting, and say so to those who collect reports; takes 1 s at most.

        Idempotent. Cancelling the call stops at once.

        Raises nothing.
        """
        task, self._task = self._task, None
        if task is None or task.get_loop().is_closed():
            return
        await cancel({task})
        leaving = start(self._leave(), name="asyncnotify end of reporting")
        try:
            await asyncio.wait({leaving}, timeout=_WAIT_LIMIT)
        finally:
            if not leaving.done():
                await cancel({leaving})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- the task -----------------------------------------------------------------------------

    async def _report_until_closed(self) -> None:
        closed = asyncio.create_task(self._listener.wait_closed())
        closed.add_done_callback(self._listener_closed)
        try:
            await self._report_until_ended()
        finally:
            closed.cancel()

    def _listener_closed(self, closed: asyncio.Task[None]) -> None:
        retrieve(closed)
        self._asked.set()

    async def _report_until_ended(self) -> None:
        while self._listener.state not in _ENDED:
            try:
                if self._listener.is_connected:
                    await self._listen()
                    await self._publish()
            except Exception as error:  # noqa: BLE001 - the program goes on without reports
                cause = describe_error(error)
                text = "a report of service %r was not sent: %s"
                log.warning(self._warnings, cause, text, self._name, cause)
            else:
                if self._listener.is_connected:
                    self._ready.set()
            await self._wait()

    async def _listen(self) -> None:
        if self._subscriptions and self._subscriptions[-1].active:
            return
        subscription = await self._listener.listen(
            self._calls, self._on_call, latest=True, slow_after=None
        )
        self._subscriptions.append(subscription)

    def _on_call(self, _: Notification[str]) -> None:
        self._asked.set()

    async def _publish(self) -> None:
        own = Own.of(subscription.stats() for subscription in self._subscriptions)
        report = await self._figures.report(own)
        await self._listener.notify(self._channel, payload_of(report))

    async def _wait(self) -> None:
        """Return when the next report is due, or has been asked for."""
        await asyncio.sleep(LEAST_INTERVAL)
        due = self._every if self._listener.is_connected else min(self._every, _WAIT_LIMIT)
        try:
            async with asyncio.timeout(due - LEAST_INTERVAL):
                await self._asked.wait()
        except TimeoutError:
            pass
        self._asked.clear()

    async def _leave(self) -> None:
        try:
            if self._listener.is_connected:
                await self._listener.notify(self._channel, payload_of_goodbye(self._figures.id))
            for subscription in self._subscriptions:
                await subscription.cancel()
        except Exception as error:  # noqa: BLE001 - nobody can do anything about that
            text = "the goodbye of service %r was not sent: %s"
            log.info(text, self._name, describe_error(error))


def _checked_name(name: object) -> str:
    if name is None:
        program = PurePath(sys.argv[0] if sys.argv else "")
        is_module = program.name == "__main__.py"  # as `python -m` has it
        return (program.parent if is_module else program).name[:LONGEST_TEXT] or "python"
    if not isinstance(name, str):
        msg = f"name must be a text or None, not {type(name).__name__}"
        raise TypeError(msg)
    if not 0 < len(name) <= LONGEST_TEXT:
        msg = f"name must have 1 to {LONGEST_TEXT} characters, not {len(name)}"
        raise ValueError(msg)
    return name
