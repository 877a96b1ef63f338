"""What both channels backends have in common."""

from __future__ import annotations

import asyncio
import functools
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from litestar.channels import ChannelsBackend

from asyncnotify import (
    ConnectError,
    ConnectionLostError,
    ExponentialBackoff,
    Gap,
    GapReason,
    NotifyTimeoutError,
    NotStartedError,
)
from asyncnotify._arguments import check_function, check_seconds, check_takes, is_async
from asyncnotify._errors import describe_error
from asyncnotify._logs import Log, WarningLimit
from asyncnotify._publishing.retrying import Retrying
from asyncnotify.ext.litestar._buffer import Buffer
from asyncnotify.ext.litestar._names import check_prefix, name_in_postgres
from asyncnotify.ext.litestar._payloads import data_of, text_of
from asyncnotify.ext.litestar._sources import Target
from asyncnotify.log import StandbyError
from asyncnotify.typing import Backoff

OnGap: TypeAlias = Callable[[str, Gap], str | bytes | None]
"""Called with a channel and a Gap; returns what its subscribers get there, if anything."""

log = Log("litestar")

PASSING: Final = (ConnectError, ConnectionLostError, NotifyTimeoutError, StandbyError)
"""Failures to send that may pass by themselves."""

_BUFFER: Final = 1_000
_BACKOFF: Final = ExponentialBackoff()


class Subscribed:
    """
    A channel that Litestar has subscribed to.

    Attributes:
        channel: Its name in Litestar.
        name: Its name in PostgreSQL.
        uses: How many calls of ``subscribe()`` no call of ``unsubscribe()`` has answered yet.
    """

    def __init__(self, channel: str, name: str) -> None:
        self.channel = channel
        self.name = name
        self.uses = 0


class _Item(NamedTuple):
    subscribed: Subscribed
    data: bytes


class Backend(ChannelsBackend):
    """
    A channels backend, but for how messages are sent and received.

    Args:
        prefix: Stands before the names of all channels in PostgreSQL.
        on_gap: Called at each place where messages may be missing.
        retry_timeout: Seconds for which ``publish()`` tries again; None: not at all.
        backoff: Returns the delays between attempts.
    """

    def __init__(
        self,
        *,
        prefix: str,
        on_gap: OnGap | None,
        retry_timeout: float | None,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        check_seconds("retry_timeout", retry_timeout, or_none=True)
        if on_gap is not None:
            check_on_gap(on_gap)
        self._prefix = check_prefix(prefix)
        self._on_gap = on_gap
        self._retry_timeout = retry_timeout
        self._has_given_up = False
        self._retrying = Retrying(Target("a channels backend"), backoff)
        self._warnings = WarningLimit()
        self._subscribed: dict[str, Subscribed] = {}
        self._by_name: dict[str, Subscribed] = {}
        self._buffer: Buffer[_Item] | None = None

    @abstractmethod
    async def _send(self, pairs: list[tuple[str, str]]) -> None:
        """Send texts on channels of PostgreSQL."""

    # -- for Litestar -------------------------------------------------------------------------

    async def publish(self, data: bytes, channels: Iterable[str]) -> None:
        """
        Send a message on some channels; return once the server has committed it.

        Without a connection it is tried again for ``retry_timeout`` seconds, and the message may
        then arrive twice. After these, further calls are tried once only, until one succeeds.

        ``ChannelsPlugin.publish()`` sends by a task of the plugin's, which an exception would end:
        all that is published later would then be lost, and the application would not shut down.
        There an error is logged, and nothing is raised. ``wait_published()`` raises it.

        Raises:
            PayloadTooLargeError: The message is too large for the server.
            NotStartedError: The application has not started the backend, or has stopped it.
            AsyncNotifyError: As of ``Listener.notify()`` or ``Log.append()``.
        """
        try:
            await self._publish(data, channels)
        except Exception as error:
            if not _is_task_of_plugin():
                raise
            text = "a message published by ChannelsPlugin.publish() was not sent: %s"
            log.error(text, describe_error(error))  # noqa: TRY400 - a traceback says no more

    async def subscribe(self, channels: Iterable[str]) -> None:
        """
        Begin to receive the messages of some channels.

        As often as a channel is subscribed to, it has to be unsubscribed from: the plugin calls
        once for each first subscriber and once for each last one, and not always in that order.

        Raises:
            NotStartedError: The application has not started the backend, or has stopped it.
        """
        self._running_buffer()
        for channel in dict.fromkeys(channels):
            subscribed = self._subscribed.get(channel)
            if subscribed is None:
                subscribed = self._begin(channel, self._name_of(channel))
                self._subscribed[channel] = self._by_name[subscribed.name] = subscribed
            subscribed.uses += 1

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """
        End what ``subscribe()`` has begun. Nothing that has waited is handed over any more.

        Raises nothing.
        """
        self._released(channels)

    async def stream_events(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """
        Yield the messages of all channels that are subscribed to, with their channels.

        It outlives the connection, and ends when the backend is shut down.

        Raises:
            NotStartedError: The application has not started the backend, or has stopped it.
        """
        buffer = self._running_buffer()
        while (item := await buffer.get()) is not None:
            channel = item.subscribed.channel
            if self._subscribed.get(channel) is item.subscribed:
                yield channel, item.data

    # -- sending ------------------------------------------------------------------------------

    async def _publish(self, data: bytes, channels: Iterable[str]) -> None:
        self._running_buffer()
        text = text_of(data)
        pairs = [(self._name_of(channel), text) for channel in dict.fromkeys(channels)]
        if not pairs:
            return
        try:
            await self._retrying.until_success(
                functools.partial(self._send, pairs),
                0.0 if self._has_given_up else self._retry_timeout or 0.0,
                what="publish()",
                passing=PASSING,
            )
        except PASSING:
            self._has_given_up = True
            raise
        self._has_given_up = False

    def _name_of(self, channel: str) -> str:
        return name_in_postgres(self._prefix, channel)

    # -- receiving ----------------------------------------------------------------------------

    def _open(self) -> None:
        self._buffer = Buffer(_BUFFER)

    def _close(self) -> None:
        if self._buffer is not None:
            self._buffer.close()
        self._buffer = None
        self._has_given_up = False
        self._subscribed.clear()
        self._by_name.clear()

    def _running_buffer(self) -> Buffer[_Item]:
        if self._buffer is None:
            msg = "the backend is not running: the application calls on_startup() before"
            raise NotStartedError(msg)
        return self._buffer

    def _begin(self, channel: str, name: str) -> Subscribed:
        return Subscribed(channel, name)

    def _released(self, channels: Iterable[str]) -> list[Subscribed]:
        """Count that these are needed once less; return those that are not needed any more."""
        released: list[Subscribed] = []
        for channel in dict.fromkeys(channels):
            subscribed = self._subscribed.get(channel)
            if subscribed is None:
                continue
            subscribed.uses -= 1
            if not subscribed.uses:
                released.append(self._subscribed.pop(channel))
                del self._by_name[subscribed.name]
        return released

    async def _hand_over(self, subscribed: Subscribed, text: str) -> None:
        """Hand a message over to the plugin, once there is room for it."""
        try:
            data = data_of(text)
        except ValueError:
            await self._tell(subscribed, Gap(subscribed.channel, GapReason.UNDECODABLE))
            return
        await self._put(subscribed, data)

    async def _tell(self, subscribed: Subscribed, gap: Gap) -> None:
        """Tell the subscribers of a channel that messages may be missing."""
        said = self._said(subscribed.channel, gap)
        if said is not None:
            await self._put(subscribed, said)

    def _said(self, channel: str, gap: Gap) -> bytes | None:
        """Log a gap; return what subscribers are to get in its place, if anything."""
        text = "messages on %r may be missing: %s"
        log.warning(self._warnings, gap.reason, text, channel, gap.reason)
        if self._on_gap is None:
            return None
        try:
            said = self._on_gap(channel, gap)
        except Exception:
            log.exception("on_gap raised an exception")
            return None
        return said.encode() if isinstance(said, str) else said

    async def _put(self, subscribed: Subscribed, data: bytes) -> None:
        if self._buffer is not None:
            await self._buffer.put(_Item(subscribed, data))


def check_on_gap(function: object) -> None:
    """Raise TypeError unless the function is a plain one that takes a channel and a Gap."""
    check_function("on_gap", function)
    if is_async(function):
        msg = "on_gap must be a plain function: what it returns is sent to the subscribers"
        raise TypeError(msg)
    check_takes("on_gap", function, "the channel", "the Gap")


def _is_task_of_plugin() -> bool:
    """Return whether nobody would see an exception: the plugin's task for publishing calls."""
    task = asyncio.current_task()
    coroutine = None if task is None else task.get_coro()
    return getattr(coroutine, "__qualname__", "").endswith("._pub_worker")
