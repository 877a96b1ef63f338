"""The scenario of the demo of the log: append, kill -9 the consumer, kill the server, count."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncnotify
from asyncnotify.cli.demo import scenario
from asyncnotify.cli.demo.mailer import LOG
from asyncnotify.cli.demo.scenario import StepTimeoutError, in_thread
from asyncnotify.cli.demo.shop import Count, Shop
from asyncnotify.cli.demo.writer import FAILURES
from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.cli.demo.screen import Row, Screen
    from asyncnotify.testing.server import PostgresServer

__all__ = ["DurableOutcome", "DurableScenario"]

PER_SECOND: Final = 200
MAILER: Final = "asyncnotify.cli.demo.mailer"
"""The module that consumes, as a program."""

_LOOK: Final = 0.02
_MAILERS: Final = 2


@dataclass(slots=True)
class DurableOutcome:
    """
    What a run of the scenario came to.

    Attributes:
        count: Of the rows.
        recoveries: How long it took to go on, in words.
        failures: What else went wrong.
    """

    count: Count = field(default_factory=Count)
    recoveries: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])

    def figures(self) -> tuple[Row, list[Row]]:
        """Return the header and the rows of the table that shows it."""
        return self.count.figures()

    def notes(self) -> list[str]:
        """Return what else there is to say."""
        return self.recoveries

    def problems(self) -> list[str]:
        """Describe every promise that was not kept."""
        return [*self.failures, *self.count.problems()]


class DurableScenario:
    """
    One run of the demo of the log, on a server that is running.

    Args:
        server: The server, which will be killed and started again.
        screen: Where to show what happens.
    """

    def __init__(self, server: PostgresServer, screen: Screen) -> None:
        self._server = server
        self._screen = screen
        self._shop = Shop(server.dsn, Log(LOG, server.dsn, ssl=False))
        self._mailers: dict[int, asyncio.subprocess.Process] = {}
        self._outcome = DurableOutcome()
        self._mailed = self._mailer = 0

    async def run(self) -> DurableOutcome:
        """Run every step; return what they came to."""
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._append(tasks)
                await self._lose_consumer()
                await self._lose_server()
                await self._lose_both()
                await self._count()
            except (StepTimeoutError, *FAILURES) as error:
                self._outcome.failures.append(str(error))
            finally:
                self._shop.stop()
                await self._end_mailers()
        return self._outcome

    # -- the steps -------------------------------------------------------------------------

    async def _append(self, tasks: asyncio.TaskGroup) -> None:
        self._screen.heading("1. Append and consume")
        await self._shop.open()
        self._screen.event("server", "log.install(): the tables of the log, in a schema of its own")
        for _ in range(_MAILERS):
            await self._start_mailer()
        tasks.create_task(self._shop.take_orders(PER_SECOND), name="demo orders")
        self._screen.event("sent", f"about {PER_SECOND} orders a second, each with its event")
        self._screen.show_status(self._status)
        await self._let_mails_come()

    async def _lose_consumer(self) -> None:
        self._screen.heading("2. While orders are taken, the consumer is killed")
        killed = await self._kill_mailer()
        await self._go_on("the other process has taken over", lambda: self._mailer != killed)
        await self._start_mailer()
        await self._let_mails_come()

    async def _lose_server(self) -> None:
        self._screen.heading("3. While orders are taken, the server is killed")
        await self._restart_server()
        await self._go_on("the mailer goes on behind the last mail", lambda: True)
        await self._let_mails_come()

    async def _lose_both(self) -> None:
        self._screen.heading("4. Both at once")
        killed = await self._kill_mailer()
        await self._restart_server()
        await self._go_on("the other process has taken over", lambda: self._mailer != killed)
        await self._let_mails_come()

    async def _count(self) -> None:
        self._screen.heading("5. Count the rows")
        self._shop.stop()
        await self._expect(self._has_caught_up, "a mail for each order")
        self._outcome.count = await self._shop.count()

    # -- what the steps are made of --------------------------------------------------------

    async def _start_mailer(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", MAILER, self._server.dsn),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the demo
            env={**os.environ, "PYTHONPATH": _where_we_are()},
        )
        self._mailers[process.pid] = process
        self._screen.event("listening", f"a consumer named mailer, process {process.pid}")

    async def _kill_mailer(self) -> int:
        """Kill the process that has written the last mail; return its pid."""
        process = self._mailers.pop(self._mailer, None)
        if process is None:
            msg = f"process {self._mailer} has written a mail, and is none of the demo's"
            raise StepTimeoutError(msg)
        self._screen.event("breaking", f"kill -9 {process.pid}, the consumer that serves")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        return process.pid

    async def _restart_server(self) -> None:
        self._screen.event("breaking", f"kill -9 {self._server.pid}, the postmaster")
        await in_thread(self._server.kill)
        await asyncio.sleep(scenario.DOWN)
        self._screen.event("server", "starting it again")
        await in_thread(self._server.start)
        self._screen.event("server", "recovered; accepts connections")

    async def _go_on(self, what: str, fact: Callable[[], bool]) -> None:
        """Wait for the next mail, and tell how long that took."""
        began, before = time.monotonic(), self._mailed

        async def goes_on() -> bool:
            await self._look()
            return self._mailed > before and fact()

        await self._expect(goes_on, what)
        told = f"{what}, after {(time.monotonic() - began) * 1000:,.0f} ms"
        self._screen.event("back", told)
        self._outcome.recoveries.append(told)

    async def _let_mails_come(self) -> None:
        """Let orders be taken for a while, and mails follow; show how many."""
        await asyncio.sleep(scenario.WRITING_TIME)
        first, until = self._mailed + 1, max(1, self._shop.committed)

        async def follows() -> bool:
            await self._look()
            return self._mailed >= until

        await self._expect(follows, f"a mail for order {until}")
        self._screen.event(
            "received", f"mails for orders {first:,} to {self._mailed:,}, by process {self._mailer}"
        )

    async def _has_caught_up(self) -> bool:
        await self._look()
        return self._mailed >= self._shop.committed > 0

    async def _look(self) -> None:
        """Learn of the newest mail; and see whether a process has ended that nobody killed."""
        number, process = await self._shop.last_mail()
        if number:
            self._mailed, self._mailer = number, process
        for mailer in self._mailers.values():
            if mailer.returncode is not None:
                msg = f"consumer process {mailer.pid} has ended with status {mailer.returncode}"
                raise StepTimeoutError(msg)

    async def _expect(self, fact: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(scenario.STEP_TIMEOUT):
                while not await fact():  # noqa: ASYNC110 - the database tells nobody
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            msg = f"not {what}, within {scenario.STEP_TIMEOUT:g} s"
            raise StepTimeoutError(msg) from None

    async def _end_mailers(self) -> None:
        for process in self._mailers.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    def _status(self) -> str:
        return f"{self._shop.committed:,} orders, mails up to order {self._mailed:,}"


def _where_we_are() -> str:
    """Return a path on which a further process finds this package and its dependencies."""
    return os.pathsep.join([str(Path(asyncnotify.__file__).parents[1]), *filter(None, sys.path)])
