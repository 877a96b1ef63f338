"""A plain connection, by the same DSN and the same rules as a listener's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from asyncnotify import AsyncNotifyError
from asyncnotify._asyncpg._connecting.dial import Dialer
from asyncnotify._asyncpg.failures import is_permanent
from asyncnotify._errors import cannot_connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import asyncpg

__all__ = ["connected"]

_CONNECT_TIMEOUT: Final = 10.0
_COMMAND_TIMEOUT: Final = 60.0
_CLOSE_TIMEOUT: Final = 5.0


@contextlib.asynccontextmanager
async def connected(dsn: str | None) -> AsyncGenerator[asyncpg.Connection[Any]]:
    """
    Connect for the length of a block.

    Raises:
        ConnectError: There is no connection.
    """
    arguments = {
        "command_timeout": _COMMAND_TIMEOUT,
        "server_settings": {"application_name": "asyncnotify"},
    }
    dialer = Dialer(dsn, None, arguments, timeout=_CONNECT_TIMEOUT)
    try:
        connection = await dialer.dial()
    except AsyncNotifyError:
        raise
    except Exception as error:
        raise cannot_connect(dialer.target, error, is_permanent=is_permanent(error)) from error
    try:
        yield connection
    except BaseException:
        connection.terminate()
        raise
    await connection.close(timeout=_CLOSE_TIMEOUT)
