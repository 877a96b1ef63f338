"""The commands ``trigger …``: SQL, installing, status and removal of the triggers of a table."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncnotify.cli.options import Dsn, JsonObject, seconds_option
from asyncnotify.cli.texts import examples

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

    from asyncnotify.triggers import Table

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True)


class _Level(StrEnum):
    STATEMENT = "statement"
    ROW = "row"


class _Operation(StrEnum):
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"


Name = Annotated[str, typer.Argument(metavar="TABLE", show_default=False)]
Key = Annotated[
    list[str],
    typer.Option(
        metavar="COLUMN", show_default=False, help="A column of the key; may be repeated."
    ),
]
Watch = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", show_default=False, help="Skip updates of other columns."),
]
When = Annotated[
    str | None,
    typer.Option(metavar="SQL", show_default=False, help='A condition, such as "new.total > 0".'),
]
ChannelName = Annotated[
    str | None, typer.Option(show_default=False, help="By default the name of the table.")
]
Payload = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", show_default=False, help="Send this one with the key."),
]
Level = Annotated[_Level, typer.Option(help="One call for each of them.")]
Operations = Annotated[
    list[_Operation] | None,
    typer.Option("--operation", show_default=False, help="Send only these; by default all."),
]
MaxNotifications = Annotated[int, typer.Option(min=1, help="At most, for one statement.")]
LogName = Annotated[
    str | None, typer.Option("--log", show_default=False, help="Append to this durable log.")
]
TriggerName = Annotated[
    str | None, typer.Option("--trigger", show_default=False, help="Prefix of the trigger names.")
]
Timeout = Annotated[float, seconds_option(at_least=0.1, of="Seconds to try to lock the table.")]

_ANY_KEY = "id"
"""What is removed depends on the name only."""


def _table(
    name: str,
    key: list[str],
    *,
    watch: list[str] | None = None,
    when: str | None = None,
    channel: str | None = None,
    payload: list[str] | None = None,
    level: _Level = _Level.STATEMENT,
    operations: list[_Operation] | None = None,
    max_notifications: int = 16,
    log: str | None = None,
    trigger: str | None = None,
) -> Table:
    """Return the Table that the options describe."""
    from asyncnotify import AsyncNotifyError
    from asyncnotify.triggers import Table

    options: dict[str, Any] = {} if not operations else {"operations": [*map(str, operations)]}
    try:
        return Table(
            name,
            key=key,
            watch=watch or (),
            when=when,
            channel=channel,
            payload=payload or (),
            level=level.value,
            max_notifications=max_notifications,
            to="notify" if log is None else "log",
            log=log,
            trigger=trigger,
            **options,
        )
    except AsyncNotifyError as error:
        raise typer.BadParameter(str(error)) from None


def _run(dsn: str | None, work: Callable[[asyncpg.Connection[Any]], Awaitable[int | None]]) -> None:
    """Run a coroutine with a connection, and leave with its exit status, 0 if it returns none."""
    from asyncnotify.cli.connecting import connected
    from asyncnotify.cli.running import run

    async def with_connection() -> int:
        async with connected(dsn) as connection:
            return await work(connection) or 0

    run(with_connection)


@app.command(
    "print",
    epilog=examples(
        "asyncnotify trigger print orders --key id --payload status",
        "asyncnotify trigger print orders --key id --removal",
    ),
)
def print_sql(
    name: Name,
    *,
    key: Key,
    watch: Watch = None,
    when: When = None,
    channel: ChannelName = None,
    payload: Payload = None,
    level: Level = _Level.STATEMENT,
    operations: Operations = None,
    max_notifications: MaxNotifications = 16,
    log: LogName = None,
    trigger: TriggerName = None,
    removal: Annotated[bool, typer.Option("--removal", help="What takes it away.")] = False,
) -> None:
    """Print the SQL that makes the triggers of a table, for a migration; needs no database."""
    table = _table(
        name,
        key,
        watch=watch,
        when=when,
        channel=channel,
        payload=payload,
        level=level,
        operations=operations,
        max_notifications=max_notifications,
        log=log,
        trigger=trigger,
    )
    statements = table.removal_statements() if removal else table.statements()
    print(*(f"{statement.rstrip().rstrip(';')};" for statement in statements), sep="\n\n")


@app.command(
    "install",
    epilog=examples(
        "asyncnotify trigger install shop.orders --key region --key id --watch status",
        "asyncnotify trigger install invoices --key id --payload body --log shop",
    ),
)
def install(
    name: Name,
    *,
    key: Key,
    watch: Watch = None,
    when: When = None,
    channel: ChannelName = None,
    payload: Payload = None,
    level: Level = _Level.STATEMENT,
    operations: Operations = None,
    max_notifications: MaxNotifications = 16,
    log: LogName = None,
    trigger: TriggerName = None,
    dsn: Dsn = None,
    timeout: Timeout = 60.0,
) -> None:
    """Make the triggers of a table and of its partitions; may be repeated."""
    table = _table(
        name,
        key,
        watch=watch,
        when=when,
        channel=channel,
        payload=payload,
        level=level,
        operations=operations,
        max_notifications=max_notifications,
        log=log,
        trigger=trigger,
    )
    _run(dsn, lambda connection: table.install(connection, timeout=timeout))


@app.command("status", epilog=examples("asyncnotify trigger status orders --key id"))
def status(
    name: Name,
    *,
    key: Key,
    watch: Watch = None,
    when: When = None,
    channel: ChannelName = None,
    payload: Payload = None,
    level: Level = _Level.STATEMENT,
    operations: Operations = None,
    max_notifications: MaxNotifications = 16,
    log: LogName = None,
    trigger: TriggerName = None,
    dsn: Dsn = None,
    json: JsonObject = False,
) -> None:
    """Compare what is installed with these options; exit status 1 if anything differs."""
    table = _table(
        name,
        key,
        watch=watch,
        when=when,
        channel=channel,
        payload=payload,
        level=level,
        operations=operations,
        max_notifications=max_notifications,
        log=log,
        trigger=trigger,
    )
    _run(dsn, lambda connection: _show_status(table, connection, json=json))


async def _show_status(table: Table, connection: asyncpg.Connection[Any], *, json: bool) -> int:
    from asyncnotify.cli.exits import BAD_RESULT
    from asyncnotify.cli.output import print_json, show_table

    found = await table.status(connection)
    if json:
        tables = {name: state.value for name, state in found.tables.items()}
        print_json({"state": found.state.value, "function": found.function.value, "tables": tables})
    else:
        rows = [("the function", found.function), *found.tables.items()]
        show_table(f"triggers of {table.name}: {found.state}", ("", "state"), rows)
    return 0 if found.is_fine else BAD_RESULT


@app.command("remove", epilog=examples("asyncnotify trigger remove orders"))
def remove(
    name: Name,
    *,
    log: LogName = None,
    trigger: TriggerName = None,
    dsn: Dsn = None,
    timeout: Timeout = 60.0,
) -> None:
    """Remove the triggers of a table, and their function; nothing if there are none."""
    table = _table(name, [_ANY_KEY], log=log, trigger=trigger)
    _run(dsn, lambda connection: table.remove(connection, timeout=timeout))
