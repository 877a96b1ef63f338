"""Python values of what a payload holds as JSON, by the oids of the columns' types."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

Convert: TypeAlias = Callable[[Any], Any]

_LONGEST_INT: Final = 4_000
"""Digits. Python refuses to make an int of 4,300 digits and more."""


def _bytes(text: str) -> bytes:
    r"""Return bytes, whatever ``bytea_output`` was: ``\x00ff``, or ``\000\377`` and characters."""
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    plain, made, at = text.encode("latin-1"), bytearray(), 0
    while at < len(plain):
        if plain[at : at + 1] != b"\\":
            made.append(plain[at])
            at += 1
        elif plain[at + 1 : at + 2] == b"\\":
            made.append(plain[at])
            at += 2
        else:
            made.append(int(plain[at + 1 : at + 4], 8))
            at += 4
    return bytes(made)


def _with_floats(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON with its numbers as the standard library makes them."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    if isinstance(value, dict):
        return {name: _with_floats(item) for name, item in value.items()}
    return value


_CONVERT: Final[dict[int, Convert]] = {
    17: _bytes,  # bytea
    700: float,  # float4
    701: float,  # float8
    1082: date.fromisoformat,
    1083: time.fromisoformat,
    1114: datetime.fromisoformat,  # timestamp
    1184: datetime.fromisoformat,  # timestamptz
    1266: time.fromisoformat,  # timetz
    1700: Decimal,  # numeric
    2950: UUID,
}
"""By the oid of a type: those of PostgreSQL's own types are the same in every version."""


def converter(oid: int) -> Convert:
    """Return what makes a Python value of a type. It never fails: what Python cannot hold stays."""
    convert = _CONVERT.get(oid, _with_floats)

    def converted(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if value is None:
            return None
        try:
            return convert(value)
        except (ValueError, TypeError, AttributeError, ArithmeticError):
            return _with_floats(value)  # such as infinity, and dates before Christ

    return converted


def number(digits: str) -> Decimal | float:
    """Return a number with a fraction or an exponent; one of no Decimal is infinite, or 0."""
    try:
        return Decimal(digits)
    except ArithmeticError:
        return float(digits)


def whole_number(digits: str) -> int | Decimal:
    """Return a whole number; one that is too long for an int as a Decimal."""
    return int(digits) if len(digits) <= _LONGEST_INT else Decimal(digits)
