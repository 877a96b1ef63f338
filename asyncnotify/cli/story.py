"""The story that the demo tells, chapter by chapter."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Final

from asyncnotify import ExponentialBackoff, Listener
from asyncnotify.cli.application import Application
from asyncnotify.cli.flow import SUBSCRIPTIONS, Flow, Outcome, Recovery
from asyncnotify.cli.writer import FAILURES, Writer, end_session, read_orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.cli.screen import Screen
    from asyncnotify.testing.server import PostgresServer

__all__ = ["Story", "in_thread"]

PAUSE = 0.7
"""Seconds in which to read what has just been shown."""

FLOWING = 1.0
"""Seconds of flow between one fault and the next."""

DOWN = 0.6
"""Seconds for which the killed server stays away."""

PER_SECOND = 500
"""Orders that are committed, as far as the machine is quick enough."""

PATIENCE = 15.0
"""Seconds after which what has not happened is not going to."""

ROWS_BEFORE: Final = 3
"""Orders that are in the table before anybody listens."""

_BACKOFF = ExponentialBackoff(initial=0.05, cap=0.25)


class StuckError(Exception):
    """What should have happened did not, in all that time."""


class Story:
    """
    One run of the demo, on a server that is running.

    Args:
        server: Is going to be killed, and started again.
        screen: Where to tell it.
    """

    def __init__(self, server: PostgresServer, screen: Screen) -> None:
        self._server = server
        self._dsn = server.dsn
        self._screen = screen
        self._flow = Flow()
        self._writer = Writer(self._dsn, sending=self._flow.sending, committed=self._flow.committed)
        self._application = Application(self._dsn, self._flow, screen)
        self._listener = Listener(
            self._dsn, ssl=False, backoff=_BACKOFF, on_event=self._application.on_event
        )
        self._recoveries: list[Recovery] = []
        self._writing: asyncio.Task[None] | None = None
        self._table: set[int] = set()

    async def tell(self) -> Outcome:
        """Tell it; return what came of it."""
        troubles: list[str] = []
        async with asyncio.TaskGroup() as tasks, self._listener:
            try:
                await self._listen(tasks)
                await self._notify()
                await self._lose_session(tasks)
                await self._lose_server()
                await self._count()
            except StuckError as error:
                troubles.append(str(error))
            finally:
                self._writer.stop()
        return Outcome(
            verdicts=self._flow.verdicts(),
            table=self._table,
            view=self._flow.view,
            recoveries=self._recoveries,
            reconnects=self._listener.stats().reconnects,
            absences=self._flow.absences,
            troubles=troubles,
        )

    # -- the chapters -------------------------------------------------------------------------

    async def _listen(self, tasks: asyncio.TaskGroup) -> None:
        self._screen.chapter("1. Listen")
        await self._writer.create_table(ROWS_BEFORE)
        await self._application.listen(self._listener)
        tasks.create_task(self._application.follow(self._listener), name="demo stream")
        await self._expect(lambda: self._flow.gaps_told() == 1, "told of the start")
        self._flow.listener_listens()
        self._screen.watch(self._status)
        await asyncio.sleep(PAUSE)

    async def _notify(self) -> None:
        self._screen.chapter("2. Another client notifies; so does a trigger, at COMMIT")
        async with Listener(self._dsn, ssl=False) as other:
            await self._send(other, "news", "hello, world")
            await self._send(other, "prices", json.dumps({"symbol": "PG", "price": 18.5}))

            async def before_commit(first: int, second: int) -> None:
                self._screen.line("sent", f"BEGIN; INSERT orders {first} and {second}")
                await self._send(other, "news", "orders not committed: nobody hears of them")
                self._screen.line("sent", "COMMIT")

            await self._writer.insert_two(before_commit)
        await self._catch_up()
        await asyncio.sleep(PAUSE)

    async def _lose_session(self, tasks: asyncio.TaskGroup) -> None:
        self._screen.chapter("3. While orders flow, the listener's session is ended")
        self._application.quiet = True
        self._screen.line(
            "sent", f"about {PER_SECOND} orders a second, each in a commit of its own"
        )
        self._writing = tasks.create_task(self._writer.write(PER_SECOND), name="demo writer")
        await self._let_flow()

        was, pid = self._standing(), self._application.backend_pid
        self._screen.line("breaking", f"SELECT pg_terminate_backend({pid})")
        await end_session(self._dsn, pid)
        await self._recover("the session was ended", was)

    async def _lose_server(self) -> None:
        self._screen.chapter("4. While orders flow, the server is killed")
        await self._let_flow()

        was = self._standing()
        self._screen.line("breaking", f"kill -9 {self._server.pid}, the postmaster")
        await in_thread(self._server.kill)
        await asyncio.sleep(DOWN)
        self._screen.line("server", "starting it again")
        await in_thread(self._server.start)
        accepts = time.monotonic()
        self._screen.line("server", "it has recovered, and accepts connections")
        await self._recover("the server was back", was, accepts)

    async def _count(self) -> None:
        self._screen.chapter("5. Count")
        await self._let_flow()
        await self._stop_writing()
        try:
            self._table = await read_orders(self._dsn)
        except FAILURES as error:
            msg = f"the table cannot be read: {error}"
            raise StuckError(msg) from error
        self._flow.settle(self._table)
        await self._catch_up()

    # -- what the chapters are made of --------------------------------------------------------

    async def _send(self, client: Listener, channel: str, payload: str) -> None:
        """Notify, and see it arrive."""
        self._screen.line("sent", f"notify({channel!r}, {payload!r})")
        count = len(self._application.heard)
        await client.notify(channel, payload)
        await self._expect(lambda: len(self._application.heard) > count, f"heard of {channel}")

    async def _let_flow(self) -> None:
        """Let orders flow for a while; show how many came."""
        first = self._flow.sent + 1
        await asyncio.sleep(FLOWING)
        await self._expect(lambda: self._flow.sent >= first, "a single order committed")
        last = self._flow.sent
        await self._catch_up()
        counts = (f"{self._flow.count(s, first, last):,} by the {s}" for s in SUBSCRIPTIONS)
        self._screen.line("received", f"orders {first:,} to {last:,}: {', '.join(counts)}")

    async def _catch_up(self) -> None:
        """Wait until what is sent by now has arrived; what is missing then is for the judge."""
        sent = self._flow.sent
        await self._flow.until(lambda: self._flow.everybody_saw(sent), within=PATIENCE)

    async def _stop_writing(self) -> None:
        """Stop between two commits, so that the table is final."""
        self._writer.stop()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=PATIENCE)

    def _standing(self) -> tuple[int, int]:
        return len(self._application.reconnected), self._flow.gaps_told()

    async def _recover(self, what: str, was: tuple[int, int], accepts: float | None = None) -> None:
        """Wait until the listener is back, and both subscriptions have been told."""
        reconnects, gaps = was
        self._recoveries.append(Recovery(what, None))
        await self._expect(
            lambda: len(self._application.reconnected) > reconnects,
            f"listening again after {what}",
        )
        at, event = self._application.reconnected[-1]
        seconds = event.downtime if accepts is None else max(0.0, at - accepts)
        self._recoveries[-1] = Recovery(what, seconds, event.downtime)
        await self._expect(lambda: self._flow.gaps_told() > gaps, f"told of a Gap after {what}")
        await asyncio.sleep(PAUSE)

    async def _expect(self, fact: Callable[[], bool], what: str) -> None:
        if not await self._flow.until(fact, within=PATIENCE):
            msg = f"not {what}, within {PATIENCE:g} s"
            raise StuckError(msg)

    def _status(self) -> str:
        received = ", ".join(f"{self._flow.received(s):,} by the {s}" for s in SUBSCRIPTIONS)
        return f"{self._listener.state}: {self._flow.sent:,} orders sent, {received}"


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
