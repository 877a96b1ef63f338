"""
The SQL that sends notifications: for a session of our own, and for one behind a pooler.

A pooler may hand each message to another session of the server. A prepared statement belongs to
one session, and the driver prepares it in one message and runs it in another: so in the other
session its name may mean nothing, or a statement of another program. Behind a pooler a
notification is therefore sent as text, in one message.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def only_in_session(pid: int) -> str:
    """Return the condition that a statement runs in the session with this backend pid."""
    return f"WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {pid}"


def notify_as_text(channel: str, payload: str) -> str:
    """
    Return a statement without arguments that sends one notification.

    What it means depends on no setting of the session that runs it, whatever the two texts
    hold: not on ``standard_conforming_strings``, ``client_encoding`` or ``search_path``.
    """
    return f"SELECT pg_catalog.pg_notify({_literal(channel)}, {_literal(payload)})"


def notify_all_as_text(channels: Sequence[str], payloads: Sequence[str]) -> str:
    """Return one that sends these notifications, at least one, in this order; as above."""
    if channels.count(channels[0]) == len(channels):
        channel, rows = _literal(channels[0]), f"{_unnested(payloads)} AS payload"
    else:
        channel = _text("channel")
        rows = f"ROWS FROM ({_unnested(channels)}, {_unnested(payloads)}) AS pair(channel, payload)"
    sent = f"pg_catalog.pg_notify({channel}, {_text('payload')})"
    return f"SELECT pg_catalog.count({sent}) FROM {rows}"  # noqa: S608 - literals of our making


def _literal(text: str) -> str:
    """Return an expression of type text: in plain words where no setting can change them."""
    if text.isascii() and text.isprintable() and "'" not in text and "\\" not in text:
        return f"'{text}'::pg_catalog.text"
    return _text(f"'{text.encode().hex()}'::pg_catalog.text")


def _text(hexadecimal: str) -> str:
    """Return the expression that makes a text of an expression of hexadecimal digits."""
    return f"pg_catalog.convert_from(pg_catalog.decode({hexadecimal}, 'hex'), 'UTF8')"


def _unnested(texts: Iterable[str]) -> str:
    """Return what gives a row for each of the texts, in hexadecimal digits."""
    # One constant for all: pg_stat_statements keeps one entry, and parsing takes half as long
    elements = '","'.join([text.encode().hex() for text in texts])
    return f"pg_catalog.unnest('{{\"{elements}\"}}'::pg_catalog.text[])"
