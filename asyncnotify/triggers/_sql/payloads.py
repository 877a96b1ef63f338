"""PL/pgSQL that makes payloads of rows, with sizes in bytes of the server's encoding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncnotify.triggers._definition import Definition

PAYLOAD_LIMIT: Final = 7_999
"""Bytes: NOTIFY_PAYLOAD_MAX_LENGTH - 1 in the server's async.c."""

NEXT_NUMBER: Final = """pg_catalog.set_config('asyncnotify.change', (COALESCE(NULLIF(
        pg_catalog.current_setting('asyncnotify.change', true), ''), '0')::pg_catalog.int8 + 1
        )::pg_catalog.text, true)"""
"""Numbers the statements of a transaction: of equal payloads in one, the server sends the first.
The expression is a text."""

NUMBER: Final = f"""
    number := {NEXT_NUMBER}::pg_catalog.int8;"""


def head(operation: str, columns: Iterable[str], types: str, number: str | None = "number") -> str:
    """Return the expression for what a payload begins with: SQL expressions for its parts."""
    names = json.dumps(list(columns), ensure_ascii=False, separators=(",", ":"))
    columns_part = f',"columns":{names},"types":'
    if number is None:
        middle = literal('"' + columns_part)
    else:
        middle = f"""'","n":' || {number}\n            || {literal(columns_part)}"""
    return f"""'{{"op":"' || {operation} || {middle} || {types} || ',"rows":['"""


def notified(definition: Definition, payload: str) -> str:
    """Return the expression that sends a payload, an SQL expression, and is not null."""
    return (
        f"pg_catalog.pg_notify({definition.literal_channel()}::pg_catalog.text,"
        f" ({payload})::pg_catalog.text)"
    )


def send(definition: Definition, payload: str) -> str:
    """Return the statement that sends a payload: an SQL expression."""
    # A condition is computed at once; PERFORM starts a query, which takes 0.8 µs more
    return f"IF {notified(definition, payload)} IS NULL THEN NULL; END IF;"


def send_reread(definition: Definition, count: str) -> str:
    """Return the statement that says "read again": how many rows, as an SQL expression."""
    payload = (
        f"""'{{"op":"' || pg_catalog.lower(TG_OP) || '","n":' || number"""
        f""" || ',"reread":' || COALESCE(({count})::pg_catalog.text, 'null') || '}}'"""
    )
    return send(definition, payload)


MAY_BE_UNREADABLE: Final = r"""pg_catalog.getdatabaseencoding() <> 'UTF8'
        OR pg_catalog.octet_length((E'\\200'::pg_catalog."char")::pg_catalog.text) = 1"""
"""A database of the encoding SQL_ASCII holds any bytes, and those of other encodings some that
stand for no character. What is no UTF-8 would end the connection of everyone who listens. Up to
PostgreSQL 14 the type "char" writes a byte that is none; since 15 it has a text of four characters
for it. The server computes that condition once, when it plans."""


def check_readable(payloads: str) -> str:
    """Return the statement that fails where those who listen could not read: an SQL expression."""
    return f"""
    IF {MAY_BE_UNREADABLE}
    THEN{check_encoding(f"pg_catalog.array_to_string({payloads}, '')")}
    END IF;"""


def check_encoding(text: str) -> str:
    """Return the statement that fails where no listener could read a text: an SQL expression."""
    return f"""
        IF pg_catalog.getdatabaseencoding() = 'SQL_ASCII' THEN
            PERFORM pg_catalog.length(pg_catalog.convert_to({text}, 'SQL_ASCII'), 'UTF8');
        ELSIF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
            PERFORM pg_catalog.convert_to({text}, 'UTF8');
        ELSE
            PERFORM pg_catalog.length(pg_catalog.convert_to({text}, 'UTF8'), 'UTF8');
        END IF;"""


def find_unreadable(payloads: str, variable: str) -> str:
    """Return the statement that sets a variable to true where nobody could read: an expression."""
    return f"""
    IF {MAY_BE_UNREADABLE}
    THEN
        BEGIN{check_encoding(f"pg_catalog.array_to_string({payloads}, '')")}
        EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
            {variable} := true;
        END;
    END IF;"""


def on_failure(definition: Definition) -> str:
    """
    Return how a block ends that makes payloads, whatever goes wrong in it.

    What a statement changes matters more than what is told of it: the statement goes on, and those
    who listen are told to read. Nothing is sent within the block: in a subtransaction that takes
    twice as long. A number that is used nowhere else does where the session has none: because its
    role may not call set_config(), or has set what is no number.
    """
    where = literal(
        f"asyncnotify: no change of {definition.qualified} by this statement can be told, so that"
        " listeners are told to read it again: "
    )
    number = NUMBER.replace("\n", "\n        ")
    return f"""
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        RAISE WARNING USING MESSAGE = {where} || SQLERRM, ERRCODE = SQLSTATE;
        BEGIN{number}
        EXCEPTION WHEN OTHERS THEN
            number := 1000000 * pg_catalog.date_part('epoch', pg_catalog.clock_timestamp());
        END;
        must_read := true;
        total := NULL;
    END;"""
