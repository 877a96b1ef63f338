"""What each kind of server refuses: with errors of PostgreSQL's, on connections that stay."""

from __future__ import annotations

import functools
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from asyncnotify.testing.fake import FakeServer

    Connection = asyncpg.Connection[asyncpg.Record]

BAD: Final = "bad "
"""What is refused begins with it; the SQLSTATE of the error follows."""

FAILING_NOTIFY: Final = """
    ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO real_notify;
    CREATE FUNCTION pg_catalog.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        IF $2 LIKE 'bad %' THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = substr($2, 5);
        END IF;
        PERFORM pg_catalog.real_notify($1, $2);
    END $$;
"""
WORKING_NOTIFY: Final = """
    DROP FUNCTION pg_catalog.pg_notify(text, text);
    ALTER FUNCTION pg_catalog.real_notify(text, text) RENAME TO pg_notify;
"""


@asynccontextmanager
async def bad_refused(connection: Connection) -> AsyncGenerator[None]:
    """Let the server refuse payloads ``bad SQLSTATE``, with that error."""
    await connection.execute(FAILING_NOTIFY)
    try:
        yield
    finally:
        await connection.execute(WORKING_NOTIFY)


@asynccontextmanager
async def bad_refused_by_fake(fake: FakeServer) -> AsyncGenerator[None]:
    """Let the server in memory do it."""
    fake.refuse_notifications(_error_for)
    yield
    fake.refuse_notifications(None)


def _denied(_channel: str, _payload: str) -> asyncpg.PostgresError:
    message = "permission denied for function pg_notify"
    return asyncpg.InsufficientPrivilegeError(message)


def _error_for(_channel: str, payload: str) -> asyncpg.PostgresError | None:
    if not payload.startswith(BAD):
        return None
    fields = {"C": payload.removeprefix(BAD), "M": "refused"}
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(fields)
    return error


class Guest(NamedTuple):
    """
    A client that may not call ``pg_notify()``.

    Attributes:
        arguments: By which a Notifier connects as this client.
        be_allowed: Gives it the right.
    """

    arguments: dict[str, Any]
    be_allowed: Callable[[], Awaitable[object]]


@asynccontextmanager
async def guest_role(dsn: str, connection: Connection) -> AsyncGenerator[Guest]:
    """Have a role that lacks the privilege."""
    name = f"guest_{uuid.uuid4().hex}"
    function = "FUNCTION pg_catalog.pg_notify(text, text)"
    await connection.execute(f"CREATE ROLE {name}; REVOKE EXECUTE ON {function} FROM PUBLIC")
    allow = functools.partial(connection.execute, f"GRANT EXECUTE ON {function} TO {name}")
    try:
        yield Guest({"connect": functools.partial(_connect_as, dsn, name)}, allow)
    finally:
        await connection.execute(
            f"GRANT EXECUTE ON {function} TO PUBLIC; DROP OWNED BY {name}; DROP ROLE {name}"
        )


async def _connect_as(dsn: str, role: str) -> asyncpg.Connection[Any]:
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})
    await connection.execute(f"SET ROLE {role}")
    return connection


@asynccontextmanager
async def guest_of_fake(fake: FakeServer) -> AsyncGenerator[Guest]:
    """Have every client be refused, as there are no roles."""

    async def allow() -> None:
        fake.refuse_notifications(None)

    fake.refuse_notifications(_denied)
    yield Guest({"dsn": fake.dsn}, allow)
    await allow()
