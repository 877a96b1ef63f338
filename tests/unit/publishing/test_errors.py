from __future__ import annotations

import asyncpg
import pytest

from asyncnotify import (
    AsyncNotifyError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PoolerError,
)
from asyncnotify._asyncpg import failures
from asyncnotify._publishing.errors import (
    closed_in_flight,
    error_of_connecting,
    error_of_sending,
    not_sent_again,
    not_sent_closed,
)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ConnectionRefusedError("no server"), ConnectError),
        (asyncpg.InvalidPasswordError("wrong password"), ConnectError),
        (ValueError("no such sslmode"), ConfigurationError),
    ],
)
def test_an_error_of_connecting_names_the_server_and_its_cause(
    cause: Exception, kind: type[Exception]
) -> None:
    """A mistake of the program is told from what may pass."""
    error = error_of_connecting(cause, "joe@db", failures)
    assert type(error) is kind
    assert str(error).startswith("cannot connect to joe@db: ")
    assert str(cause) in str(error)
    assert error.__cause__ is cause


def test_an_error_of_ours_is_told_as_it_is() -> None:
    """It has been said already why there is no connection."""
    cause = PoolerError("a pooler")
    assert error_of_connecting(cause, "joe@db", failures) is cause


def test_a_refusal_is_told_as_it_is() -> None:
    """The caller sees what the server has said."""
    refusal = asyncpg.InvalidParameterValueError("payload string too long")
    assert error_of_sending(refusal, failures) is refusal


def test_what_the_server_never_had_was_not_sent() -> None:
    """The driver knew that the connection was closed: no doubt is left to the caller."""
    cause = asyncpg.InterfaceError("connection is closed")
    error = error_of_sending(cause, failures)
    assert type(error) is ConnectError
    assert str(error).startswith("not sent: ")
    assert error.__cause__ is cause


def test_what_was_in_flight_is_in_doubt() -> None:
    """The message says that the notification may have been sent."""
    cause = asyncpg.ConnectionDoesNotExistError("closed in the middle of operation")
    error = error_of_sending(cause, failures)
    assert type(error) is ConnectionLostError
    assert "may or may not have been sent" in str(error)
    assert error.__cause__ is cause


def test_each_caller_has_an_error_of_its_own() -> None:
    """An exception that several tasks raise would collect the frames of all of them."""
    makers = {not_sent_closed: ClosedError, not_sent_again: ConnectError}
    for make, kind in {**makers, closed_in_flight: ConnectionLostError}.items():
        errors: list[AsyncNotifyError] = [make(), make()]
        assert [type(error) for error in errors] == [kind, kind]
        assert errors[0] is not errors[1]
