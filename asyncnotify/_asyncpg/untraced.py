"""
Calls of the driver that tracing agents do not note.

Agents replace methods of asyncpg's classes, or put its objects into proxies, and note each
statement. Those that keep a session alive belong to no request; nor do those that send a batch,
which belong to several. The functions here call what no agent replaces: the methods of the compiled
class on which the class of the driver's protocol is based.

Where a version of the driver does not have them, or the caller has a class of connections with
methods of its own, the public methods are called.

What is sent and fetched here is coded as the driver does by itself, whatever codecs the caller has
set for a type on the connection, or class for records: the driver reads its own catalogs so.
"""

from __future__ import annotations

import functools
import inspect
import sys
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg import protocol as _protocols
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import Transaction

from asyncnotify._asyncpg.failures import mark_unsent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_DEPTH: Final = 10
"""Wrappers around an object that are looked through."""

_SUPPRESSED: Final = "suppress_instrumentation"
"""What OpenTelemetry's agents look for in a context: there they note nothing."""

_REPLACEABLE: Final = frozenset({"execute", "fetch", "prepare", "add_listener"})
"""Methods of a connection that a class of the caller's may have for itself."""

_UNCUSTOMISED: Final[dict[str, Any]] = {
    "ignore_custom_codec": True,
    "record_class": asyncpg.Record,
}
"""Arguments by which the driver codes as it does by itself."""

_PARAMETERS: Final = {
    "query": ["self", "query", "timeout"],
    "bind_execute": [
        *("self", "state", "args", "portal_name"),
        *("limit", "return_extra", "timeout"),
    ],
}
"""Of the methods of the compiled class. asyncpg 0.29 has the same, but does not tell them."""


def unwrapped(thing: Any) -> Any:
    """Return what a wrapper, such as a proxy of wrapt, stands for."""
    for _ in range(_DEPTH):
        # Not with hasattr(): a mock has every attribute
        if not any("__wrapped__" in vars(kind) for kind in type(thing).__mro__):
            break
        thing = thing.__wrapped__
    return thing


def compiled_protocol() -> Any:
    """Return the compiled class of the driver's protocol; None if it is not as it was."""
    base = getattr(getattr(_protocols, "protocol", None), "BaseProtocol", None)
    methods = {name: getattr(base, name, None) for name in _PARAMETERS}
    is_known = all(map(callable, methods.values())) and all(
        _parameters_of(method) in (None, _PARAMETERS[name]) for name, method in methods.items()
    )
    return base if is_known else None


def _parameters_of(function: Any) -> list[str] | None:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return None


_COMPILED: Final[Any] = compiled_protocol()


def _is_customised(kind: type) -> bool:
    """Return whether a class of connections has methods of its own in place of the driver's."""
    for base in kind.__mro__:
        if base is asyncpg.Connection:
            return False
        if not _REPLACEABLE.isdisjoint(vars(base)):
            return True
    return False


def _without_proxies(connection: Any) -> Any:
    connection = unwrapped(connection)
    return getattr(connection, "_con", connection)  # of a pool's proxy


def _protocol_of(connection: Any) -> Any:
    """Return the protocol without its proxy; None where the public methods are to be called."""
    connection = _without_proxies(connection)
    protocol = unwrapped(getattr(connection, "_protocol", None))
    is_known = _COMPILED is not None and issubclass(type(protocol), _COMPILED)
    # The caller has added a logger of queries, to see them
    is_watched = getattr(connection, "_query_loggers", None) or _is_customised(type(connection))
    return protocol if is_known and not is_watched else None


def context() -> Context:
    """Return a copy of the current context, for what a pool does on our behalf."""
    copied = copy_context()
    opentelemetry = sys.modules.get("opentelemetry.context")
    if opentelemetry is not None:
        copied.run(lambda: opentelemetry.attach(opentelemetry.set_value(_SUPPRESSED, value=True)))
    return copied


async def connect(**arguments: Any) -> asyncpg.Connection[Any]:
    """Return what ``asyncpg.connect()`` returns."""
    connection: asyncpg.Connection[Any] = await unwrapped(asyncpg.connect)(**arguments)
    return connection


def execute(connection: Any, query: str) -> Awaitable[Any]:
    """Execute a query without arguments; return its status, as ``Connection.execute()`` does."""
    protocol = _protocol_of(connection)
    executing: Awaitable[Any] = (
        connection.execute(query) if protocol is None else _COMPILED.query(protocol, query, None)
    )
    return executing


class _Quiet:
    """A connection that executes without a trace, and is in all else the one that it stands for."""

    __slots__ = ("_executes", "_of")

    def __init__(self, connection: Any) -> None:
        object.__setattr__(self, "_of", connection)
        object.__setattr__(self, "_executes", functools.partial(execute, connection))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._of, name, value)

    def execute(self, query: str) -> Awaitable[Any]:
        """Execute a query without arguments."""
        executing: Awaitable[Any] = self._executes(query)
        return executing


def transaction(connection: Any, isolation: Any = None) -> Transaction:
    """Return a transaction of which the driver knows, as ``Connection.transaction()`` does."""
    if _protocol_of(connection) is None:
        public: Transaction = connection.transaction(isolation=isolation)
        return public
    quiet: Any = _Quiet(_without_proxies(connection))
    readonly, deferrable = False, False
    return Transaction(quiet, isolation, readonly, deferrable)


async def prepare(connection: Any, query: str, name: str) -> Callable[..., Awaitable[list[Any]]]:
    """Prepare a statement by this name; return what fetches its rows, given its arguments."""
    protocol = _protocol_of(connection)
    # Agents replace prepare(), which only calls this, and lets codecs of the caller's be used
    below = getattr(connection, "_get_statement", None)
    if below is None or getattr(_without_proxies(connection), "_protocol", None) is None:
        fetch: Callable[..., Awaitable[list[Any]]]
        fetch = (await connection.prepare(query, name=name)).fetch
        return fetch
    state = await below(query, None, named=name, use_cache=False, **_UNCUSTOMISED)
    statement = PreparedStatement(_without_proxies(connection), query, state)
    if protocol is None:
        return statement.fetch
    return functools.partial(_fetch, statement, state, protocol)


async def fetch(connection: Any, query: str, *arguments: object) -> Sequence[Any]:
    """
    Return the rows of a query, prepared once for each connection, as ``Connection.fetch()`` does.

    An error that is raised before the server has had the query is marked as unsent.
    """
    protocol = _protocol_of(connection)
    below = getattr(connection, "_execute" if protocol is None else "_do_execute", None)
    rows: Sequence[Any]
    if below is None:
        rows = await connection.fetch(query, *arguments)
        return rows
    if protocol is None:
        limit, timeout = 0, None
        rows = await below(query, arguments, limit, timeout, **_UNCUSTOMISED)
        return rows
    is_sent = False

    def execute(state: Any, timeout: float | None) -> Awaitable[Any]:
        nonlocal is_sent
        is_sent = True
        return _bind_execute(protocol, state, arguments, timeout)

    try:
        rows, _ = await below(query, execute, None, **_UNCUSTOMISED)
    except Exception as error:
        if not is_sent:
            mark_unsent(error)
        raise
    return rows


def _fetch(_statement: object, state: Any, protocol: Any, *arguments: object) -> Awaitable[Any]:
    """Fetch the rows of a statement, which would be closed if it were collected."""
    return _bind_execute(protocol, state, arguments, None)


def _bind_execute(
    protocol: Any, state: Any, arguments: tuple[object, ...], timeout: float | None
) -> Awaitable[Any]:
    portal, limit, more_than_rows = "", 0, False
    fetching: Awaitable[Any] = _COMPILED.bind_execute(
        protocol, state, arguments, portal, limit, more_than_rows, timeout
    )
    return fetching
