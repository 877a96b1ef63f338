"""Servers that speak the protocol of PostgreSQL, and do not listen: refused, and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import (
    ConfigurationError,
    Listener,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT_LIMIT = scaled(10.0)  # seconds until a fact that must come has come

pytestmark = pytest.mark.needs_server("driver")


class Deaf(asyncpg.Connection):
    """Takes LISTEN for nothing, as some servers do that are not PostgreSQL."""

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Answer LISTEN as if it had been done."""
        query = "SELECT 1" if query.startswith("LISTEN") else query
        return await super().execute(query, *args, **kwargs)


class Refusing(asyncpg.Connection):
    """Does not know LISTEN."""

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Let the server refuse a statement in place of LISTEN."""
        query = "LISSEN" if query.startswith("LISTEN") else query
        return await super().execute(query, *args, **kwargs)


def connecting(dsn: str, kind: type[asyncpg.Connection]) -> Callable[[], Awaitable[Any]]:
    """Return a function that makes such connections."""

    async def connect() -> asyncpg.Connection:
        settings = {"application_name": "asyncnotify"}
        return await asyncpg.connect(dsn, connection_class=kind, server_settings=settings)

    return connect


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Deaf, "accepts LISTEN, but does not"), (Refusing, "does not support LISTEN")],
)
async def test_r54_a_server_that_does_not_listen_is_refused_at_once(
    dsn: str, kind: type[asyncpg.Connection], words: str
) -> None:
    """By start(), where a handler is registered, and by listen(), where none is."""
    registered = Listener(connect=connecting(dsn, kind))
    registered.on("orders")(print)
    with pytest.raises(ConfigurationError, match=words):
        await registered.start()
    async with Listener(connect=connecting(dsn, kind)) as listener:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=words):
                await listener.listen("orders", print)
        assert listener.channels == frozenset()
