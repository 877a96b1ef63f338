"""The command ``listen``: notifications, or events of a log, as lines or for a command."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncnotify.cli.options import Count, Dsn, Json, after_of, seconds_option
from asyncnotify.cli.texts import about, examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncnotify import ConnectionEvent
    from asyncnotify.cli.items import Item
    from asyncnotify.log import After

__all__ = ["ABOUT", "EXAMPLES", "Taking", "listen"]

ABOUT = about("""
Listen on channels, and show what arrives.

In a pipe each notification is a line of JSON, and on a terminal a line in colours. The command
survives restarts of the server. Wherever notifications may be missing, a line on standard error
says so; with --gaps it is in the output, in its place.

--exec runs a command in the shell for each notification, one at a time: the payload is on its
standard input, the rest in ASYNCNOTIFY_CHANNEL and ASYNCNOTIFY_PID. With --gaps it also runs for
each Gap, the one at the start included, with ASYNCNOTIFY_GAP. If it fails, that is reported, and
listening goes on.

--log reads a durable log instead: all of its channels if none is named.
""")
EXAMPLES = examples(
    "asyncnotify listen orders news",
    "asyncnotify listen orders | jq -r .payload",
    "asyncnotify listen orders --gaps --exec 'curl -d @- http://localhost:8000/changed'",
    "asyncnotify listen --log shop --after start",
)


def listen(
    channels: Annotated[
        list[str] | None, typer.Argument(metavar="CHANNEL", show_default=False)
    ] = None,
    *,
    dsn: Dsn = None,
    json: Json = False,
    gaps: Annotated[bool, typer.Option("--gaps", help="Gaps as items of the output.")] = False,
    execute: Annotated[
        str | None,
        typer.Option("--exec", metavar="COMMAND", show_default=False, help="Run it for each."),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="NAME", show_default=False, help="Read this durable log."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            show_default="now",
            help="With --log, where to begin: start, now, a position, or a time.",
        ),
    ] = None,
    count: Count = None,
    wait: Annotated[
        float,
        seconds_option(at_least=0.1, of="Seconds to wait for a server that does not answer yet."),
    ] = 5.0,
) -> None:
    """Listen on channels."""
    from asyncnotify.cli.running import run

    names = channels or []
    taking = Taking(json=json, gaps=gaps, execute=execute, count=count)
    if log is not None:
        place = after_of("now" if after is None else after)
        run(lambda: _read(log, names, dsn, place, taking))
    if after is not None:
        msg = "--after needs --log: NOTIFY keeps nothing that could be read again"
        raise typer.BadParameter(msg)
    if not names:
        msg = "name a channel, or a log with --log"
        raise typer.BadParameter(msg)
    run(lambda: _listen(names, dsn, wait, taking))


async def _listen(names: Sequence[str], dsn: str | None, wait: float, taking: Taking) -> int:
    from asyncnotify import Listener
    from asyncnotify.cli.output import say

    async with (
        Listener(dsn, start_timeout=wait, on_event=_say_reconnected) as listener,
        listener.stream(*names, gaps=True, timeout=wait) as stream,
    ):
        say(f"listening on {', '.join(names)}")
        await taking.take(aiter(stream.batches()))
    return 0


def _say_reconnected(event: ConnectionEvent) -> None:
    """Say the end of an outage; its beginning is a warning in the log, if it is no repetition."""
    from asyncnotify import Reconnected
    from asyncnotify.cli.output import say_now

    if isinstance(event, Reconnected):
        say_now(f"listening again after {event.downtime:.1f} s")


async def _read(
    name: str, channels: Sequence[str], dsn: str | None, after: After, taking: Taking
) -> int:
    from asyncnotify.cli.output import say
    from asyncnotify.log import Log

    async with Log(name, dsn) as log, log.read(*channels, after=after, gaps=True) as stream:
        say(f"reading log {name}")
        async with aclosing(stream.batches()) as batches:
            await taking.take(batches)
    return 0


class Taking:
    """
    What becomes of the items: lines of output, or calls of a command.

    Args:
        json: Write JSON to a terminal as well.
        gaps: Treat Gaps as items; else say them on standard error, but for the one at the start.
        execute: The command.
        count: How many items, Gaps not counted, to take; None: all.
    """

    def __init__(
        self, *, json: bool, gaps: bool, execute: str | None = None, count: int | None = None
    ) -> None:
        self._json = json
        self._gaps = gaps
        self._execute = execute
        self._left = count

    async def take(self, batches: AsyncIterator[Sequence[Any]]) -> None:
        """Take from batches until they end, or enough has come."""
        use = self._user()
        if self._left == 0:
            return
        async for batch in batches:
            await use(self._wanted(batch))
            if self._left == 0:
                return

    def _wanted(self, batch: Sequence[Item]) -> list[Item]:
        """Return the items to be used; say what the Gaps among the others tell."""
        from asyncnotify import Gap, GapReason
        from asyncnotify.cli.items import describe_gap
        from asyncnotify.cli.output import say_now

        wanted: list[Item] = []
        for item in batch:
            if self._left == 0:
                break
            if not isinstance(item, Gap):
                self._left = None if self._left is None else self._left - 1
            elif not self._gaps:
                if item.reason is not GapReason.START:
                    say_now(describe_gap(item))
                continue
            wanted.append(item)
        return wanted

    def _user(self) -> Callable[[list[Item]], Any]:
        from asyncnotify.cli.execution import Command
        from asyncnotify.cli.items import line_maker
        from asyncnotify.cli.output import Output, is_terminal

        if self._execute is not None:
            command = Command(self._execute)

            async def execute(items: list[Item]) -> None:
                for item in items:
                    await command.run(item)

            return execute
        output, line = Output(), line_maker(coloured=is_terminal() and not self._json)

        async def write(items: list[Item]) -> None:
            if items:
                await output.write("".join(map(line, items)))

        return write
