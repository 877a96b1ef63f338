"""
The demos: a PostgreSQL server, a listener or a log, ways to break them, and what was lost.

They use the public API of asyncnotify, and the server of asyncnotify.testing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from asyncnotify.cli.demo.durable import DurableScenario
from asyncnotify.cli.demo.scenario import Scenario, in_thread
from asyncnotify.cli.demo.screen import open_screen
from asyncnotify.cli.exits import READER_LEFT
from asyncnotify.testing.server import BinariesNotFoundError, PostgresServer, PostgresServerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from asyncnotify.cli.demo.screen import Row, Screen

__all__ = ["TOPICS", "show"]

KEPT, BROKEN, NOT_SHOWN = 0, 1, 2

_INTRODUCTION = """\
asyncnotify demo: break the connection, kill the server, count what was lost.
It takes ten seconds, on a PostgreSQL of its own that is gone afterwards.

The application keeps a view of a table, as a cache does: the numbers of all orders. A trigger
notifies of each new order. These lines of yours would keep such a view:

    orders = set()

    async def on_order(n):            # for each notification
        orders.add(int(n.payload))

    async def read_table(gap):        # at the start, and wherever some may be missing
        orders.update(await numbers_of_all_orders())

    async with Listener(dsn) as listener:
        await listener.listen("orders", on_order, resync=read_table)
        await listener.wait_closed()

Beside it a stream, listener.stream("orders", gaps=True), yields the same notifications and the
Gaps. At the end each order is looked for: received, covered by a Gap, or lost silently.
"""

_KEPT = "every loss was reported by a Gap in its place; nothing was lost silently"

_NEXT = """\
What to do next:
  run the first example of README.md, with the address of your own database;
  take examples/cache_invalidation.py, which is such an application in full;
  read docs/reliability.md: what holds in which fault, and what to set on the server."""

_OF_THE_LOG = """\
asyncnotify demo log: kill the consumer, kill the server, count what was lost or doubled.
It takes ten seconds, on a PostgreSQL of its own that is gone afterwards.

The application takes orders, and each order is to be followed by one mail. These lines of yours
would do so. The event is part of the order's transaction:

    async with connection.transaction():
        await connection.execute("INSERT INTO orders ...")
        await log.append("orders", str(number), connection=connection)

The consumer is another process, here two of them, of which one serves and the other waits. Its
place in the log is moved in the transaction in which the mail is written:

    @log.on("mailer", "orders", transactional=True)
    async def mail(event, connection):
        await connection.execute("INSERT INTO mails ...")

At the end the rows of both tables are counted.
"""

_KEPT_BY_THE_LOG = "0 lost, 0 doubled: each order has one mail, in the order of their commits"

_NEXT_WITH_THE_LOG = """\
What to do next:
  read docs/log.md: ten minutes, then the guarantees in one table;
  take examples/log_outbox.py, which is such an application in full;
  run `nox -s chaos -- --log`, which breaks more, and for longer."""

_NO_PROGRAMS = """\
The demo needs PostgreSQL's server programs: pip install 'asyncnotify-pg[demo]' brings them along.
{error}"""


class _Outcome(Protocol):
    """What a scenario has come to."""

    def figures(self) -> tuple[Row, list[Row]]: ...

    def notes(self) -> Sequence[str]: ...

    def problems(self) -> list[str]: ...


class _Scenario(Protocol):
    async def run(self) -> _Outcome: ...


class _Topic(NamedTuple):
    """What is shown, and what is said before and after."""

    introduction: str
    scenario: Callable[[PostgresServer, Screen], _Scenario]
    kept: str
    next: str


_TOPICS: Final = {
    "listener": _Topic(_INTRODUCTION, Scenario, _KEPT, _NEXT),
    "log": _Topic(_OF_THE_LOG, DurableScenario, _KEPT_BY_THE_LOG, _NEXT_WITH_THE_LOG),
}
TOPICS: Final = tuple(_TOPICS)
"""What can be shown."""


def show(topic: str = "listener", *, plain: bool) -> int:
    """Run a demo; return the exit status, which tells of Ctrl-C and SIGTERM as shells do."""
    status = NOT_SHOWN
    try:
        status = _run(_TOPICS[topic], plain=plain)
    except* BinariesNotFoundError as errors:
        print(_NO_PROGRAMS.format(error=_first(errors)), file=sys.stderr)
    except* PostgresServerError as errors:
        print(f"The demo's PostgreSQL server failed: {_first(errors)}", file=sys.stderr)
    except* BrokenPipeError:
        status = READER_LEFT  # as after `| head`
    return status


def _run(topic: _Topic, *, plain: bool) -> int:
    received: list[int] = []
    try:
        return asyncio.run(_show(topic, received, plain=plain))
    except asyncio.CancelledError:  # see _cancel_on_signals()
        print("\ninterrupted; the server is gone, and nothing is left behind", file=sys.stderr)
        return 128 + received[0]


async def _show(topic: _Topic, received: list[int], *, plain: bool) -> int:
    _cancel_on_signals(received)
    with _errors_logged() as errors_logged, open_screen(plain=plain) as screen:
        screen.text(topic.introduction)
        async with _running_server(screen) as server:
            outcome = await topic.scenario(server, screen).run()
        problems = [*outcome.problems(), *errors_logged]
        _conclude(screen, topic, outcome, problems)
    return BROKEN if problems else KEPT


def _cancel_on_signals(received: list[int]) -> None:
    """
    Let the first Ctrl-C or SIGTERM cancel this task, and the others do nothing.

    asyncio's own handler raises KeyboardInterrupt at the second one, at any line: the
    server would be left to its wrapper process, and the user would see a traceback.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt(number: int) -> None:
        received.append(number)
        if task is not None and len(received) == 1:
            task.cancel()

    with contextlib.suppress(NotImplementedError):  # on Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a script
                loop.add_signal_handler(number, interrupt, number)


@contextlib.asynccontextmanager
async def _running_server(screen: Screen) -> AsyncGenerator[PostgresServer, None]:
    server = PostgresServer()
    try:
        screen.event("server", "making a PostgreSQL server in a temporary directory")
        await in_thread(server.start)
        place = f"{server.host}:{server.port}, process {server.pid}"
        screen.event("server", f"PostgreSQL {server.version} is ready at {place}")
        yield server
    finally:
        await in_thread(server.close)


def _conclude(screen: Screen, topic: _Topic, outcome: _Outcome, problems: Sequence[str]) -> None:
    """Show the figures, and the conclusion from them."""
    screen.table(*outcome.figures())
    for note in outcome.notes():
        screen.text(f"  {note}")
    screen.conclusion("\n  ".join(problems) if problems else topic.kept, good=not problems)
    if not problems:
        screen.text(f"\n{topic.next}")


class _ErrorLog(logging.Handler):
    """Collects what asyncnotify logs as an error; nothing is expected."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record."""
        cause = record.exc_info[1] if record.exc_info else None
        self.texts.append(record.getMessage() + (f": {cause!r}" if cause else ""))


@contextlib.contextmanager
def _errors_logged() -> Generator[Sequence[str], None, None]:
    """Collect the errors logged in a block; what is logged below that, the screen shows anyway."""
    logger, handler = logging.getLogger("asyncnotify"), _ErrorLog()
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is no group."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
