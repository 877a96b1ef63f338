"""The commands ``log …``: making, watching and operating a durable log."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from asyncnotify.cli.listening import Taking
from asyncnotify.cli.options import Count, Dsn, Json, JsonObject, after_of, duration_of
from asyncnotify.cli.texts import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from datetime import timedelta

    from asyncnotify.log import After, Log, LogStream

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="LOG", show_default=False, help="Its name.")]
Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", show_default=False)]


def _run(name: str, dsn: str | None, work: Callable[[Log], Awaitable[int | None]]) -> None:
    """Run a coroutine with a log, and leave with its exit status, 0 if it returns none."""
    from asyncnotify.cli.running import run
    from asyncnotify.log import Log

    async def with_log() -> int:
        log = Log(name, dsn)
        try:
            return await work(log) or 0
        finally:
            await log.aclose()

    run(with_log)


@app.command(
    "install",
    epilog=examples("asyncnotify log install shop", "asyncnotify log install shop --retention 2w"),
)
def install(
    name: Name,
    *,
    dsn: Dsn = None,
    retention: Annotated[
        str | None, typer.Option(show_default=False, help="Keep events so long, such as 12h or 7d.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(show_default=False, help="Keep them at most so long for consumers behind."),
    ] = None,
    ring: Annotated[
        int | None, typer.Option(show_default=False, help="Partitions of a new log, 3 to 64.")
    ] = None,
) -> None:
    """Make a log, or bring it to the version of this library; may be repeated."""
    from asyncnotify.log import Log

    settings: dict[str, Any] = {
        "retention": _duration(retention),
        "limit": _duration(limit),
        "ring": ring,
    }
    kept = settings["retention"] or settings["limit"]  # as long as that, or the log says how long
    try:
        Log(name).statements(**{**settings, "retention": kept})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    _run(name, dsn, lambda log: log.install(**settings))


def _duration(text: str | None) -> timedelta | None:
    return None if text is None else duration_of(text)


@app.command("status", epilog=examples("asyncnotify log status shop --json | jq .size"))
def status(name: Name, *, dsn: Dsn = None, json: JsonObject = False) -> None:
    """Show the size of a log, its end, its retention and its consumers."""

    async def show(log: Log) -> None:
        from asyncnotify.cli.log_tables import show_status

        show_status(await log.status(), json=json)

    _run(name, dsn, show)


@app.command("consumers", epilog=examples("asyncnotify log consumers shop"))
def consumers(name: Name, *, dsn: Dsn = None, json: JsonObject = False) -> None:
    """Show where each consumer stands, its lag, and who serves it."""

    async def show(log: Log) -> None:
        from asyncnotify.cli.log_tables import show_consumers

        show_consumers(await log.status(), json=json)

    _run(name, dsn, show)


@app.command(
    "read",
    epilog=examples(
        "asyncnotify log read shop orders -n 10",
        "asyncnotify log read shop --after 2026-01-31T12:00+00:00",
        "asyncnotify log read shop --after shop:1.7.42 --follow",
    ),
)
def read(
    name: Name,
    channels: Annotated[
        list[str] | None, typer.Argument(metavar="CHANNEL", show_default=False)
    ] = None,
    *,
    dsn: Dsn = None,
    after: Annotated[
        str, typer.Option(help="Where to begin: start, now, a position, or a time.")
    ] = "start",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for new events, as `listen --log` does.")
    ] = False,
    gaps: Annotated[bool, typer.Option("--gaps", help="Gaps as items of the output.")] = False,
    count: Count = None,
    json: Json = False,
) -> None:
    """Show the events of a log, of all channels if none is named, up to its end."""
    place, taking = after_of(after), Taking(json=json, gaps=gaps, count=count)
    _run(name, dsn, lambda log: _read(log, channels or (), place, taking, follow=follow))


async def _read(
    log: Log, channels: Sequence[str], after: After, taking: Taking, *, follow: bool
) -> None:
    async with log.read(*channels, after=after, gaps=True) as stream:
        batches = stream.batches() if follow else _present(stream)
        async with aclosing(batches):
            await taking.take(batches)


async def _present(stream: LogStream[Any]) -> AsyncGenerator[list[Any]]:
    """Yield what is there, in lists, and end at the end of the log."""
    async with aclosing(stream.until_end()) as items:
        async for item in items:
            yield [item, *stream.at_hand(999)]


@app.command(
    "seek",
    epilog=examples(
        "asyncnotify log seek shop mailer start", "asyncnotify log seek shop mailer shop:1.7.42"
    ),
)
def seek(
    name: Name,
    consumer: Consumer,
    to: Annotated[
        str,
        typer.Argument(show_default=False, help="start, now, a position, or a time."),
    ],
    *,
    dsn: Dsn = None,
) -> None:
    """Move a consumer, backward or forward; the process that serves it continues from there."""
    place = after_of(to)
    _run(name, dsn, lambda log: log.seek(consumer, place))


@app.command("pause", epilog=examples("asyncnotify log pause shop mailer"))
def pause(name: Name, consumer: Consumer, *, dsn: Dsn = None) -> None:
    """Let nobody serve a consumer, until `log resume`; it keeps its place."""
    _run(name, dsn, lambda log: log.pause(consumer))


@app.command("resume", epilog=examples("asyncnotify log resume shop mailer"))
def resume(name: Name, consumer: Consumer, *, dsn: Dsn = None) -> None:
    """Let a consumer be served again that was paused."""
    _run(name, dsn, lambda log: log.resume(consumer))


@app.command("drop", epilog=examples("asyncnotify log drop shop mailer"))
def drop(name: Name, consumer: Consumer, *, dsn: Dsn = None) -> None:
    """Remove a consumer for good, with its place and its dead letters; nobody is asked before."""
    _run(name, dsn, lambda log: log.drop(consumer))


@app.command(
    "dead",
    epilog=examples(
        "asyncnotify log dead shop",
        "asyncnotify log dead shop mailer --json | jq -r .error",
        "asyncnotify log dead shop --discard 01890a5d-ac96-774b-bcce-b302099a8057",
    ),
)
def dead(
    name: Name,
    consumer: Annotated[str | None, typer.Argument(metavar="CONSUMER", show_default=False)] = None,
    *,
    dsn: Dsn = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 100,
    discard: Annotated[
        list[UUID] | None,
        typer.Option(metavar="ID", show_default=False, help="Remove the letter of this event."),
    ] = None,
    json: JsonObject = False,
) -> None:
    """
    Show events that a consumer could not handle, the oldest first; or remove some.

    Exit status 1: one that was to be removed is not there.
    """

    async def show_or_discard(log: Log) -> int:
        from asyncnotify.cli.log_tables import show_dead_letters

        if discard:
            return await _discard(log, consumer, discard)
        show_dead_letters(await log.dead_letters(consumer, limit=limit), json=json)
        return 0

    _run(name, dsn, show_or_discard)


_ALL = 1_000_000


async def _discard(log: Log, consumer: str | None, events: Sequence[UUID]) -> int:
    from asyncnotify.cli.exits import BAD_RESULT
    from asyncnotify.cli.output import say

    found: set[UUID] = set()
    for letter in await log.dead_letters(consumer, limit=_ALL):
        if letter.event.id in events and await log.discard(letter):
            found.add(letter.event.id)
    for missing in sorted(set(events) - found):
        say(f"there is no dead letter of event {missing}")
    return BAD_RESULT if found != set(events) else 0
