"""The way of one row: of most statements, and of each call of a row-level trigger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import literal
from asyncnotify.triggers._sql.payloads import NEXT_NUMBER
from asyncnotify.triggers._sql.rows import (
    MOST_ARGUMENTS,
    NEW_ROWS,
    OLD_ROWS,
    aliased,
    columns_of,
    filter_of,
    json_array,
    record_of,
    type_of,
    types_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncnotify.triggers._definition import Definition

OPERATIONS: Final = ("update", "insert", "delete")
"""Those of rows, the most frequent one first."""

NOTHING: Final = "''"
"""In place of a payload: the row is not to be told."""

_NUMBER: Final = '"n":%s,'
_OTHER_ARGUMENTS: Final = 3
"""Of format(), beside the types: its text, the number and the row."""


def branches(statements: Iterable[str], otherwise: str = "") -> str:
    """Return a statement for each of OPERATIONS, of which one is executed, or the last one."""
    conditions = (
        f"TG_OP = '{operation.upper()}' THEN\n        {statement}"
        for operation, statement in zip(OPERATIONS, statements, strict=True)
    )
    end = f"\n    ELSE\n        {otherwise}" if otherwise else ""
    return "    IF " + "\n    ELSIF ".join(conditions) + f"{end}\n    END IF;"


def row_of_statement(definition: Definition, operation: str) -> str:
    """
    Return the statements that make ``payload`` of the one row that a statement has changed.

    It is null where that does not do: the key is another one. The query fails where there are more
    rows, or none: in a block with EXCEPTION that takes less time than to look for a second row.

    Its values are made a payload by an expression, not by the query, since the executor prepares
    each function of a query anew in each call, and PL/pgSQL those of an expression once in each
    transaction.

    Of an update there may be fewer new rows than old ones: a trigger BEFORE INSERT of a partition
    can leave out a row that was to be moved there.
    """
    alias, source = aliased(definition, operation)
    columns, key = _numbered("c", definition.columns), _numbered("k", definition.key)
    values = _selected(alias, definition.columns, columns)
    payload = payload_of(operation, definition.columns, columns_of("one", columns), NEXT_NUMBER)
    told = filter_of(definition, is_update=operation == "update")
    if told:
        values.append(f"({' AND '.join(told)}) IS TRUE AS is_told")
        payload = f"CASE WHEN one.is_told THEN {payload} ELSE {NOTHING} END"
    if operation == "update":
        source = f"{OLD_ROWS} AS old, {NEW_ROWS} AS new"
        values += _selected("old", definition.key, key)
        same = _same(columns_of("one", key), columns_of("one", columns[: len(key)]))
        payload = f"CASE WHEN {same} THEN {payload} END"
    # The limit is for the planner: the session keeps what it plans, and of a first statement that
    # has changed millions of rows a plan that costs so much would be compiled, for each one later
    return f"""SELECT {", ".join(values)}
        INTO STRICT one FROM {source} LIMIT 2;
        payload := {payload};"""


def row_of_call(definition: Definition, operation: str, number: str | None) -> str:
    """
    Return the statements that make ``payload`` of the row for which a row-level trigger is called.

    It is null where the key is another one. The number is as of ``payload_of()``.
    """
    alias, other = ("OLD", "NEW") if operation == "delete" else ("NEW", "OLD")
    values = columns_of(alias, definition.columns)
    payload = payload_of(operation, definition.columns, values, number)
    told = filter_of(definition, is_update=operation == "update")
    if told:
        payload = f"CASE WHEN {' AND '.join(told)} THEN {payload} ELSE {NOTHING} END"
    if operation == "update":
        same = _same(columns_of("OLD", definition.key), columns_of("NEW", definition.key))
        payload = f"CASE WHEN {same} THEN {payload} END"
    # Where there is one row only, a condition may call it by both names
    both = f"{other} := {alias};\n        " if definition.when and operation != "update" else ""
    return f"{both}payload := {payload};"


def payload_of(
    operation: str, columns: Sequence[str], values: Sequence[str], number: str | None
) -> str:
    """Return the expression for the payload of a row, given expressions for its values."""
    types = [type_of(value) for value in values]
    if len(types) > MOST_ARGUMENTS - _OTHER_ARGUMENTS:
        types = [f"pg_catalog.btrim({types_of(values)}, '[]')"]
    told = json.dumps(list(columns), ensure_ascii=False, separators=(",", ":")).replace("%", "%%")
    numbers = [] if number is None else [number]
    text = (
        f'{{"op":"{operation}",{"".join(_NUMBER for _ in numbers)}"columns":{told},'
        f'"types":[{",".join("%s" for _ in types)}],"rows":[%s]}}'
    )
    arguments = [literal(text), *numbers, *types, json_array(values)]
    return f"pg_catalog.format({', '.join(arguments)})"


def _numbered(letter: str, columns: Sequence[str]) -> list[str]:
    """Return names for columns, of which none is that of another value."""
    return [f"{letter}{number}" for number, _ in enumerate(columns)]


def _selected(alias: str, columns: Sequence[str], names: Sequence[str]) -> list[str]:
    each = zip(columns_of(alias, columns), names, strict=True)
    return [f"{column} AS {name}" for column, name in each]


def _same(one: Sequence[str], other: Sequence[str]) -> str:
    """Return the condition that values are equal in each byte."""
    return f"{record_of(one)} OPERATOR(pg_catalog.*=) {record_of(other)}"
