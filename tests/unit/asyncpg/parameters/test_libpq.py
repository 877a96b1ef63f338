from __future__ import annotations

import psycopg
import pytest

from asyncnotify._asyncpg._parameters.libpq import (
    _REFUSED,
    _WITHOUT_EFFECT,
    SSL_MODES,
    sort_out,
)
from asyncnotify._errors import ConfigurationError

DSN = "the DSN"


def test_what_libpq_knows_and_what_the_server_knows_are_told_apart() -> None:
    """By libpq's names; the rest is settings of the server."""
    found = sort_out([("database", "orders"), ("work_mem", "8MB"), ("a.b", "c")], source=DSN)
    assert found.options == {"dbname": "orders"}
    assert found.settings == {"work_mem": "8MB", "a.b": "c"}


def test_the_last_of_several_counts() -> None:
    """As in libpq."""
    assert sort_out([("user", "a"), ("user", "b")], source=DSN).options == {"user": "b"}


@pytest.mark.parametrize("name", _REFUSED)
def test_r54_what_cannot_be_honoured_is_refused_by_name_with_advice(name: str) -> None:
    """The error says which, where it stands, and what to do instead."""
    with pytest.raises(ConfigurationError, match=f"^{name} in the DSN cannot be honoured: .{{9}}"):
        sort_out([(name, "something")], source=DSN)


@pytest.mark.parametrize("name", _REFUSED)
def test_an_empty_value_asks_for_nothing(name: str) -> None:
    """As if it were not there."""
    found = sort_out([(name, "")], source=DSN)
    assert not found.options
    assert not found.settings


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in _WITHOUT_EFFECT.items() for value in sorted(values)],
)
def test_values_that_change_nothing_are_taken(name: str, value: str) -> None:
    """They ask for what is so anyway."""
    assert not sort_out([(name, value)], source=DSN).options


@pytest.mark.parametrize("mode", SSL_MODES)
def test_sslmode_is_taken_in_any_case(mode: str) -> None:
    """And JDBC's ``ssl=true`` stands for ``require``."""
    assert sort_out([("sslmode", mode.upper())], source=DSN).options == {"sslmode": mode}
    assert sort_out([("ssl", "true")], source=DSN).options == {"sslmode": "require"}


def test_r43_a_value_that_is_not_known_is_not_repeated() -> None:
    """It may be the end of a password; what there is to choose from is told."""
    with pytest.raises(ConfigurationError, match="must be one of disable, allow") as raised:
        sort_out([("sslmode", "s3cret")], source=DSN)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("name", ["work mem", "1st", "", "a-b", "a.b.c"])
def test_a_name_that_no_setting_can_have_is_refused(name: str) -> None:
    """It would be sent to the server as a startup parameter."""
    with pytest.raises(ConfigurationError, match="no setting of the server can have"):
        sort_out([(name, "x")], source=DSN)


LIBPQS = sorted(
    option.keyword.decode()
    for option in psycopg.pq.Conninfo.get_defaults()
    if option.dispchar != b"D"  # for debugging
)


@pytest.mark.parametrize("name", LIBPQS)
def test_every_parameter_of_libpq_is_honoured_or_refused_by_name(name: str) -> None:
    """None is taken for a setting of the server, which would not know it."""
    try:
        found = sort_out([(name, "x")], source="the DSN")
    except ConfigurationError as error:
        assert name in str(error)  # noqa: PT017 - either will do
    else:
        assert found.options == {name: "x"}
