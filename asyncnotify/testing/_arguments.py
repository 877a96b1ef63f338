"""Checks of arguments that only the test kit needs; the others are in `asyncnotify._arguments`."""

from __future__ import annotations

from typing import Final

from asyncnotify._arguments import check_present

_LARGEST_PORT: Final = 65_535
_LONGEST_NAME: Final = 63


def check_port(name: str, value: object, *, minimum: int = 1) -> None:
    """Raise TypeError or ValueError unless the value is a port."""
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{name} must be a number, not of type {type(value).__name__}"
        raise TypeError(msg)
    if not minimum <= value <= _LARGEST_PORT:
        msg = f"{name} must be from {minimum} to {_LARGEST_PORT}, not {value}"
        raise ValueError(msg)


def check_identifier(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless the value can be the name of a role or a database."""
    check_present(name, value, str)
    text = str(value)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= _LONGEST_NAME or "\0" in text:
        msg = f"{name} must have 1 to {_LONGEST_NAME} bytes of UTF-8 without NUL, not be {text!r}"
        raise ValueError(msg)


def check_bytes(name: str, value: object) -> None:
    """Raise TypeError unless the value is bytes: a str would never be found among bytes."""
    if not isinstance(value, bytes):
        msg = f"{name} must be bytes, as b'LISTEN', not of type {type(value).__name__}"
        raise TypeError(msg)


def check_direction(value: object, *, may_be_both: bool = False) -> None:
    """Raise ValueError unless the value names a direction."""
    allowed = ["to_server", "to_client"] + ["both"] * may_be_both
    if value not in allowed:
        msg = f"direction must be one of {', '.join(map(repr, allowed))}, not {value!r}"
        raise ValueError(msg)
