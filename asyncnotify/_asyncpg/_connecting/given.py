"""What ``connect=`` has returned: the connection itself, or the reason to refuse it."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from typing import Any, Final, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg.untraced import unwrapped
from asyncnotify._errors import ConfigurationError, describe_error
from asyncnotify._logs import Log
from asyncnotify._tasks import CANCEL_GRACE

log = Log("connection")

_SECONDS: Final = 2.0
"""For giving back what was refused: at most this long does a refusal wait."""

_UTF8: Final = {"utf8", "unicode"}


async def checked(given: Any) -> asyncpg.Connection[Any]:
    """
    Return the connection that can listen; a wrapper of a tracing agent's is taken off.

    What is refused is given back: to its pool, or closed.

    Raises:
        ConfigurationError: It is no connection, or one that would never deliver.
    """
    thing = unwrapped(given)
    try:
        connection = _as_connection(thing)
        if not connection.is_closed():
            _refuse_encoding(connection.get_settings().client_encoding)
            _refuse_transaction(connection)
    except ConfigurationError:
        await give_back(thing)
        raise
    return connection


def is_connection(thing: object) -> bool:
    """Return whether it is a connection of asyncpg's, and no pool's."""
    # not isinstance(): asyncpg's metaclass says yes for a pool's proxy as well
    return issubclass(type(thing), asyncpg.Connection)


def _as_connection(thing: Any) -> asyncpg.Connection[Any]:
    if is_connection(thing):
        return cast("asyncpg.Connection[Any]", thing)
    if issubclass(type(thing), PoolConnectionProxy):
        msg = (
            "connect= returned a connection of a pool, which resets it and takes it back: a"
            " listener needs one of its own, as asyncpg.connect() returns it"
        )
        raise ConfigurationError(msg)
    name = type_name(thing)
    msg = f"connect= returned an object of type {name}, not a fresh asyncpg.Connection"
    raise ConfigurationError(msg)


def _refuse_transaction(connection: asyncpg.Connection[Any]) -> None:
    if connection.is_in_transaction():
        msg = "connect= returned a connection in a transaction, where LISTEN has no effect"
        raise ConfigurationError(msg)


def _refuse_encoding(name: str | None) -> None:
    # asyncpg sends the text of a statement as UTF-8 in any case: LISTEN would hear another name
    if name is not None and name.lower().strip("'").replace("-", "") not in _UTF8:
        msg = f"client_encoding must be UTF8, not {name:.40}: channels would get other names"
        raise ConfigurationError(msg)


# -- giving back ----------------------------------------------------------------------------------


async def give_back(thing: Any) -> None:
    """
    Part with what somebody has given us: to its pool, or by closing it. Takes 2 s at most.

    A pool is left alone: others use it. Cancelling it leaves the rest to a task that ends soon.
    """
    thing = unwrapped(thing)
    if is_connection(thing):
        thing.terminate()
        return
    closing = None if isinstance(thing, asyncpg.Pool) else _closing(thing)
    if closing is not None:
        task = asyncio.ensure_future(_finish(closing))
        await asyncio.wait({task}, timeout=_SECONDS + CANCEL_GRACE)


def discard(given: Any) -> asyncio.Task[None] | None:
    """Part with what comes too late, where nobody waits; return the task that does it, if any."""
    thing = unwrapped(given)
    if is_connection(thing):
        thing.terminate()
        return None
    return asyncio.ensure_future(give_back(thing))


def _closing(thing: Any) -> Any:
    """Begin to give it back; return what has to be awaited for that."""
    if issubclass(type(thing), PoolConnectionProxy):
        pool = getattr(getattr(thing, "_holder", None), "_pool", None)
        return thing.terminate() if pool is None else pool.release(thing, timeout=_SECONDS)
    if isinstance(thing, type):
        return None
    for name in ("terminate", "close"):
        method = getattr(thing, name, None)
        if callable(method):
            with suppress(Exception):  # anybody's class
                return method()
    return None


async def _finish(closing: Any) -> None:
    if not inspect.isawaitable(closing):
        return
    try:
        async with asyncio.timeout(_SECONDS):
            await closing
    except Exception as error:  # noqa: BLE001 - anybody's class
        log.debug("what connect= returned was not closed: %s", describe_error(error))
