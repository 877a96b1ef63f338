"""Connecting as an engine of SQLAlchemy does, without taking anything from its pool."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg.connection import HookedConnection, hook_is_intact
from asyncnotify._asyncpg.dial import connect_asyncpg
from asyncnotify._asyncpg.dsn import SQLALCHEMY_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

_CREATOR: Final = "async_creator_fn"
"""Where the dialect expects a function of the caller's that makes the connections."""


_asking: ContextVar[object] = ContextVar("asking")
"""Who asks an engine how it connects, in this task: others may connect in the meantime."""


class _Arguments(Exception):  # noqa: N818 - carries what was asked for; nobody sees it
    """What the engine would have given the driver."""

    def __init__(self, positional: list[Any], named: Mapping[str, Any]) -> None:
        super().__init__()
        self.positional = tuple(positional)
        self.named = dict(named)


class EngineConnect:
    """
    Makes connections with the URL and the connect arguments of an ``AsyncEngine``.

    Each time they are asked for anew, by the engine's ``do_connect`` event, so that what other
    functions on that event change, such as a token for a password, counts here as well.

    Raises:
        TypeError: It is no AsyncEngine, or one of another driver.
    """

    def __init__(self, engine: Any) -> None:
        if not _is_async_engine(engine):
            msg = f"an AsyncEngine of SQLAlchemy is needed, not a {type(engine).__name__}"
            raise TypeError(msg)
        dialect = engine.dialect
        if (dialect.name, dialect.driver) != ("postgresql", "asyncpg"):
            msg = f"an engine of postgresql+asyncpg is needed, not {dialect.name}+{dialect.driver}"
            raise TypeError(msg)
        self._engine = engine.sync_engine
        self.target: str = _described(engine.url)

    async def __call__(self) -> asyncpg.Connection[Any]:
        """Return a fresh connection."""
        arguments = await self._arguments()
        if not isinstance(arguments, _Arguments):
            return arguments
        creator = arguments.named.pop(_CREATOR, None)
        named = {n: value for n, value in arguments.named.items() if n not in SQLALCHEMY_ONLY}
        if creator is not None:
            connection: asyncpg.Connection[Any] = await creator(*arguments.positional, **named)
            return connection
        settings = {"application_name": "asyncnotify", **(named.get("server_settings") or {})}
        if hook_is_intact():
            named.setdefault("connection_class", HookedConnection)
        if not isinstance(named.get("host"), str | None):
            named.setdefault("target_session_attrs", "primary")
        return await connect_asyncpg({**named, "server_settings": settings})

    async def _arguments(self) -> _Arguments | asyncpg.Connection[Any]:
        """
        Let a copy of the engine's pool, which nobody else has, come as far as connecting.

        Functions of the caller's may wait for something on the way, as SQLAlchemy lets them;
        those that make the connection themselves have made ours.
        """
        from sqlalchemy import event  # noqa: PLC0415 - an extra
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - an extra

        mark = object()

        def stop(_dialect: Any, _record: Any, positional: list[Any], named: dict[str, Any]) -> None:
            if _asking.get(None) is mark:
                raise _Arguments(positional, named)

        token = _asking.set(mark)
        event.listen(self._engine, "do_connect", stop)
        try:
            lent = await greenlet_spawn(self._engine.pool.recreate().connect)
        except _Arguments as arguments:
            return arguments
        finally:
            event.remove(self._engine, "do_connect", stop)
            _asking.reset(token)
        connection: asyncpg.Connection[Any] = lent.driver_connection
        lent.detach()
        return connection


def _is_async_engine(engine: object) -> bool:
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(engine, module.AsyncEngine)


def _described(url: Any) -> str:
    """Return ``user@host:port/database``, without a password."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    database = f"/{url.database}" if url.database else ""
    return f"{user}{url.host or 'localhost'}{port}{database}"
