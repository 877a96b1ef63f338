"""A channels backend on LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from asyncnotify import Gap, GapReason, Listener, Notification, PayloadTooLargeError
from asyncnotify._arguments import check_seconds
from asyncnotify._logs import WarningLimit
from asyncnotify._tasks import cancel, retrieve, start
from asyncnotify.ext.litestar._backend import Backend, OnGap, Subscribed, log
from asyncnotify.ext.litestar._sources import ListenerSource, listener_from

_END_TIMEOUT: Final = 10.0
"""Seconds for UNLISTEN: the listener takes no longer to give its connection up."""

_late_warnings = WarningLimit()


class _Listening(Subscribed):
    """
    A channel that is listened on, by a task that ends when it is cancelled.

    Attributes:
        is_late: Whether ``subscribe()`` has returned before the server had confirmed.
        task: The task.
        ready: Done when the server has confirmed.
    """

    def __init__(self, channel: str, name: str) -> None:
        super().__init__(channel, name)
        self.is_late = False
        self.task: asyncio.Task[None]
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(retrieve)


class NotifyChannelsBackend(Backend):
    """
    A channels backend for Litestar's ``ChannelsPlugin``, on LISTEN and NOTIFY.

    One connection listens for all channels and subscribers, and one sends. When a connection is
    lost, the listener makes another; the subscribers stay. What was sent meanwhile is lost, and
    ``on_gap`` says where. There is no history: see LogChannelsBackend.

    Messages are UTF-8 as it is, so triggers and other programs may send and receive them, and other
    bytes in base64: up to 7,999 bytes of text, or about 5,990 of others. A channel has its own name
    in PostgreSQL, behind the prefix, if that has 1 to 63 bytes; otherwise a hash stands for it.

    Args:
        source: A DSN, as Listener takes it; or a Listener; or a function that returns one. One that
            runs already is not closed here.
        prefix: Stands before the names of all channels in PostgreSQL; up to 18 bytes. With
            ``arbitrary_channels_allowed`` clients can listen on any channel whose name begins so.
        on_gap: A plain function that is called with the name of a channel and a Gap, wherever
            messages may be missing. What it returns, if not None, is a message that the channel's
            subscribers get at this place. A gap is also logged.
        retry_timeout: Seconds for which ``publish()`` tries again while there is no connection;
            None: not at all.
        subscribe_timeout: Seconds for which ``subscribe()`` waits while there is no connection.

    Raises:
        ChannelNameError: The prefix is too long, or cannot be in a name.
        TypeError: An argument is of the wrong type.
        ValueError: A number of seconds is not positive and finite.
    """

    def __init__(
        self,
        source: ListenerSource = None,
        *,
        prefix: str = "",
        on_gap: OnGap | None = None,
        retry_timeout: float | None = 30.0,
        subscribe_timeout: float = 5.0,
    ) -> None:
        super().__init__(prefix=prefix, on_gap=on_gap, retry_timeout=retry_timeout)
        check_seconds("subscribe_timeout", subscribe_timeout)
        self._subscribe_timeout = subscribe_timeout
        self._running = listener_from(source)

    @property
    def listener(self) -> Listener:
        """
        The listener that serves the channels, for its state and its counters.

        Raises:
            NotStartedError: The application does not run.
        """
        return self._running.present

    # -- for Litestar -------------------------------------------------------------------------

    async def on_startup(self) -> None:
        """
        Start the listener. Called again, it does nothing.

        Raises:
            AsyncNotifyError: As of ``Listener.start()``.
        """
        if not self._running.is_running:
            await self._running.start()
            self._open()

    async def on_shutdown(self) -> None:
        """
        Stop listening and close the connections, within the listener's timeout. Idempotent.

        Raises nothing.
        """
        tasks = self._tasks(list(self._subscribed.values()))
        self._close()
        try:
            await cancel(tasks, _END_TIMEOUT)
        finally:
            await self._running.close()

    async def subscribe(self, channels: Iterable[str]) -> None:
        """
        Begin to receive the messages of some channels; return once the server has confirmed.

        While there is no connection, the call returns after ``subscribe_timeout`` seconds, and
        ``on_gap`` is called when the server has confirmed. The plugin would keep a subscriber whose
        subscription had failed, and never try again.

        As often as a channel is subscribed to, it has to be unsubscribed from: the plugin calls
        once for each first subscriber and once for each last one, and not always in that order.
        Cancelling the call leaves the channels subscribed to.

        Raises:
            NotStartedError: The application has not started the backend, or has stopped it.
            ClosedError: The listener has been closed.
        """
        names = list(dict.fromkeys(channels))
        await super().subscribe(names)
        found = [self._subscribed[name] for name in names]
        waiting = {one.ready for one in found if isinstance(one, _Listening)}
        if not waiting:
            return
        done, late = await asyncio.wait(waiting, timeout=self._subscribe_timeout)
        if late:
            self._note_late(found)
        for ready in done:
            ready.result()

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """
        End what ``subscribe()`` has begun; nothing that has waited is handed over any more.

        Returns once the server has confirmed, or the connection is gone. Channels that are not
        subscribed to are passed over. Cancelling the call leaves them ended.

        Raises nothing.
        """
        await cancel(self._tasks(self._released(channels)), _END_TIMEOUT)

    async def get_history(self, channel: str, limit: int | None = None) -> list[bytes]:
        """
        Refuse: PostgreSQL keeps no notifications.

        Raises:
            NotImplementedError: Always, as of Litestar's own backends that have no history.
        """
        msg = "NOTIFY keeps no history; LogChannelsBackend does"
        raise NotImplementedError(msg)

    # -- inside -------------------------------------------------------------------------------

    async def _send(self, pairs: list[tuple[str, str]]) -> None:
        listener = self.listener
        try:
            if len(pairs) == 1:
                await listener.notify(*pairs[0])
            else:
                await listener.notify_many(pairs)
        except PayloadTooLargeError as error:
            error.add_note("LogChannelsBackend takes messages of any size")
            raise

    def _begin(self, channel: str, name: str) -> Subscribed:
        listening = _Listening(channel, name)
        listening.task = start(self._serve(listening), name="asyncnotify litestar channel")
        listening.task.add_done_callback(retrieve)
        return listening

    async def _serve(self, listening: _Listening) -> None:
        """Listen on a channel until the task is cancelled."""

        async def hand_over(notification: Notification[str]) -> None:
            await self._hand_over(listening, notification.payload)

        async def tell(gap: Gap) -> None:
            if gap.reason is not GapReason.START or listening.is_late:
                await self._tell(listening, gap)

        try:
            subscription = await self.listener.listen(
                listening.name, hand_over, resync=tell, timeout=None
            )
        except Exception as error:  # noqa: BLE001 - subscribe() raises it
            listening.ready.set_exception(error)
            return
        except asyncio.CancelledError:
            listening.ready.set_result(None)
            raise
        try:
            listening.ready.set_result(None)
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        finally:
            await subscription.cancel()

    def _note_late(self, found: list[Subscribed]) -> None:
        late = [one for one in found if isinstance(one, _Listening) and not one.ready.done()]
        for one in late:
            one.is_late = True
        text = (
            "no connection to listen on %s channels: their messages are missed until there is one"
        )
        log.warning(_late_warnings, self._prefix, text, len(late))

    def _tasks(self, released: list[Subscribed]) -> list[asyncio.Task[None]]:
        return [one.task for one in released if isinstance(one, _Listening)]
