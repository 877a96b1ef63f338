"""Connecting as an engine of SQLAlchemy does, without taking anything from its pool."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._asyncpg.connection import HookedConnection, hook_is_intact
from asyncnotify._asyncpg.dial import connect_asyncpg
from asyncnotify._dsn import SQLALCHEMY_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

_CREATOR: Final = "async_creator_fn"
"""Where the dialect expects a function of the caller's that makes the connections."""


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
        dialect = getattr(engine, "dialect", None)
        if not hasattr(engine, "sync_engine") or dialect is None:
            msg = f"an AsyncEngine of SQLAlchemy is needed, not a {type(engine).__name__}"
            raise TypeError(msg)
        if (dialect.name, dialect.driver) != ("postgresql", "asyncpg"):
            msg = f"an engine of postgresql+asyncpg is needed, not {dialect.name}+{dialect.driver}"
            raise TypeError(msg)
        self._engine = engine.sync_engine
        self.target: str = _described(engine.url)

    async def __call__(self) -> asyncpg.Connection[Any]:
        """Return a fresh connection."""
        arguments = self._arguments()
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

    def _arguments(self) -> _Arguments:
        """Let a copy of the engine's pool, which nobody else has, come as far as connecting."""
        from sqlalchemy import event  # noqa: PLC0415 - an extra

        ours = threading.get_ident()

        def stop(_dialect: Any, _record: Any, positional: list[Any], named: dict[str, Any]) -> None:
            if threading.get_ident() == ours:
                raise _Arguments(positional, named)

        event.listen(self._engine, "do_connect", stop)
        try:
            self._engine.pool.recreate().connect()
        except _Arguments as arguments:
            return arguments
        finally:
            event.remove(self._engine, "do_connect", stop)
        msg = "the engine's do_connect event makes connections itself: give them by connect="
        raise TypeError(msg)


def _described(url: Any) -> str:
    """Return ``user@host:port/database``, without a password."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    database = f"/{url.database}" if url.database else ""
    return f"{user}{url.host or 'localhost'}{port}{database}"
