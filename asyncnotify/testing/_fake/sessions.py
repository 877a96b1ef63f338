"""Sessions of the fake server that listen and that send, behind the protocols of the core."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncnotify import ChannelNameError
from asyncnotify.testing._fake.connection import FakeConnection
from asyncnotify.testing._fake.rules import check, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from asyncnotify.sources import Checksum
    from asyncnotify.testing._fake.outbox import Outbox
    from asyncnotify.testing._fake.state import State

    OnNotification = Callable[[int, str, str], None]


class PublishingSession(FakeConnection):
    """A connection on which notifications are sent."""

    async def notify(self, channel: str, payload: str) -> None:
        """Send one notification, in a transaction of its own."""
        await self.notify_all([channel], [payload])

    async def notify_all(self, channels: Sequence[str], payloads: Sequence[str]) -> None:
        """Send these notifications in one transaction, all or none."""
        pairs = list(zip(channels, payloads, strict=True))
        await self.command(lambda: self._commit(pairs))

    def _commit(self, pairs: list[tuple[str, str]]) -> None:
        faults = self.state.sending
        for channel, payload in pairs:
            check(channel, payload)
            faults.check(channel, payload)
        faults.check_room()
        cut = faults.cut_for(pairs)
        if cut is None or cut.committed:
            self.state.commit(self.pid, pairs)
        if cut is not None:
            self.state.lose([self.pid], None)

    async def notify_plainly(self, channel: str) -> None:
        """Send an empty notification."""
        await self.notify(channel, "")


class FlowControl:
    """Pauses and resumes what a client reads."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def pause(self) -> bool:
        """Stop reading."""
        self._outbox.pause("not read")
        return True

    def resume(self) -> None:
        """Read again."""
        self._outbox.resume("not read")


class ListeningSession(PublishingSession):
    """
    A session that listens.

    Args:
        state: The server.
        timeout: Seconds in which the server has to answer each command.
        on_notification: Called with pid, channel and payload of each notification.
        on_lost: Called when the connection is found to be gone.
    """

    behind_pooler = False
    batch_size = 10_000

    def __init__(
        self,
        state: State,
        timeout: float,
        *,
        on_notification: OnNotification,
        on_lost: Callable[[], None],
    ) -> None:
        self._deliver = on_notification
        self._on_notification = on_notification
        self._expected: dict[str, asyncio.Future[None]] = {}
        self._on_lost = on_lost
        self._terminated = False
        self._foreign: frozenset[str] = frozenset()  # listened on, and not by the listener
        super().__init__(state, timeout)
        self.flow = FlowControl(self.outbox)

    def take(self, pid: int, channel: str, payload: str) -> None:
        """Hand a notification to the listener."""
        self._on_notification(pid, channel, payload)

    def _was_cut(self) -> None:
        super()._was_cut()
        if not self._terminated:
            self._on_lost()

    def terminate(self) -> None:
        """Drop the connection at once. Nothing of it is delivered from here on."""
        self._terminated = True
        super().terminate()

    # -- commands -----------------------------------------------------------------------------

    async def listen(self, channels: Sequence[str]) -> Mapping[str, Exception]:
        """Return once the server listens; the result has an error for each channel it refused."""
        return await self.command(lambda: self._listen(channels))

    def _listen(self, channels: Sequence[str]) -> dict[str, Exception]:
        refused: dict[str, Exception] = {}
        for channel in channels:
            try:
                check_name(channel)
            except ChannelNameError as error:
                refused[channel] = error
        self.channels.update(set(channels) - refused.keys())
        self.state.note_change()
        return refused

    async def unlisten(self, channels: Sequence[str]) -> None:
        """Return once the server no longer listens on these channels."""
        await self.command(lambda: self._unlisten(channels))

    def _unlisten(self, channels: Sequence[str]) -> None:
        self.channels.difference_update(channels)
        self.state.note_change()

    async def is_listening(self, channels: Checksum, *, timeout: float) -> bool:
        """Ask whether the server listens on the channels of this checksum: the heartbeat."""
        listened = await self.command(lambda: frozenset(self.channels), timeout)
        return channels.of(listened - self._foreign) == channels

    async def missing(self, channels: Collection[str]) -> frozenset[str]:
        """Return those of these channels on which the server does not listen."""
        listened = await self.command(lambda: frozenset(self.channels))
        self._foreign = listened.difference(channels)
        return frozenset(channels) - listened

    async def queue_usage(self, *, timeout: float) -> float:
        """Return how full the queue is: as full as the test wants it."""
        return await self.command(lambda: self.state.sending.queue_usage, timeout)

    async def queue_holders(self, *, timeout: float) -> list[dict[str, Any]]:
        """Return who keeps the queue from being emptied: nobody."""
        return await self.command(list, timeout)

    async def find_server(self) -> str | None:
        """Return what tells this server from others."""
        return await self.command(lambda: self.state.name)

    # -- what arrives -------------------------------------------------------------------------

    def deliver_to(self, on_notification: OnNotification) -> None:
        """Call this for each notification from here on."""
        self._deliver = on_notification
        if not self._expected:
            self._on_notification = on_notification

    def expect(self, channel: str) -> asyncio.Future[None]:
        """Return a future that a notification on this channel, just made up, lets be done."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected[channel] = arrived
        self._on_notification = self._look
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
            self._on_notification = self._deliver

    # -- there is no pooler -------------------------------------------------------------------

    async def find_pid(self) -> None:
        """Do nothing: the backend pid is known."""

    async def set_own_defaults(self) -> None:
        """Do nothing: a role has no defaults here."""

    async def reset_defaults(self) -> None:
        """Do nothing: a role has no defaults here."""
