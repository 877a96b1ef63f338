"""
A PostgreSQL for notifications and logs, in memory: for tests of programs that use them.

::

    fake = FakeServer()
    async with Listener(fake.dsn) as listener:
        await listener.listen("orders", on_order)
        fake.notify("orders", "1")

Listener, Notifier, Log and their blocking forms are the real classes; only the connection under
them is another one. Any of them whose DSN is ``fake.dsn`` connects to the fake server, also
where the program under test makes it: give the program that DSN, in its settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import asyncpg

from asyncnotify import Notification
from asyncnotify._arguments import (
    check_count,
    check_flag,
    check_kind,
    check_number,
    check_present,
    check_returns,
    check_whole,
)
from asyncnotify.log.sources import LogSessions, LogSource
from asyncnotify.sources import register
from asyncnotify.testing._fake.failures import NotOnFakeError, PermanentlyRefusedError, RefusedError
from asyncnotify.testing._fake.log_session import FakeLogSessions
from asyncnotify.testing._fake.rules import check, check_name
from asyncnotify.testing._fake.sending import Cut
from asyncnotify.testing._fake.source import FakeListening, FakePublishing
from asyncnotify.testing._fake.state import State
from asyncnotify.testing._fake.transaction import FakeTransaction

__all__ = ["FakeServer", "FakeTransaction", "NotOnFakeError"]

_numbers: Final = itertools.count(1)


class FakeServer(LogSource):
    """
    A notification server in memory that obeys the rules of PostgreSQL.

    * Notifications are delivered when their transaction commits, to every session that listens
      then, in one order for all channels; also to the session that sent them. Nobody gets what was
      committed while he did not listen.
    * Of equal notifications of one transaction one is delivered. What a savepoint that is rolled
      back has sent is not.
    * A channel has 1 to 63 bytes and is case-sensitive; a payload has at most 7,999 bytes; NUL is
      refused.

    A log is kept as PostgreSQL keeps it, too, once it is installed: the order of the events, the
    cursors of consumers, dead letters and retention. A transactional handler gets a transaction of
    this server, without SQL.

    There is no SQL and no network: ``connect=``, ``pool=`` and connections of drivers lead to a
    real server. TLS, passwords and poolers do not occur. Locks, triggers and SQL raise a
    NotOnFakeError. All methods may be called from any thread
    and from several event loops. Nothing has to be closed.

    Attributes:
        dsn: Listener, Notifier, Log and their blocking forms connect to this server by it, as long
            as the server is referred to.
        pid: The backend pid of the other client, which ``notify()`` is.
    """

    def __init__(self) -> None:
        host = f"fake-{next(_numbers)}.invalid"
        self.dsn: str = f"postgresql://fake@{host}:5432/fake"
        self._state = State(f"fake@{host}/fake")
        self.pid: int = self._state.new_pid()
        register(host, self)

    def __repr__(self) -> str:
        return f"<FakeServer {self.dsn}>"

    # -- as a connection source ---------------------------------------------------------------

    @property
    def target(self) -> str:
        """The server, as logs and errors name it."""
        return self._state.name

    def listening(self, *, connect_timeout: float, timeout: float) -> FakeListening:
        """Return what opens sessions that listen: called by a Listener. Raises nothing."""
        return FakeListening(self._state, connect_timeout, timeout)

    def publishing(
        self,
        *,
        connect_timeout: float,
        timeout: float,  # noqa: ARG002 - the caller's calls have deadlines of their own
        on_open: Callable[[int], None] | None = None,
    ) -> FakePublishing:
        """Return what opens connections that send: called by a Notifier. Raises nothing."""
        return FakePublishing(self._state, connect_timeout, on_open)

    def log_sessions(self, log: str, *, connect_timeout: float, timeout: float) -> LogSessions:
        """Return what opens sessions for a log: called by a Log. Raises nothing."""
        return FakeLogSessions(self._state, log, connect_timeout, timeout)

    def error_for_missing(self, what: str) -> NotOnFakeError:
        """Return the error that says what is not here. Raises nothing: other parts raise it."""
        return NotOnFakeError(what)

    # -- as another client sees it ------------------------------------------------------------

    def notify(self, channel: str, payload: str = "") -> None:
        """
        Commit a notification as another client does.

        Raises:
            ChannelNameError: The name is not valid for a channel.
            PayloadError: The payload is not valid.
        """
        check(channel, payload)
        self._state.process(lambda: self._state.commit(self.pid, [(channel, payload)]))

    def transaction(self) -> FakeTransaction:
        """Return a transaction of another client: a context manager, async or not."""
        return FakeTransaction(self._state)

    @property
    def notifications(self) -> tuple[Notification[str], ...]:
        """What has been committed, in order, whether or not anyone listened: the last 100,000."""
        with self._state.lock:
            return tuple(self._state.committed)

    @property
    def channels(self) -> frozenset[str]:
        """The channels on which any session listens now."""
        return self._state.channels

    @property
    def pids(self) -> tuple[int, ...]:
        """The backend pids of the open connections, the oldest first."""
        with self._state.lock:
            return tuple(self._state.clients)

    @property
    def connecting(self) -> int:
        """How many connections are being made: they wait while the server is frozen or slow."""
        return self._state.dialling

    @property
    def commands(self) -> int:
        """
        How many commands all connections have given so far.

        Each is one round trip to a real server: LISTEN for any number of channels, a heartbeat, a
        transaction of any number of notifications. What this object does itself is not counted.
        """
        return self._state.commands

    @property
    def listening_pids(self) -> tuple[int, ...]:
        """Those of the sessions that listen on any channel."""
        return tuple(client.pid for client in self._state.listening)

    async def until_listening(self, *channels: str) -> None:
        """
        Return once sessions listen on all of these channels. Bound it with a timeout.

        Raises:
            ChannelNameError: A name is not valid for a channel.
        """
        for channel in channels:
            check_name(channel)
        await self._state.until(lambda: self.channels.issuperset(channels))

    async def until_connected(self, count: int) -> None:
        """
        Return once there are so many connections, and not before.

        Raises:
            ValueError: ``count`` is no whole number, or negative.
        """
        check_whole("count", count, minimum=0)
        await self._state.until(lambda: len(self.pids) == count)

    async def until_connecting(self, count: int) -> None:
        """
        Return once so many connections are being made, and not before.

        Raises:
            ValueError: ``count`` is no whole number, or negative.
        """
        check_whole("count", count, minimum=0)
        await self._state.until(lambda: self.connecting == count)

    async def until_commands(self, count: int) -> None:
        """
        Return once connections have given so many commands in all, or more.

        Raises:
            ValueError: ``count`` is no whole number, or negative.
        """
        check_whole("count", count, minimum=0)
        await self._state.until(lambda: self.commands >= count)

    async def until_notified(self, channel: str, payload: str | None = None) -> Notification[str]:
        """
        Return the first notification that was committed on a channel, once there is one.

        Args:
            channel: The name.
            payload: Wait for this payload; None: for any.

        Raises:
            ChannelNameError: The name is not valid for a channel.
            PayloadError: The payload is not valid.
        """
        check(channel, "" if payload is None else payload)

        def matching() -> list[Notification[str]]:
            found = (n for n in self.notifications if n.channel == channel)
            return [n for n in found if payload is None or n.payload == payload]

        await self._state.until(lambda: bool(matching()))
        return matching()[0]

    def pass_time(self, time: timedelta) -> None:
        """
        Set the server's clock forward: for a log its events are older by this then.

        Raises:
            TypeError: ``time`` is no timedelta.
            ValueError: The time is negative: the clock never goes back.
        """
        check_present("time", time, timedelta)
        if time < timedelta(0):
            msg = f"time must not be negative: {time}"
            raise ValueError(msg)
        with self._state.lock:
            self._state.passed += time

    # -- faults -------------------------------------------------------------------------------

    def lose(self, *pids: int, notice: str | None = None) -> None:
        """
        Cut connections: what has not arrived on them is lost.

        Args:
            pids: Those of these backends; none given: all connections.
            notice: The last words of the server, such as "terminating connection due to
                administrator command".

        Raises:
            ValueError: A pid is no whole number, or less than 1.
            TypeError: ``notice`` is no str.
        """
        for pid in pids:
            check_count("pid", pid)
        check_kind("notice", notice, str)
        self._state.lose(pids or self.pids, notice)

    def refuse(self, *, permanently: bool = False) -> None:
        """
        Refuse new connections, until ``reconnect()``.

        Args:
            permanently: As for a wrong password, where retrying does not help.

        Raises:
            TypeError: ``permanently`` is neither True nor False.
        """
        check_flag("permanently", permanently)
        self._state.refused = PermanentlyRefusedError if permanently else RefusedError

    def reconnect(self) -> None:
        """Accept new connections again."""
        self._state.refused = None

    def delay(self, seconds: float) -> None:
        """
        Let all that the server sends from here on take so long; 0: none of it.

        Raises:
            ValueError: Not a number of seconds: to send nothing at all, use ``freeze()``.
        """
        if seconds == math.inf:
            msg = "seconds must be a finite number, not inf: freeze() sends nothing"
            raise ValueError(msg)
        check_number("seconds", seconds, minimum=0)
        self._state.delay = seconds

    def freeze(self) -> None:
        """Answer nothing and send nothing, on connections that stay open, until ``thaw()``."""
        self._state.freeze()

    def thaw(self) -> None:
        """Go on after ``freeze()``, with what has come meanwhile."""
        self._state.thaw()

    def lose_on(self, payload: str, *, channel: str | None = None, committed: bool) -> None:
        """
        Cut the connection that sends this notification next, before it has the answer.

        Its caller cannot know whether the notification was sent: ``notify()`` raises a
        ConnectionLostError.

        Args:
            payload: As it is sent. Of several notifications in one transaction any may be it.
            channel: The name; None: any channel.
            committed: Whether the server commits the transaction before it cuts the connection.

        Raises:
            TypeError: ``payload`` is no str, or ``committed`` neither True nor False.
            ChannelNameError: The name is not valid for a channel.
            PayloadError: No notification can have this payload, as it would be too large.
        """
        check_present("payload", payload, str)
        check("any" if channel is None else channel, payload)
        check_flag("committed", committed)
        with self._state.lock:
            self._state.sending.cuts.append(Cut(channel, payload, committed))

    def refuse_notifications(
        self, error_for: Callable[[str, str], asyncpg.PostgresError | None] | None
    ) -> None:
        """
        Refuse notifications, with errors of PostgreSQL's, on connections that stay open.

        One that is refused fails its transaction, of which nothing is sent. What ``notify()`` of
        this object sends is never refused.

        Args:
            error_for: Called with channel and payload of each notification; returns a new
                exception, such as ``asyncpg.InsufficientPrivilegeError("permission denied")``, or
                None: this one is accepted. None in its place: all are accepted again.

        Raises:
            TypeError: ``error_for`` is neither None nor a plain function that takes the two.
        """
        if error_for is not None:
            check_returns("error_for", error_for, "the channel", "the payload")
        with self._state.lock:
            self._state.sending.error_for = error_for

    def fill_queue(self, usage: float = 1.0) -> None:
        """
        Fill the notification queue: ``health()`` says how full it is.

        While it is full all notifications are refused with ``asyncpg.ProgramLimitExceededError``,
        but what ``notify()`` of this object sends. Nothing empties it but another call.

        Args:
            usage: From 0, empty, to 1, full.

        Raises:
            ValueError: It is no number between 0 and 1.
        """
        check_number("usage", usage, minimum=0, maximum=1)
        with self._state.lock:
            self._state.sending.queue_usage = usage

    def unlisten(self, *pids: int) -> None:
        """
        Let sessions listen on nothing, as ``DISCARD ALL`` by a program in between does.

        Args:
            pids: Those of these backends; none given: all of them.

        Raises:
            ValueError: A pid is no whole number, or less than 1.
        """
        for pid in pids:
            check_count("pid", pid)
        with self._state.lock:
            for client in self._state.listening:
                if not pids or client.pid in pids:
                    client.forget_channels()
            self._state.note_change()


for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
