"""A channels backend on a durable log."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final

from asyncnotify import ConnectTimeoutError, ExponentialBackoff, Gap, GapReason
from asyncnotify._arguments import check_count, check_flag, check_seconds
from asyncnotify._backoff import Delays
from asyncnotify._errors import describe_error
from asyncnotify._logs import WarningLimit
from asyncnotify._tasks import cancel, start
from asyncnotify.ext.litestar._backend import Backend, OnGap, Subscribed, log
from asyncnotify.ext.litestar._payloads import data_of
from asyncnotify.ext.litestar._sources import LogSource, log_from
from asyncnotify.log import After, Event, Log, LogStream, PositionError

_BACKOFF: Final = ExponentialBackoff()
_START_TIMEOUT: Final = 30.0
_ANSWER_TIMEOUT: Final = 5.0
_PARTS: Final = (64, 8, 1)
"""Of the age to which a history goes back: the last minute of an hour, eight minutes, all of it."""


class LogChannelsBackend(Backend):
    """
    A channels backend for Litestar's ``ChannelsPlugin``, on a durable log.

    Messages are events of the log: nothing that is sent while a connection is lost is missed, there
    is a history that all processes share, and messages may be large. Who appends to the log in a
    transaction of their own, also by SQL, publishes with its commit.

    Each process reads all events of the log, and drops those of channels to which nobody has
    subscribed. Give channels a log of their own where others are busy.

    A subscriber with a history may get a message twice, by the history and as it comes: Litestar
    asks for the one while it hands over the other.

    Messages are UTF-8 as it is, and other bytes in base64. A channel has its own name in the log,
    behind the prefix, if that has 1 to 63 bytes; otherwise a hash stands for it.

    Args:
        source: A Log, or a function that returns one. It is started with the application and closed
            at its end.
        history: Messages that ``get_history()`` returns, at most.
        history_age: Seconds to which a history goes back, at most.
        install: Whether to install the log at the start; takes the rights to make its tables.
        prefix: Stands before the names of all channels in the log; up to 18 bytes.
        on_gap: A plain function that is called with the name of a channel and a Gap, where events
            had been removed before they were read (``EXPIRED``), or an event cannot be decoded.
            What it returns, if not None, is a message that the channel's subscribers get there.
        retry_timeout: Seconds for which ``publish()`` tries again while there is no connection;
            None: not at all.

    Raises:
        ChannelNameError: The prefix is too long, or cannot be in a name.
        TypeError: An argument is of the wrong type.
        ValueError: A number is not positive and finite.
    """

    def __init__(
        self,
        source: LogSource,
        *,
        # history
        history: int = 100,
        history_age: float = 3_600.0,
        # the log
        install: bool = False,
        prefix: str = "",
        on_gap: OnGap | None = None,
        retry_timeout: float | None = 30.0,
    ) -> None:
        super().__init__(prefix=prefix, on_gap=on_gap, retry_timeout=retry_timeout)
        check_count("history", history)
        check_seconds("history_age", history_age)
        check_flag("install", install)
        self._history = history
        self._history_age = history_age
        self._running = log_from(source, install=install)
        self._reading: asyncio.Task[None] | None = None
        self._warnings = WarningLimit()

    @property
    def log(self) -> Log:
        """
        The log, to append to in a transaction.

        Raises:
            NotStartedError: The application does not run.
        """
        return self._running.present

    # -- for Litestar -------------------------------------------------------------------------

    async def on_startup(self) -> None:
        """
        Start the log, and take the place from which messages are handed over.

        Called again, it does nothing.

        Raises:
            NotInstalledError: The database has no such log.
            AsyncNotifyError: As of ``Log.start()`` and ``Log.install()``.
        """
        if self._running.is_running:
            return
        made = await self._running.start()
        try:
            stream = await self._placed(made)
        except BaseException:
            await self._running.close()
            raise
        self._open()
        self._reading = start(self._read(stream), name="asyncnotify litestar log")

    async def on_shutdown(self) -> None:
        """Stop reading, and close the log within its timeout. Idempotent. Raises nothing."""
        reading, self._reading = self._reading, None
        self._close()
        try:
            await cancel([reading] if reading is not None else [])
        finally:
            await self._running.close()

    async def get_history(self, channel: str, limit: int | None = None) -> list[bytes]:
        """
        Return the newest messages of a channel, the oldest of them first.

        At most ``limit``, at most ``history``, and about as old as ``history_age``, at most.
        Without an answer of the server within 5 seconds there is no history, only what ``on_gap``
        says: the plugin would keep a subscriber whose history had failed, and never let it go.

        Raises:
            NotStartedError: The application has not started the backend, or has stopped it.
            AsyncNotifyError: As of ``Log.read()``.
        """
        count = self._history if limit is None else min(limit, self._history)
        if count <= 0:
            return []
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                return await self._newest(channel, count)
        except TimeoutError:
            said = self._said(channel, Gap(channel, GapReason.RECONNECT))
            return [] if said is None else [said]

    # -- inside -------------------------------------------------------------------------------

    async def _send(self, pairs: list[tuple[str, str]]) -> None:
        if len(pairs) == 1:
            await self.log.append(*pairs[0])
        else:
            await self.log.append_many(pairs)

    async def _newest(self, channel: str, count: int) -> list[bytes]:
        found: deque[bytes] = deque(maxlen=count)
        for part in _PARTS:
            found.clear()
            await self._collect(channel, self._history_age / part, found)
            if len(found) == count:
                break
        return list(found)

    async def _placed(self, made: Log) -> LogStream[Event[str] | Gap]:
        """Return a stream that stands at the end of the log."""
        stream = made.read(after="now", gaps=True)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                return await stream.__aenter__()
        except TimeoutError as error:
            msg = f"the log {made.name!r} could not be read within {_START_TIMEOUT:g} s"
            raise ConnectTimeoutError(msg) from error

    async def _collect(self, channel: str, age: float, found: deque[bytes]) -> None:
        since = datetime.now(UTC) - timedelta(seconds=age)
        async with self.log.read(self._name_of(channel), after=since) as stream:
            async for event in stream.until_end():
                try:
                    found.append(data_of(event.payload))
                except ValueError:
                    text = "an event of channel %r is not a message, and is left out of its history"
                    log.error(text, channel)

    async def _read(self, stream: LogStream[Event[str] | Gap]) -> None:
        """Hand events over, until the task is cancelled."""
        delays = Delays(_BACKOFF)
        after: After = "now"
        is_anew = False
        while True:
            try:
                async with stream:
                    after = stream.position or after
                    if is_anew:  # told once it has its place: what comes later is read
                        is_anew = False
                        await self._hand_on(Gap(None, GapReason.EXPIRED))
                    async for item in stream:
                        after = stream.position or after
                        delays = Delays(_BACKOFF)
                        await self._hand_on(item)
            except PositionError:
                after, is_anew = "now", True
            except Exception as error:  # noqa: BLE001 - nobody else would learn of it
                cause = describe_error(error)
                text = "log %r, of a LogChannelsBackend, cannot be read, and is tried again: %s"
                log.warning(self._warnings, cause, text, self.log.name, cause)
            await asyncio.sleep(delays.next())
            stream = self.log.read(after=after, gaps=True)

    async def _hand_on(self, item: Event[str] | Gap) -> None:
        if isinstance(item, Gap):
            for subscribed in self._concerned(item):
                await self._tell(subscribed, item)
            return
        one = self._by_name.get(item.channel)
        if one is not None:
            await self._hand_over(one, item.payload)

    def _concerned(self, gap: Gap) -> list[Subscribed]:
        if gap.channel is None:
            return list(self._subscribed.values())
        one = self._by_name.get(gap.channel)
        return [] if one is None else [one]
