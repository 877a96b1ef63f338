"""Options that several commands have, as typer reads them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from math import isnan
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from asyncnotify.log import After, Position

__all__ = ["Count", "Dsn", "Json", "after_of", "duration_of", "plain_dsn", "seconds_option"]

_VARIABLES: Final = ("ASYNCNOTIFY_DSN", "DATABASE_URL")

_OF_A_DRIVER: Final = re.compile(r"(postgres(?:ql)?)\+\w+(?=://)")

_DAY: Final = 86_400


def seconds_option(*, at_least: float, at_most: float = _DAY, of: str) -> object:
    """Return the option of a number of seconds: with an upper bound, so that it is finite."""
    return typer.Option(min=at_least, max=at_most, help=of, callback=_checked_number)


def _checked_number(value: float) -> float:
    if isnan(value):  # which is in every range for click, before the version that refuses it
        msg = f"{value} is not a number of seconds"
        raise typer.BadParameter(msg)
    return value


def plain_dsn(text: str) -> str:
    """
    Return a DSN as asyncnotify reads it.

    What programs keep in DATABASE_URL is often SQLAlchemy's URL for another driver: it names the
    same server.
    """
    return _OF_A_DRIVER.sub(r"\1+asyncpg", text.strip(), count=1)


Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        envvar=[*_VARIABLES],
        metavar="URL",
        show_default=False,
        help="The database: postgresql://user:password@host/database. Without any, PGHOST and the"
        " other variables of libpq say where it is.",
        parser=plain_dsn,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, as in a pipe; a terminal gets colours.")]
JsonObject = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Count = Annotated[
    int | None,
    typer.Option("-n", "--count", min=1, show_default=False, help="End after so many."),
]

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(\d{1,9})([smhdw])")


def duration_of(text: str) -> timedelta:
    """
    Return a duration, such as 90s, 15m, 12h, 7d or 2w.

    Raises:
        typer.BadParameter: The text is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        msg = f"{text!r} is no duration: write 90s, 15m, 12h, 7d or 2w"
        raise typer.BadParameter(msg)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def after_of(text: str) -> After:
    """
    Return a place in a log: start, now, a position as `log read` shows it, or a time.

    Raises:
        typer.BadParameter: The text is none.
    """
    match text:
        case "start" | "now":
            return text
        case _ if ":" in text and text[0].isalpha():
            return _position_of(text)
        case _:
            return _time_of(text)


def _position_of(text: str) -> Position:
    from asyncnotify.log import Position, PositionError

    try:
        return Position.parse(text)
    except PositionError as error:
        raise typer.BadParameter(str(error)) from None


def _time_of(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()  # without a zone: of this machine
    except ValueError:
        msg = (
            f"{text!r} is no place in a log: write start, now, a position such as shop:1.7.42,"
            " or a time such as 2026-01-31T12:00+00:00"
        )
        raise typer.BadParameter(msg) from None
