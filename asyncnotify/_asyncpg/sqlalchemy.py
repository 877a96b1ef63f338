"""Connecting as an engine of SQLAlchemy does, without taking anything from it or changing it."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._arguments import type_name
from asyncnotify._asyncpg._connecting.dial import check_connect_arguments
from asyncnotify._asyncpg._parameters.dsn import SQLALCHEMY_ONLY
from asyncnotify._asyncpg._parameters.settings import Given
from asyncnotify._asyncpg.failures import Step, step
from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_CREATOR: Final = "async_creator_fn"
"""Where the dialect expects a function of the caller's that makes the connections."""

_DRIVERS: Final = {"connection_class", "record_class", "timeout"}
"""Arguments that an engine may give the driver, and the user of a DSN may not."""


class EngineConnect:
    """
    Says how an ``AsyncEngine`` connects; it is asked for each connection.

    The functions on the engine's ``do_connect`` event are called as the engine calls them, with
    copies of the arguments: what they change, such as a token for a password, counts for this
    connection. The engine itself, its pool and its events are only looked at.

    Raises:
        TypeError: It is no AsyncEngine, or one of another driver.
    """

    def __init__(self, engine: Any) -> None:
        if not _is_async_engine(engine):
            msg = f"an AsyncEngine of SQLAlchemy is needed, not of type {type_name(engine)}"
            raise TypeError(msg)
        dialect = engine.dialect
        if (dialect.name, dialect.driver) != ("postgresql", "asyncpg"):
            msg = f"an engine of postgresql+asyncpg is needed, not {dialect.name}+{dialect.driver}"
            raise TypeError(msg)
        self._engine = engine.sync_engine
        self.target: str = _described(engine.url)

    async def __call__(self) -> Any:
        """Return what the engine would give the driver now; or a connection, if it has made it."""
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - an extra

        # In a greenlet, so that functions on the way may wait for something
        answer = await greenlet_spawn(self._ask)
        if not isinstance(answer, tuple):
            # SQLAlchemy's own class around the driver's connection
            return getattr(answer, "driver_connection", answer)
        positional, named = answer
        creator = named.pop(_CREATOR, None)
        named = {name: value for name, value in named.items() if name not in SQLALCHEMY_ONLY}
        if creator is not None:
            return await creator(*positional, **named)
        with step(Step.ARGUMENTS):
            return _given(positional, named)

    def _ask(self) -> Any:
        """Return the positional and named arguments; or what a function of the caller's made."""
        creator = self._engine.pool._creator  # noqa: SLF001 - the only place where connect_args are
        known = inspect.getclosurevars(creator).nonlocals if inspect.isfunction(creator) else {}
        positional = list(known.get("cargs_tup", known.get("cargs", ())))
        if not {"cparams", "dialect"} <= known.keys():  # a creator of the caller's
            return _created(creator)
        named = dict(known["cparams"])
        if "server_settings" in named:
            named["server_settings"] = dict(named["server_settings"] or {})
        for function in tuple(known["dialect"].dispatch.do_connect):
            made = function(known["dialect"], None, positional, named)
            if made is not None:
                return made
        return positional, named


def _created(creator: Callable[..., Any]) -> Any:
    """Call a creator as SQLAlchemy does: with or without the record of the pool."""
    try:
        inspect.signature(creator).bind()
    except TypeError:
        return creator(None)
    return creator()


def _given(positional: list[Any], named: dict[str, Any]) -> Given:
    dsn = positional[0] if positional else named.pop("dsn", None)
    drivers = {name: named.pop(name) for name in _DRIVERS & named.keys()}
    named.pop("loop", None)
    try:
        check_connect_arguments(dsn, None, named)
    except TypeError as error:
        raise ConfigurationError(str(error)) from error
    return Given(dsn, named, driver=drivers)


def _is_async_engine(engine: object) -> bool:
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(engine, module.AsyncEngine)


def _described(url: Any) -> str:
    """Return ``user@host:port/database``, without a password."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    database = f"/{url.database}" if url.database else ""
    return f"{user}{url.host or 'localhost'}{port}{database}"
