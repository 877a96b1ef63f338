"""
The SQL that sends notifications: for a session of our own, and for one behind a pooler.

A pooler may hand each message to another session of the server. A prepared statement belongs to
one session, and the driver prepares it in one message and runs it in another: so in the other
session its name may mean nothing, or a statement of another program. Behind a pooler a
notification is therefore sent as text, in one message.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import asyncpg

HERE: Final = "/*NO LOAD BALANCE*/ "
"""Keeps Pgpool-II from asking another server than the one on which the session listens."""

OWN_DEFAULTS: Final = {
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
"""
What our sessions need, whatever the defaults of the role and the database are.

A transaction that is serializable, read-only and deferrable waits until no other serializable one
runs. A session for which that is the default answers no question until then, and delivers no
notification: for that it begins a transaction too.
"""

_SLACK: Final = 0.5
"""Seconds by which a backend may seem older than the connection to it."""

_BACKEND_START: Final = (
    "(SELECT backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()))"
)

NO_WAITING: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
"""In front of a statement, in one message with it. SET itself does not wait."""

NOTIFY: Final = "SELECT pg_catalog.pg_notify($1, $2)"

NOTIFY_ALL: Final = """
    SELECT pg_catalog.count(pg_catalog.pg_notify(channel, payload)) FROM ROWS FROM (
        pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])
    ) AS pair(channel, payload)
"""

NOTIFY_ALL_ON_ONE: Final = """
    SELECT pg_catalog.count(pg_catalog.pg_notify($1, payload))
    FROM pg_catalog.unnest($2::pg_catalog.text[]) AS payload
"""
# Both count, so that the server does not answer with a row for each


def unused_name() -> str:
    """Return a name for a prepared statement that no other program gives one of its own."""
    return f"asyncnotify_{secrets.token_hex(8)}"


def only_in_session(pid: int, age: float | None = None) -> str:
    """Return the condition that a backend has this pid, and lives for so many seconds at most."""
    condition = f"WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {pid}"
    if age is None:
        return condition
    # By the server's clock alone; that may be set by a little meanwhile, and ours run faster
    begun = f"(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) interval '{age + _SLACK:.3f} s')"
    return f"{condition} AND {_BACKEND_START} OPERATOR(pg_catalog.>=) {begun}"


def setting(changes: Mapping[str, str]) -> str:
    """Return the expressions that set these settings for the session; empty for none."""
    return ", ".join(
        f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in changes.items()
    )


def may_wait(connection: asyncpg.Connection[Any]) -> bool:
    """Return whether transactions may wait by default, for all that the server has reported."""
    # Reported from 14 on; only transactions that are read-only wait
    reported = getattr(connection.get_settings(), "default_transaction_read_only", None)
    return reported != "off"


def before_statements(connection: asyncpg.Connection[Any]) -> str:
    """Return what has to stand in front of statements where OWN_DEFAULTS are not in effect."""
    return NO_WAITING if may_wait(connection) else ""


def notify_as_text(channel: str, payload: str) -> str:
    """
    Return a statement without arguments that sends one notification.

    What it means depends on no setting of the session that runs it, whatever the two texts
    hold: not on ``standard_conforming_strings``, ``client_encoding`` or ``search_path``.
    """
    return f"SELECT pg_catalog.pg_notify({literal(channel)}, {literal(payload)})"


def notify_all_as_text(channels: Sequence[str], payloads: Sequence[str]) -> str:
    """Return one that sends these notifications, at least one, in this order; as above."""
    if channels.count(channels[0]) == len(channels):
        channel, rows = literal(channels[0]), f"{unnested(payloads)} AS payload"
    else:
        channel = _text("channel")
        rows = f"ROWS FROM ({unnested(channels)}, {unnested(payloads)}) AS pair(channel, payload)"
    sent = f"pg_catalog.pg_notify({channel}, {_text('payload')})"
    return f"SELECT pg_catalog.count({sent}) FROM {rows}"  # noqa: S608 - literals of our making


def literal(text: str) -> str:
    """Return an expression of type text: in plain words where no setting can change them."""
    if text.isascii() and text.isprintable() and "'" not in text and "\\" not in text:
        return f"'{text}'::pg_catalog.text"
    return _text(f"'{text.encode().hex()}'::pg_catalog.text")


def _text(hexadecimal: str) -> str:
    """Return the expression that makes a text of an expression of hexadecimal digits."""
    return f"pg_catalog.convert_from(pg_catalog.decode({hexadecimal}, 'hex'), 'UTF8')"


def unnested(texts: Iterable[str | None]) -> str:
    """Return what gives a row for each of the texts, in hexadecimal digits, or NULL for None."""
    # One constant for all: pg_stat_statements keeps one entry, and parsing takes half as long
    elements = ",".join(["NULL" if text is None else f'"{text.encode().hex()}"' for text in texts])
    return f"pg_catalog.unnest('{{{elements}}}'::pg_catalog.text[])"


def array_of(texts: Iterable[str | None]) -> str:
    """Return an expression for an array of texts, some of which may be None."""
    return f"ARRAY(SELECT {_text('element')} FROM {unnested(texts)} AS element)"  # noqa: S608 - literals of our making
