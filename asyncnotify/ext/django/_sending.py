"""Sending by Django's own connection, and so within its transactions."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.utils import DEFAULT_DB_ALIAS

from asyncnotify import Channel
from asyncnotify._channels.arguments import encoded
from asyncnotify.ext.django._settings import check_postgresql
from asyncnotify.log import BlockingLog

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_NOTIFY: Final = "SELECT pg_catalog.pg_notify(%s, %s)"


@overload
def notify(channel: str, payload: str = "", *, using: str | None = None) -> None: ...


@overload
def notify(channel: Channel[T], payload: T, *, using: str | None = None) -> None: ...


def notify(channel: str | Channel[Any], payload: object = "", *, using: str | None = None) -> None:
    """
    Send a notification by Django's connection, as a part of its transaction.

    Inside ``transaction.atomic()`` the notification is delivered when the outermost block commits,
    and never if that, or a savepoint around the call, rolls back. Without a transaction the server
    delivers at once. Equal notifications of one transaction arrive once, unless the Channel is
    ``unique``. In a ``TestCase``, whose transaction is rolled back, nothing is delivered.

    Args:
        channel: A name, or a Channel, which encodes the payload.
        payload: A text of 7,999 bytes at most, or what the Channel encodes.
        using: The alias of the database in whose transaction to send; None: ``default``.

    Raises:
        ChannelNameError: The name is not valid for a channel.
        ChannelDirectionError: The Channel was made without ``encode``.
        PayloadError: The payload cannot be encoded, or contains NUL or a lone surrogate.
        PayloadTooLargeError: The payload is over 7,999 bytes. Nothing has gone to the server, and
            the transaction continues.
        SynchronousOnlyOperation: The call came from a coroutine: use ``anotify()`` there.
        ImproperlyConfigured: The database is not PostgreSQL.
        DatabaseError: What Django raises.
    """
    _send(using, *encoded(channel, payload))


@overload
async def anotify(channel: str, payload: str = "", *, using: str | None = None) -> None: ...


@overload
async def anotify(channel: Channel[T], payload: T, *, using: str | None = None) -> None: ...


async def anotify(
    channel: str | Channel[Any], payload: object = "", *, using: str | None = None
) -> None:
    """
    Do as ``notify()``, from a coroutine: in the thread of Django's connection.

    After a cancelled call nobody knows whether the notification was sent.

    Raises:
        ChannelNameError: The name is not valid for a channel.
        ChannelDirectionError: The Channel was made without ``encode``.
        PayloadError: The payload cannot be encoded, or contains NUL or a lone surrogate.
        PayloadTooLargeError: The payload is over 7,999 bytes.
        ImproperlyConfigured: The database is not PostgreSQL.
        DatabaseError: What Django raises.
    """
    name, text = encoded(channel, payload)
    await sync_to_async(_send)(using, name, text)


@overload
def notify_on_commit(
    channel: str, payload: str = "", *, using: str | None = None, robust: bool = False
) -> None: ...


@overload
def notify_on_commit(
    channel: Channel[T], payload: T, *, using: str | None = None, robust: bool = False
) -> None: ...


def notify_on_commit(
    channel: str | Channel[Any],
    payload: object = "",
    *,
    using: str | None = None,
    robust: bool = False,
) -> None:
    """
    Send a notification after Django's transaction has committed, in a statement of its own.

    As ``transaction.on_commit()`` does: not at all after a rollback, and at once without a
    transaction. If the process ends, or the connection dies, between the commit and the statement,
    nobody is notified: use ``notify()`` where that matters. Each call is a notification. The commit
    itself takes no lock of NOTIFY, for which commits of other sessions may have to wait.

    The payload is encoded, and refused, at the time of the call.

    Args:
        channel: As for ``notify()``.
        payload: As for ``notify()``.
        using: The alias of the database; None: ``default``.
        robust: As for ``transaction.on_commit()``: what sending raises is logged by Django.

    Raises:
        ChannelNameError: The name is not valid for a channel.
        ChannelDirectionError: The Channel was made without ``encode``.
        PayloadError: The payload cannot be encoded, or contains NUL or a lone surrogate.
        PayloadTooLargeError: The payload is over 7,999 bytes.
        TransactionManagementError: Django is in no mode in which it has hooks.
        ImproperlyConfigured: The database is not PostgreSQL.
        DatabaseError: What Django raises, where there is no transaction.
    """
    name, text = encoded(channel, payload)
    send: Callable[[], None] = functools.partial(_send, using, name, text)
    transaction.on_commit(send, using=using, robust=robust)


def append(
    log: str,
    channel: str | Channel[Any],
    payload: object = "",
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    using: str | None = None,
) -> UUID:
    """
    Append an event to a log by Django's connection, as a part of its transaction; return its id.

    Inside ``transaction.atomic()`` the event is there if the outermost block commits, and not if
    that, or a savepoint around the call, rolls back. Needs psycopg 3.

    Args:
        log: The name of the log.
        channel: A name, or a Channel, which encodes the payload.
        payload: A text of any size, or what the Channel encodes.
        key: What the event is about.
        headers: Texts by name.
        using: The alias of the database in whose transaction to append; None: ``default``.

    Raises:
        LogNameError: No log can have this name.
        ChannelNameError: No channel can have this name.
        ChannelDirectionError: The Channel was made without ``encode``.
        PayloadError: The payload cannot be encoded, or contains NUL or a lone surrogate.
        TypeError: Django's connection is not one of psycopg 3.
        SynchronousOnlyOperation: The call came from a coroutine: use ``sync_to_async``, or
            ``get_log()``, which has a connection of its own.
        ImproperlyConfigured: The database is not PostgreSQL.
        DatabaseError: What Django raises, as where the log has not been installed.
    """
    connection = _wanted(using)
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        return _log_of(log).append(
            channel, payload, key=key, headers=headers, connection=connection.connection
        )


@functools.lru_cache(maxsize=64)
def _log_of(name: str) -> BlockingLog:
    return BlockingLog(name)  # which never connects: others' connections are given to it


def _send(using: str | None, name: str, text: str) -> None:
    with _wanted(using).cursor() as cursor:
        cursor.execute(_NOTIFY, [_uncoded(cursor.cursor, each) for each in (name, text)])


def _wanted(using: str | None) -> Any:  # noqa: ANN401 - of Django, which has no types
    """Return Django's connection of an alias."""
    alias = using or DEFAULT_DB_ALIAS
    connection = connections[alias]
    check_postgresql(alias, connection)
    return connection


def _uncoded(cursor: Any, text: str) -> Any:  # noqa: ANN401 - of either driver
    """Return a text as what this cursor sends unchanged, whatever adapters others have set."""
    if hasattr(cursor, "adapters"):
        cursor.adapters.register_dumper(str, sys.modules["psycopg"].types.string.StrDumper)
        return text
    return sys.modules["psycopg2"].extensions.QuotedString(text)
