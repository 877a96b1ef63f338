"""What a table is to tell, checked: the values from which the SQL is made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from asyncnotify import Channel
from asyncnotify._arguments import check_count
from asyncnotify.log import Log
from asyncnotify.triggers._errors import DefinitionError
from asyncnotify.triggers._names import hash_of, identifier, joined, literal, quoted, table_name

Operation: TypeAlias = Literal["insert", "update", "delete", "truncate"]
Level: TypeAlias = Literal["statement", "row"]
To: TypeAlias = Literal["notify", "log"]
Types: TypeAlias = Mapping[str, Callable[[Any], Any]]

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
_TRIGGER_LIMIT: Final = 40
"""Bytes, so that the name of an operation fits behind it."""

_MOST_NOTIFICATIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Definition:
    """
    What a table is to tell; the meaning of each attribute is that of the argument of ``Table``.

    ``log`` is the name of the log, None for NOTIFY.
    """

    schema: str
    table: str
    key: tuple[str, ...]
    watch: tuple[str, ...]
    when: str | None
    channel: str
    payload: tuple[str, ...]
    level: Level
    operations: tuple[Operation, ...]
    max_notifications: int
    log: str | None
    trigger: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of each row that is sent, the key first."""
        return self.key + tuple(name for name in self.payload if name not in self.key)

    @property
    def qualified(self) -> str:
        """The table with its schema, quoted."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"

    @property
    def function(self) -> str:
        """
        The name of the function, without its schema, which is that of the table.

        No other Table has it: ``a_b`` for table ``c`` would make that of ``a`` for ``b_c``.
        """
        if "_" not in self.trigger:
            return joined(self.trigger, self.table)
        return joined(self.trigger, f"{self.table}_{hash_of(self.trigger)}")

    @property
    def qualified_function(self) -> str:
        """The function with its schema, quoted, and its empty list of arguments."""
        return f"{quoted(self.schema)}.{quoted(self.function)}()"

    @property
    def is_filtered(self) -> bool:
        """Whether some updates are not told."""
        return self.when is not None or bool(self.watch)

    @property
    def is_told_by_name(self) -> bool:
        """Whether rows are told by triggers of statements, which have to name the table itself."""
        return self.level == "statement" and self.operations != ("truncate",)

    @property
    def lock_key(self) -> int:
        """The advisory lock that those who install take: 64 bits with a sign."""
        digest = hashlib.sha256(f"asyncnotify.triggers\0{self.qualified}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def literal_channel(self) -> str:
        """Return the name of the channel as a literal in SQL."""
        return literal(self.channel)


def define(  # noqa: PLR0917 - the arguments of Table, one by one
    name: object,
    key: object,
    watch: object,
    when: object,
    channel: object,
    payload: object,
    level: object,
    operations: object,
    max_notifications: object,
    to: object,
    log: object,
    trigger: object,
) -> Definition:
    """
    Check the arguments of a Table.

    Raises:
        ChannelNameError: The server would refuse or cut the name of the channel.
        DefinitionError: An argument has a value that cannot be.
        TypeError: An argument is of the wrong type.
        ValueError: ``max_notifications`` is not a whole number, at least 1.
        LogNameError: No log can have this name.
    """
    schema, table = table_name(name)
    keys = columns_of("key", key)
    if not keys:
        raise DefinitionError("key", "must name at least one column")
    check_count("max_notifications", max_notifications)
    if cast("int", max_notifications) > _MOST_NOTIFICATIONS:
        raise DefinitionError("max_notifications", f"must be at most {_MOST_NOTIFICATIONS:,}")
    log_name = _log_name(one_of("to", to, get_args(To)), log)
    return Definition(
        schema=schema,
        table=table,
        key=keys,
        watch=columns_of("watch", watch),
        when=_condition(when),
        channel=_channel(channel, schema, table),
        payload=columns_of("payload", payload),
        level=cast("Level", one_of("level", level, get_args(Level))),
        operations=_operations(operations),
        max_notifications=cast("int", max_notifications),
        log=log_name,
        trigger=_trigger(trigger, log_name),
    )


def columns_of(argument: str, names: object) -> tuple[str, ...]:
    """
    Return the columns that an argument names: one by a str, several by an iterable of str.

    Raises:
        DefinitionError: A column is named twice, or by what is no identifier.
        TypeError: It is neither, or a set: each process would have the columns in another order.
    """
    if isinstance(names, str):
        names = (names,)
    if isinstance(names, set | frozenset):
        msg = f"{argument} must name columns in an order, as a tuple does, and a set has none"
        raise TypeError(msg)
    if not isinstance(names, Iterable) or isinstance(names, bytes):
        msg = f"{argument} must be a column or several, not of type {type(names).__name__}"
        raise TypeError(msg)
    columns = tuple(identifier(argument, name) for name in cast("Iterable[object]", names))
    if len(set(columns)) < len(columns):
        raise DefinitionError(argument, f"names a column twice: {', '.join(columns)}")
    return columns


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return the value if it is one of those allowed, else raise DefinitionError."""
    if not isinstance(value, str) or value not in allowed:
        wanted = ", ".join(map(repr, allowed))
        raise DefinitionError(argument, f"must be one of {wanted}, not {value!r:.100}")
    return str.__str__(value)


def check_types(types: object, columns: tuple[str, ...]) -> Types:
    """
    Return what makes Python values of columns.

    Raises:
        DefinitionError: A column is none of those that are told.
        TypeError: It is no mapping from columns to what can be called.
    """
    if types is None:
        return {}
    if not isinstance(types, Mapping):
        msg = f"types must map columns to types, not be of type {type(types).__name__}"
        raise TypeError(msg)
    for column, kind in cast("Mapping[object, object]", types).items():
        if column not in columns:
            told = ", ".join(columns)
            raise DefinitionError("types", f"has {column!r:.100}, and what is told is: {told}")
        if not callable(kind):
            msg = f"types: the type of {column!r} must be callable, not {kind!r:.100}"
            raise TypeError(msg)
    return dict(cast("Types", types))


def _operations(operations: object) -> tuple[Operation, ...]:
    if isinstance(operations, str) or not isinstance(operations, Iterable):
        msg = "operations must be several of insert, update, delete and truncate, as a tuple"
        raise TypeError(msg)
    wanted = {one_of("operations", one, OPERATIONS) for one in operations}
    if not wanted:
        raise DefinitionError("operations", "must name at least one operation")
    return tuple(one for one in OPERATIONS if one in wanted)


def _condition(when: object) -> str | None:
    if when is None:
        return None
    if not isinstance(when, str):
        msg = f"when must be a condition in SQL or None, not of type {type(when).__name__}"
        raise TypeError(msg)
    if not when.strip() or "\0" in when:
        raise DefinitionError("when", "must be a condition in SQL, as 'new.total > 0'")
    try:
        when.encode()
    except UnicodeEncodeError:
        raise DefinitionError("when", "has a lone surrogate in it") from None
    return str.__str__(when).strip()


def _channel(channel: object, schema: str, table: str) -> str:
    if channel is None:
        channel = table if schema == "public" else f"{schema}.{table}"
    if isinstance(channel, Channel):
        msg = "channel must be the name of one: Table.changes is the Channel with its coding"
        raise TypeError(msg)
    return Channel(cast("str", channel)).name


def _log_name(to: str, log: object) -> str | None:
    if to == "notify":
        if log is not None:
            raise DefinitionError("log", "needs to='log'")
        return None
    if not isinstance(log, str | Log):
        msg = f"log must be a Log or the name of one, not of type {type(log).__name__}"
        raise TypeError(msg)
    return log.name if isinstance(log, Log) else Log(log).name


def _trigger(trigger: object, log: str | None) -> str:
    if trigger is None:
        return "asyncnotify" if log is None else "asyncnotify_log"
    name = identifier("trigger", trigger)
    if len(name.encode()) > _TRIGGER_LIMIT:
        raise DefinitionError("trigger", f"must have at most {_TRIGGER_LIMIT} bytes")
    return name
