from __future__ import annotations

import ssl

import asyncpg
import pytest

from asyncnotify._asyncpg.failures import (
    escape_texts,
    is_loss,
    is_permanent,
    is_unsent,
    mark_unsent,
    naming_tls,
    needs_repair,
)


@pytest.mark.parametrize(
    ("text", "permanent"),
    [
        ("no such user: joe", True),
        ("no such database: app", True),
        ("unsupported startup parameter: tcp_keepalives_idle", True),
        ("SASL authentication failed", True),
        ('database "app" does not exist', True),
        ("server conn crashed?", False),
        ("query_wait_timeout", False),
    ],
)
def test_r12_what_pgbouncer_refuses_is_told_from_what_passes(text: str, *, permanent: bool) -> None:
    """It gives 08P01 for everything; its words alone say whether trying again may help."""
    error = asyncpg.ProtocolViolationError(text)
    assert is_permanent(error) is permanent
    assert needs_repair(error) is permanent


@pytest.mark.parametrize(
    ("error", "permanent", "repair"),
    [
        (asyncpg.InvalidPasswordError(""), True, True),
        (asyncpg.ObjectNotInPrerequisiteStateError(""), False, True),
        (asyncpg.CannotConnectNowError(""), False, False),
        (ConnectionRefusedError(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_some_of_what_may_pass_needs_repair_all_the_same(
    error: Exception, *, permanent: bool, repair: bool
) -> None:
    """A database that allows no connections is tried again at the start, but slowly."""
    assert (is_permanent(error), needs_repair(error)) == (permanent, repair)


# -- the texts of the server ----------------------------------------------------------------------


def test_what_the_server_says_is_escaped_in_the_error_and_its_causes() -> None:
    """In the message and in all further parts; what is not the driver's stays as it is."""
    cause = asyncpg.AdminShutdownError("gone\x1b[2J")
    cause.detail = "detail\u2028"
    error = asyncpg.ConnectionDoesNotExistError("lost\r")
    error.hint = "hint\nforged"
    error.__cause__ = cause
    cause.__cause__ = own = OSError("own\r")
    escape_texts(error)
    assert str(error) == "lost\\r\nHINT:  hint\\nforged"
    assert str(cause) == "gone\\x1b[2J\nDETAIL:  detail\\u2028"
    assert str(own) == "own\r"


def test_a_chain_without_an_end_is_no_trap() -> None:
    """Errors may refer to each other."""
    one, two = asyncpg.InterfaceError("one\r"), asyncpg.InternalClientError("two\r")
    one.__cause__, two.__cause__ = two, one
    escape_texts(one)
    assert (str(one), str(two)) == ("one\\r", "two\\r")


def tls_error(reason: str) -> ssl.SSLError:
    """Return an error of TLS, as OpenSSL gives its reason."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "permanent"),
    [
        ("CERTIFICATE_VERIFY_FAILED", True),
        ("TLSV1_ALERT_UNKNOWN_CA", True),
        ("SSLV3_ALERT_BAD_CERTIFICATE", True),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", True),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", True),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", True),
        ("TLSV1_ALERT_PROTOCOL_VERSION", True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", True),
        ("UNEXPECTED_EOF_WHILE_READING", False),
        ("TLSV1_ALERT_INTERNAL_ERROR", False),
        ("APPLICATION_DATA_AFTER_CLOSE_NOTIFY", False),
    ],
)
def test_what_one_side_of_tls_does_not_accept_is_told_from_what_passes(
    reason: str, *, permanent: bool
) -> None:
    """A certificate, its authority or a version does not change by trying again."""
    assert is_permanent(tls_error(reason)) is permanent


def test_an_error_of_tls_is_found_behind_the_end_of_the_connection() -> None:
    """It is the reason; an end without one stays what it is."""
    ended = asyncpg.ConnectionDoesNotExistError("closed")
    with pytest.raises(asyncpg.ConnectionDoesNotExistError), naming_tls():
        raise ended
    reason = tls_error("TLSV1_ALERT_UNKNOWN_CA")
    with pytest.raises(ssl.SSLError) as caught, naming_tls():
        raise ended from reason
    assert caught.value is reason


def caused_by(cause: Exception) -> Exception:
    """Return the error of a connection that ended while a statement was on its way."""
    error = asyncpg.ConnectionDoesNotExistError("closed in the middle of operation")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "unsent"),
    [
        (asyncpg.InterfaceError("connection is closed"), True),
        (caused_by(asyncpg.IdleSessionTimeoutError("idle-session timeout")), True),
        (asyncpg.IdleSessionTimeoutError("idle-session timeout"), True),
        (caused_by(asyncpg.ProtocolViolationError("client_idle_timeout")), True),
        (asyncpg.InternalClientError("cannot switch to state 12; another operation"), True),
        (asyncpg.InternalClientError("unexpected data"), False),
        (asyncpg.DataError("a wrong argument"), False),
        (caused_by(asyncpg.AdminShutdownError("by administrator command")), False),
        (caused_by(asyncpg.ProtocolViolationError("query_timeout")), False),
        (caused_by(ConnectionResetError()), False),
        (asyncpg.ConnectionDoesNotExistError("closed"), False),
        (TimeoutError(), False),
        (asyncpg.ProgramLimitExceededError("the queue is full"), False),
    ],
    ids=repr,
)
def test_what_the_server_has_not_had_is_known(error: Exception, *, unsent: bool) -> None:
    """The driver refused it, or the session was ended for being idle; in doubt it is unknown."""
    assert is_unsent(error) is unsent
    mark_unsent(error)
    assert is_unsent(error)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (asyncpg.AdminShutdownError("terminating connection"), True),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InternalClientError("got result for unknown protocol state"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), False),
        (asyncpg.UndefinedTableError("no table"), False),
        (asyncpg.QueryCanceledError("canceled"), False),
        (ValueError(), False),
    ],
)
def test_a_lost_connection_is_told_from_other_failures(error: Exception, *, lost: bool) -> None:
    """From what the server refuses, from a server that does not answer, and from defects."""
    assert is_loss(error) is lost
