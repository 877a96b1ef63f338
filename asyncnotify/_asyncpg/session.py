"""The session that listens: its statements, and what it tells of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncnotify._asyncpg.bounded import BoundedConnection
from asyncnotify._asyncpg.connection import RegisteredCallback, TransportFlowControl, as_hooked
from asyncnotify._asyncpg.encodings import size_in
from asyncnotify._asyncpg.failures import (
    is_about_the_name,
    is_refusal,
    is_truncated_status,
    is_unsupported,
    no_listen,
    refused_name,
    was_cancelled_by_server,
)
from asyncnotify._asyncpg.listen_check import ListenCheck
from asyncnotify._asyncpg.notification_queue import (
    QUEUE_HOLDERS,
    REPAIRED,
    TRUNCATED_STATUS,
    describe_holders,
    with_escaped_name,
)
from asyncnotify._asyncpg.roles import condition, misfit
from asyncnotify._asyncpg.statements import HERE
from asyncnotify._channels.checksum import Checksum
from asyncnotify._channels.names import CHANNEL_LIMIT, quote_identifier
from asyncnotify._errors import (
    ChannelNameError,
    ConfigurationError,
    ConnectionLostError,
    describe_error,
)
from asyncnotify._escaping import escaped
from asyncnotify._logs import Log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Sequence

    import asyncpg

    from asyncnotify._asyncpg.connection import OnNotification

T = TypeVar("T")

log = Log("connection")

_BATCH: Final = 10_000
"""Channels in one LISTEN statement: 10,000 take 0.1 s, and the time grows with the square."""

_ALLOWANCE: Final = 1e-4
"""Further seconds for each channel of a LISTEN: ten times what 10,000 of them take."""

_UTF8: Final = frozenset({"UTF8", "SQL_ASCII"})
"""Encodings of a database in which a name has as many bytes as in UTF-8."""

_CANCELLED_AT_MOST: Final = 3
"""Times that a statement may be cancelled by somebody (57014) until the session is given up."""

_SHUTDOWN: Final = frozenset({"57P01", "57P02"})
"""SQLSTATEs of the server's warnings that it is going away."""

_LISTENING: Final = "FROM pg_catalog.pg_listening_channels() AS channel"


class ListeningSession(BoundedConnection):
    """The one connection on which a listener listens."""

    def __init__(
        self,
        connection: asyncpg.Connection[Any],
        *,
        on_notification: OnNotification,
        on_lost: Callable[[], None],
        last_contact: Callable[[], float],
        timeout: float,
        listen_check: ListenCheck | None = None,
        wanted: str = "any",
    ) -> None:
        super().__init__(connection, timeout=timeout)
        self._listen_check = ListenCheck() if listen_check is None else listen_check
        self._wanted = wanted
        self._server_encoding: str = getattr(connection.get_settings(), "server_encoding", "UTF8")
        self._deliver = on_notification
        self._expected: dict[str, asyncio.Future[None]] = {}
        self._on_lost = on_lost
        self._contact = last_contact
        self._attached = True
        self._foreign_channels = Checksum.of(())
        self._server_can_sum = True
        self._registered: set[str] = set()  # channels that the driver has a callback for
        self._cut_short: set[str] = set()  # channels whose UNLISTEN the server has not answered
        self._hooked = as_hooked(connection)
        # The loop calls a plain function, with arguments that its debug mode logs
        debugging = self._loop.get_debug()
        self._callback = self._called_back_by_task if debugging else self._called_back
        self._registered_callback = (
            None if self._hooked else RegisteredCallback.of(connection, self._callback)
        )
        self.notice: str | None = None
        self.behind_pooler = False
        self.flow = TransportFlowControl.of(connection)
        self._take_notifications(on_notification)
        connection.add_termination_listener(self._terminated)
        if not connection.is_closed():
            connection.add_log_listener(self._logged)

    def _take_notifications(self, on_notification: OnNotification) -> None:
        self._on_notification = on_notification
        if self._hooked and self._attached:
            self._hooked.hand_over_to(on_notification)

    def deliver_to(self, on_notification: OnNotification) -> None:
        """Call this for each notification from here on."""
        self._deliver = on_notification
        if not self._expected:
            self._take_notifications(on_notification)

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        return not self._attached or super().lost

    def expect(self, channel: str) -> asyncio.Future[None]:
        """Return a future that a notification on this channel, just made up, lets be done."""
        arrived: asyncio.Future[None] = self._loop.create_future()
        self._expected[channel] = arrived
        self._take_notifications(self._look)
        arrived.add_done_callback(lambda _: self._expect_no_more(channel))
        return arrived

    def _look(self, pid: int, channel: str, payload: str) -> None:
        arrived = self._expected.get(channel)
        if arrived is not None and not arrived.done():
            arrived.set_result(None)
        self._deliver(pid, channel, payload)

    def _expect_no_more(self, channel: str) -> None:
        del self._expected[channel]
        if not self._expected:
            self._take_notifications(self._deliver)

    @property
    def batch_size(self) -> int:
        """How many channels one ``listen()`` or ``unlisten()`` takes: each takes effect whole."""
        return _BATCH if self._hooked or self._registered_callback is not None else 1

    async def listen(self, channels: Sequence[str]) -> dict[str, Exception]:
        """
        Return once the server has confirmed LISTEN for these channels, or refused some of them.

        What it refuses because of the name, such as a character that its encoding does not have,
        is returned, each with a ChannelNameError; the others are listened on. A server that does
        not listen at all refuses every one, with a ConfigurationError; behind a pooler that is
        not known here: each statement may have met another session.
        """
        refused = self._too_long(channels)
        accepted = [channel for channel in channels if channel not in refused]
        try:
            await self._listen_despite_server_bug(accepted)
            if accepted and self._listen_check.is_due and not self.behind_pooler:
                await self._listen_check.run(self, accepted, timeout=self._timeout)
        except ConfigurationError as error:
            return dict.fromkeys(channels, error)
        except Exception as error:
            if is_unsupported(error):
                return dict.fromkeys(channels, no_listen(error))
            if not is_about_the_name(error):
                raise
            return {**refused, **await self._find_refused(accepted, error)}
        return refused

    def _too_long(self, channels: Sequence[str]) -> dict[str, Exception]:
        """Return those that are too long in the encoding of the database: LISTEN cuts them."""
        encoding = self._server_encoding
        if encoding.upper() in _UTF8 or all(map(str.isascii, channels)):
            return {}
        sizes = {channel: size_in(encoding, channel) or 0 for channel in channels}
        return {
            channel: ChannelNameError(
                channel, f"is {size} bytes in {encoding:.40}; at most {CHANNEL_LIMIT} are allowed"
            )
            for channel, size in sizes.items()
            if size > CHANNEL_LIMIT
        }

    async def _find_refused(
        self, channels: Sequence[str], error: Exception
    ) -> dict[str, Exception]:
        """One name has failed them all: find out which, by halves."""
        if len(channels) == 1:
            return {channels[0]: refused_name(channels[0], error)}
        middle = len(channels) // 2
        refused = await self.listen(channels[:middle])
        return {**refused, **await self.listen(channels[middle:])}

    async def _listen_despite_server_bug(self, channels: Sequence[str]) -> None:
        try:
            await _insist(lambda: self._listen(channels))
        except Exception as error:
            if not is_truncated_status(error):
                raise
            await self._listen_with_empty_queue(channels, error)

    async def _listen(self, channels: Sequence[str]) -> None:
        if self._hooked:
            await self.command_channels("LISTEN", channels)
        elif self._registered_callback is not None:
            # Before LISTEN, from which on what is committed arrives
            self._registered_callback.add(channels)
            await self.command_channels("LISTEN", channels)
        else:
            for channel in channels:
                await self._add_listener(channel)

    async def _add_listener(self, channel: str) -> None:
        if channel in self._registered:  # the server alone has forgotten it
            await self.command_channels("LISTEN", [channel])
        else:
            await self._command(self._connection.add_listener(channel, self._callback))
            self._registered.add(channel)

    async def unlisten(self, channels: Sequence[str]) -> None:
        """Return once the server has confirmed UNLISTEN for these channels."""
        await _insist(lambda: self._unlisten(channels))

    async def _unlisten(self, channels: Sequence[str]) -> None:
        if self._hooked:
            await self.command_channels("UNLISTEN", channels)
        elif self._registered_callback is not None:
            if ours := self._registered_callback.remove(channels):
                await self.command_channels("UNLISTEN", ours)
        else:
            for channel in channels:
                await self._remove_listener(channel)

    async def _remove_listener(self, channel: str) -> None:
        if channel in self._cut_short:
            # the driver has forgotten it already
            await self.command_channels("UNLISTEN", [channel])
        else:
            self._cut_short.add(channel)
            self._registered.discard(channel)
            await self._command(self._connection.remove_listener(channel, self._callback))
        self._cut_short.discard(channel)

    async def command_channels(self, verb: str, channels: Sequence[str]) -> None:
        """Send one statement per channel in one message: one round trip, one transaction."""
        statement = ";".join(f"{verb} {quote_identifier(channel)}" for channel in channels)
        allowance = _ALLOWANCE * len(channels)
        await self._command(self._execute(statement), self._timeout + allowance)

    async def is_listening(self, channels: Checksum, *, timeout: float) -> bool:
        """
        Ask whether the server listens for us on the channels of which this is the checksum.

        One round trip, which takes no transaction id: the heartbeat. The same question asks whether
        the server is still of the kind that is wanted.

        Raises:
            ConnectionLostError: It is not.
        """
        agrees = await _insist(lambda: self._is_listening(channels, timeout))
        if not (agrees or await _insist(lambda: self._is_wanted(timeout))):
            raise ConnectionLostError(misfit(self._wanted))
        return agrees or not self._listen_check.answers_are_believed

    async def _is_wanted(self, timeout: float) -> bool:
        sql = condition(self._wanted)
        if sql is None or not self._listen_check.answers_are_believed:
            return True
        question = self._execute(f"{self._before}{HERE}SELECT 1 WHERE {sql}")
        return bool(await self._command(question, timeout) == "SELECT 1")

    async def _is_listening(self, channels: Checksum, timeout: float) -> bool:
        expected = channels + self._foreign_channels
        agreement = (
            f"(SELECT {expected.SQL_FUNCTIONS} {_LISTENING}) OPERATOR(pg_catalog.=) {expected.sql}"
        )
        if not self._server_can_sum:
            agreement = (
                f"(SELECT pg_catalog.count(*) {_LISTENING}) OPERATOR(pg_catalog.=) {expected.count}"
            )
        if (of_the_server := condition(self._wanted)) is not None:
            agreement = f"{agreement} AND {of_the_server}"
        try:
            status = await self._command(
                self._execute(f"{self._before}{HERE}SELECT 1 WHERE {agreement}"), timeout
            )
        except Exception as error:
            if not self._server_can_sum or not is_refusal(error) or was_cancelled_by_server(error):
                raise
            self._server_can_sum = False  # md5 is off in FIPS mode: count the channels, at least
            log.debug("no checksum of the channels: %s", describe_error(error))
            return await self._is_listening(channels, timeout)
        return bool(status == "SELECT 1")

    async def missing(self, channels: Collection[str]) -> frozenset[str]:
        """
        Return those of these channels that the server does not listen on for us.

        Raises:
            ConfigurationError: The server does not listen at all.
        """
        listened = await self.listened_channels()
        self._foreign_channels = Checksum.of(listened.difference(channels))
        return await self._listen_check.confirm_missing(self, channels, listened)

    async def listened_channels(self) -> frozenset[str]:
        """Return what the server says that it listens on for this session."""
        rows = await self._rows(f"{HERE}SELECT channel {_LISTENING}", self._timeout)
        return frozenset(row["channel"] for row in rows)

    async def _listen_with_empty_queue(self, channels: Sequence[str], error: Exception) -> None:
        """Repair what made LISTEN fail with this error, and try once more."""
        await self.queue_usage(timeout=self._timeout)  # asking empties the queue
        try:
            await self._listen(channels)
        except Exception as again:
            if is_truncated_status(again):
                self._warn_of_queue(again, await self._held_queue())
            raise
        self._warn_of_queue(error, REPAIRED)

    def _warn_of_queue(self, error: Exception, outcome: str) -> None:
        told = describe_error(error)
        log.warning(
            self._listen_check.warnings, "truncated status", TRUNCATED_STATUS, told, outcome
        )

    async def _held_queue(self) -> str:
        """Return what keeps the queue from being emptied, as far as the role may see it."""
        try:
            return describe_holders(await self._queue_holders(self._timeout))
        except Exception as error:
            if not is_refusal(error):
                raise
            return describe_holders([])

    async def queue_usage(self, *, timeout: float) -> float:
        """Return how full the server's notification queue is, from 0 to 1."""
        [row] = await self._rows("SELECT pg_catalog.pg_notification_queue_usage()", timeout)
        return float(row[0])

    async def queue_holders(self, *, timeout: float) -> list[dict[str, Any]]:
        """Return the sessions that may keep the queue from being emptied, the oldest first."""
        return list(map(with_escaped_name, await self._queue_holders(timeout)))

    async def _queue_holders(self, timeout: float) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._rows(QUEUE_HOLDERS, timeout)]

    def detach(self) -> None:
        """Bring nothing more: what still arrives belongs to a past that a Gap will cover."""
        self._attached = False
        if self._hooked:
            self._hooked.hand_over_to(None)

    async def close(self, timeout: float) -> None:
        """End the session in good order, within this many seconds; then terminate."""
        attached, self._attached = self._attached, False
        if attached:
            await super().close(timeout)

    def terminate(self) -> None:
        """Drop the connection at once, without waiting for anything."""
        self.detach()
        super().terminate()

    def _last_contact(self) -> float:
        return self._contact()

    def _called_back(self, _connection: Any, pid: int, channel: str, payload: Any) -> None:
        if self._attached:
            self._on_notification(pid, channel, payload)

    async def _called_back_by_task(self, *args: Any) -> None:
        self._called_back(*args)

    def _terminated(self, _connection: Any) -> None:
        if self._attached:
            self._on_lost()

    def _logged(self, _connection: Any, message: Any) -> None:
        if message.sqlstate in _SHUTDOWN:
            self.notice = escaped(str(message).partition("\n")[0])


async def _insist(command: Callable[[], Awaitable[T]]) -> T:
    """Give a command, and again if it was cancelled at the server: nothing else is wrong."""
    for _ in range(_CANCELLED_AT_MOST - 1):
        try:
            return await command()
        except Exception as error:
            if not was_cancelled_by_server(error):
                raise
    return await command()
