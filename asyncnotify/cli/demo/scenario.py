"""The scenario of the demo: listen, notify, lose the session, lose the server, count."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Final

from asyncnotify import ExponentialBackoff, Listener
from asyncnotify.cli.demo.application import Application
from asyncnotify.cli.demo.orders import SUBSCRIPTIONS, OrderRecord
from asyncnotify.cli.demo.outcome import Outcome, Recovery
from asyncnotify.cli.demo.writer import FAILURES, Writer, end_session, read_orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.cli.demo.screen import Screen
    from asyncnotify.testing.server import PostgresServer

__all__ = ["Scenario", "in_thread"]

PAUSE = 0.7
"""Seconds between two steps, for reading what was shown."""

WRITING_TIME = 1.0
"""Seconds for which orders are written between one fault and the next."""

DOWN = 0.6
"""Seconds between killing the server and starting it again."""

PER_SECOND = 500
"""Orders to commit; a slow machine commits fewer."""

STEP_TIMEOUT = 15.0
"""Seconds after which a step has failed."""

ROWS_BEFORE: Final = 3
"""Orders in the table before the listener starts."""

_BACKOFF = ExponentialBackoff(initial=0.05, cap=0.25)


class StepTimeoutError(Exception):
    """A step of the scenario did not come to its end within its timeout."""


class Scenario:
    """
    One run of the demo, on a server that is running.

    Args:
        server: The server, which will be killed and started again.
        screen: Where to show what happens.
    """

    def __init__(self, server: PostgresServer, screen: Screen) -> None:
        self._server = server
        self._dsn = server.dsn
        self._screen = screen
        self._orders = OrderRecord()
        self._writer = Writer(
            self._dsn, sending=self._orders.sending, committed=self._orders.committed
        )
        self._application = Application(self._dsn, self._orders, screen)
        self._listener = Listener(
            self._dsn, ssl=False, backoff=_BACKOFF, on_event=self._application.on_event
        )
        self._recoveries: list[Recovery] = []
        self._writing: asyncio.Task[None] | None = None
        self._table: set[int] = set()

    async def run(self) -> Outcome:
        """Run every step; return what they came to."""
        failures: list[str] = []
        async with asyncio.TaskGroup() as tasks, self._listener:
            try:
                await self._listen(tasks)
                await self._notify()
                await self._lose_session(tasks)
                await self._lose_server()
                await self._count()
            except StepTimeoutError as error:
                failures.append(str(error))
            finally:
                self._writer.stop()
        return Outcome(
            verdicts=self._orders.verdicts(),
            table=self._table,
            view=self._orders.view,
            recoveries=self._recoveries,
            reconnects=self._listener.stats().reconnects,
            absences=self._orders.absences,
            failures=failures,
        )

    # -- the steps -------------------------------------------------------------------------

    async def _listen(self, tasks: asyncio.TaskGroup) -> None:
        self._screen.heading("1. Listen")
        await self._writer.create_table(ROWS_BEFORE)
        await self._application.listen(self._listener)
        tasks.create_task(self._application.follow(self._listener), name="demo stream")
        await self._expect(lambda: self._orders.gaps_seen() == 1, "received the Gap of the start")
        self._orders.listener_listens()
        self._screen.show_status(self._status)
        await asyncio.sleep(PAUSE)

    async def _notify(self) -> None:
        self._screen.heading("2. Another client notifies; so does a trigger, at COMMIT")
        async with Listener(self._dsn, ssl=False) as other:
            await self._send(other, "news", "hello, world")
            await self._send(other, "prices", json.dumps({"symbol": "PG", "price": 18.5}))

            async def before_commit(first: int, second: int) -> None:
                self._screen.event("sent", f"BEGIN; INSERT orders {first} and {second}")
                await self._send(other, "news", "orders not committed yet: nothing is delivered")
                self._screen.event("sent", "COMMIT")

            await self._writer.insert_two(before_commit)
        await self._catch_up()
        await asyncio.sleep(PAUSE)

    async def _lose_session(self, tasks: asyncio.TaskGroup) -> None:
        self._screen.heading("3. While orders are written, the listener's session is terminated")
        self._application.quiet = True
        self._screen.event(
            "sent", f"about {PER_SECOND} orders a second, each in a commit of its own"
        )
        self._writing = tasks.create_task(self._writer.write(PER_SECOND), name="demo writer")
        await self._let_orders_come()

        before, pid = self._reconnects_and_gaps(), self._application.backend_pid
        self._screen.event("breaking", f"SELECT pg_terminate_backend({pid})")
        await end_session(self._dsn, pid)
        await self._recover("the session was terminated", before)

    async def _lose_server(self) -> None:
        self._screen.heading("4. While orders are written, the server is killed")
        await self._let_orders_come()

        before = self._reconnects_and_gaps()
        self._screen.event("breaking", f"kill -9 {self._server.pid}, the postmaster")
        await in_thread(self._server.kill)
        await asyncio.sleep(DOWN)
        self._screen.event("server", "starting it again")
        await in_thread(self._server.start)
        accepts = time.monotonic()
        self._screen.event("server", "recovered; accepts connections")
        await self._recover("the server was back", before, accepts)

    async def _count(self) -> None:
        self._screen.heading("5. Count")
        await self._let_orders_come()
        await self._stop_writing()
        try:
            self._table = await read_orders(self._dsn)
        except FAILURES as error:
            msg = f"the table cannot be read: {error}"
            raise StepTimeoutError(msg) from error
        self._orders.settle(self._table)
        await self._catch_up()

    # -- what the steps are made of --------------------------------------------------------

    async def _send(self, client: Listener, channel: str, payload: str) -> None:
        """Notify, and see it arrive."""
        self._screen.event("sent", f"notify({channel!r}, {payload!r})")
        count = len(self._application.received)
        await client.notify(channel, payload)
        await self._expect(
            lambda: len(self._application.received) > count, f"received on {channel}"
        )

    async def _let_orders_come(self) -> None:
        """Let orders be written and received for a while; show how many were."""
        first = self._orders.sent + 1
        await asyncio.sleep(WRITING_TIME)
        await self._expect(lambda: self._orders.sent >= first, "a single order committed")
        last = self._orders.sent
        await self._catch_up()
        counts = (f"{self._orders.count(s, first, last):,} by the {s}" for s in SUBSCRIPTIONS)
        self._screen.event("received", f"orders {first:,} to {last:,}: {', '.join(counts)}")

    async def _catch_up(self) -> None:
        """Wait until what is sent by now has arrived; what is missing then is lost."""
        sent = self._orders.sent
        await self._orders.until(lambda: self._orders.all_saw(sent), within=STEP_TIMEOUT)

    async def _stop_writing(self) -> None:
        """Stop between two commits, so that the table is final."""
        self._writer.stop()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=STEP_TIMEOUT)

    def _reconnects_and_gaps(self) -> tuple[int, int]:
        return len(self._application.reconnected), self._orders.gaps_seen()

    async def _recover(
        self, what: str, before: tuple[int, int], accepts: float | None = None
    ) -> None:
        """Wait until the listener listens again, and both subscriptions have received a Gap."""
        reconnects, gaps = before
        self._recoveries.append(Recovery(what, None))
        await self._expect(
            lambda: len(self._application.reconnected) > reconnects,
            f"listening again after {what}",
        )
        at, event = self._application.reconnected[-1]
        seconds = event.downtime if accepts is None else max(0.0, at - accepts)
        self._recoveries[-1] = Recovery(what, seconds, event.downtime)
        await self._expect(lambda: self._orders.gaps_seen() > gaps, f"received a Gap after {what}")
        await asyncio.sleep(PAUSE)

    async def _expect(self, fact: Callable[[], bool], what: str) -> None:
        if not await self._orders.until(fact, within=STEP_TIMEOUT):
            msg = f"not {what}, within {STEP_TIMEOUT:g} s"
            raise StepTimeoutError(msg)

    def _status(self) -> str:
        received = ", ".join(f"{self._orders.received(s):,} by the {s}" for s in SUBSCRIPTIONS)
        return f"{self._listener.state}: {self._orders.sent:,} orders sent, {received}"


async def in_thread(call: Callable[[], None]) -> None:
    """Make a blocking call in a thread; when cancelled, wait for its end before leaving."""
    running = asyncio.create_task(asyncio.to_thread(call), name="demo thread")
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # retrieved; the cancellation says more
        raise
