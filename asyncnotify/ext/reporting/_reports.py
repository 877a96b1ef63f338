"""Those who ask: all reports as they arrive, and the roll call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from asyncnotify import Listener, Notification, Subscription
from asyncnotify._arguments import check_plain_function, check_present, check_seconds
from asyncnotify.ext.reporting._channels import DEFAULT_CHANNEL, call_channel
from asyncnotify.ext.reporting._report import Goodbye, ServiceReport, parsed
from asyncnotify.typing import Dsn

_MOST_SERVICES: Final = 1_000
"""Services that are remembered: anybody may notify, under ever new names."""


class Reports:
    """
    Collects the reports of all services of a database, from the beginning of ``async with`` on.

    Nobody is asked before ``ask()``; what services report regularly arrives all the same.

    Args:
        listener: A listener that has been started.
        channel: Where the services report.
        on_report: A plain function, called with each report as it arrives.

    Raises:
        TypeError: ``listener`` is not a Listener, or ``on_report`` not such a function.
        ChannelNameError: The name of a channel is not valid.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        channel: str = DEFAULT_CHANNEL,
        on_report: Callable[[ServiceReport], object] | None = None,
    ) -> None:
        check_present("listener", listener, Listener)
        if on_report is not None:
            check_plain_function("on_report", on_report, "the report")
        self._calls = call_channel(channel)
        self._listener = listener
        self._channel = channel
        self._on_report = on_report
        self._newest: dict[str, ServiceReport] = {}
        self._subscription: Subscription | None = None

    @property
    def newest(self) -> tuple[ServiceReport, ...]:
        """The newest report of each service that has not stopped since, by name, host and pid."""
        return tuple(sorted(self._newest.values(), key=lambda one: (one.name, one.host, one.pid)))

    async def __aenter__(self) -> Self:
        """
        Begin to collect.

        Raises:
            ListenTimeoutError: The server did not confirm in time.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The listener runs in another event loop or process.
        """
        self._subscription = await self._listener.listen(self._channel, self._receive)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._subscription is not None:
            await self._subscription.cancel()

    async def ask(self) -> None:
        """
        Let every service that reports on this channel report at once; does not wait for them.

        Raises:
            Exception: What ``listener.notify()`` raises.
        """
        await self._listener.notify(self._calls)

    def forget(self, service: str) -> None:
        """
        Forget a service, by the ``id`` of its reports, until it reports again.

        Raises nothing.
        """
        self._newest.pop(service, None)

    def _receive(self, notification: Notification[str]) -> None:
        message = parsed(notification.payload)
        if isinstance(message, Goodbye):
            self.forget(message.id)
        elif message is not None:
            self._newest.pop(message.id, None)
            self._newest[message.id] = message
            if len(self._newest) > _MOST_SERVICES:
                self.forget(next(iter(self._newest)))
            if self._on_report is not None:
                self._on_report(message)


async def roll_call(
    source: Dsn | Listener | None = None,
    *,
    channel: str = DEFAULT_CHANNEL,
    timeout: float = 1.0,
) -> tuple[ServiceReport, ...]:
    """
    Ask who listens, and return a report of each service that answers in time.

    Only services that run ``Reporting`` answer. How many these are, nobody knows: the call always
    takes the whole time. Cancelling it leaves nothing behind.

    Args:
        source: Where to ask: a DSN, as for Listener; None: as PGHOST and the other variables of
            libpq say; or a listener that has been started, in whose database it is.
        channel: Where the services report.
        timeout: Seconds to wait for answers.

    Raises:
        TypeError: ``source`` is none of these.
        ValueError: ``timeout`` is not a positive number of seconds.
        ChannelNameError: The name of a channel is not valid.
        AsyncNotifyError: What the start of a Listener and its ``notify()`` raise: there is no
            connection.
    """
    check_seconds("timeout", timeout)
    call_channel(channel)
    if isinstance(source, Listener):
        return await _asked(source, channel, timeout)
    async with Listener(source, start_timeout=10.0) as listener:
        return await _asked(listener, channel, timeout)


async def _asked(listener: Listener, channel: str, timeout: float) -> tuple[ServiceReport, ...]:
    async with Reports(listener, channel=channel) as reports:
        await reports.ask()
        await asyncio.sleep(timeout)
        return reports.newest
