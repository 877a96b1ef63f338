"""Change, and how it is read from what a trigger has sent."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from asyncnotify import Reread
from asyncnotify.triggers._values import Convert, converter, number, whole_number

OPERATIONS: Final = {"insert", "update", "delete", "truncate"}


@dataclass(frozen=True, slots=True)
class Change:
    """
    What one statement has done to rows of a table, or a part of it.

    Attributes:
        operation: What has been done. An update of a key is a delete of the old one and an insert
            of the new one.
        keys: The keys of the rows: each a value if one column is the key, else a tuple. None of
            them for a truncate, after which the table is empty.
        rows: The same rows, each as a mapping from column to value: the key, and the columns that
            ``payload=`` names, as they are after the statement, or were before a delete.
        whole: False if a row was too large for a notification, and the mapping has its key only.
    """

    operation: Literal["insert", "update", "delete", "truncate"]
    keys: tuple[Any, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    whole: bool = True


class Decoder:
    """
    Reads payloads of one table's triggers.

    Args:
        key: The columns of the key.
        columns: All columns that are sent, the key first.
        types: What is called with the value of a column, to make another value of it.
    """

    def __init__(
        self, key: Sequence[str], columns: Sequence[str], types: Mapping[str, Convert]
    ) -> None:
        self._key = tuple(key)
        self._columns = frozenset(columns)
        self._types = types

    def __call__(self, payload: str) -> Change | Reread:
        """
        Return what a payload says.

        Raises:
            ValueError: It is none of a trigger's.
        """
        try:
            return self._read(payload)
        except RecursionError:  # JSON may be nested deeper than Python reads
            return Reread(None)

    def _read(self, payload: str) -> Change | Reread:
        said = _parsed(payload)
        if "reread" in said:
            return Reread(said["reread"])
        operation = said.get("op")
        if operation not in OPERATIONS:
            msg = "no payload of a trigger: it has no operation"
            raise ValueError(msg)
        if operation == "truncate":
            return Change("truncate")
        return self._of_rows(operation, said)

    def _of_rows(self, operation: Any, said: Mapping[str, Any]) -> Change:  # noqa: ANN401 - checked
        columns, oids, arrays = _parts(said)
        if not self._key_in(columns):
            msg = f"no payload of this Table's triggers: it has no key of {', '.join(self._key)}"
            raise ValueError(msg)
        converts = _converters(tuple(oids))
        own = [self._types.get(column) for column in columns]
        rows = tuple(
            {
                column: _value(item, convert, more)
                for column, item, convert, more in zip(columns, array, converts, own, strict=True)
            }
            for array in arrays
        )
        whole = self._columns.issubset(columns)
        return Change(operation, tuple(map(self._key_of, rows)), rows, whole)

    def _key_in(self, columns: Sequence[str]) -> bool:
        # The triggers may be those of another version of the program, with another key
        return all(name in columns for name in self._key)

    def _key_of(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of any type
        values = tuple(row[name] for name in self._key)
        return values[0] if len(values) == 1 else values


def _parsed(payload: str) -> Mapping[str, Any]:
    said = json.loads(payload, parse_float=number, parse_int=whole_number)
    if not isinstance(said, dict):
        msg = "no payload of a trigger: it is no JSON object"
        raise ValueError(msg)  # noqa: TRY004 - of what has arrived, not of an argument
    return cast("Mapping[str, Any]", said)


def _parts(said: Mapping[str, Any]) -> tuple[list[str], list[int], list[list[Any]]]:
    """Return columns, oids of types, and rows of as many values; else raise ValueError."""
    columns, oids, rows = said.get("columns"), said.get("types"), said.get("rows")
    if _are(columns, str) and _are(oids, int) and _are(rows, list):
        widths = {len(cast("list[Any]", oids)), *map(len, cast("list[list[Any]]", rows))}
        if widths == {len(cast("list[Any]", columns))}:
            return cast("tuple[list[str], list[int], list[list[Any]]]", (columns, oids, rows))
    msg = "no payload of a trigger: columns, types and rows do not fit"
    raise ValueError(msg)


def _are(values: object, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


@functools.lru_cache(maxsize=1_000)
def _converters(oids: tuple[int, ...]) -> tuple[Convert, ...]:
    return tuple(map(converter, oids))


def _value(item: Any, convert: Convert, more: Callable[[Any], Any] | None) -> Any:  # noqa: ANN401 - JSON
    value = convert(item)
    return value if value is None or more is None else more(value)
