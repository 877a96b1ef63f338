"""Names of logs and consumers, and the identifiers that are made of them."""

from __future__ import annotations

import pytest

from asyncnotify.log import LogNameError
from asyncnotify.log._names import CONSUMER_LIMIT, Names, check_consumer_name, check_log_name


@pytest.mark.parametrize("name", ["orders", "a", "a1_", "x" * 40])
def test_a_log_may_be_called_what_is_an_identifier_as_it_stands(name: str) -> None:
    """So no statement has to quote it."""
    assert check_log_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Orders",
        "1a",
        "_a",
        "a-b",
        "a b",
        "a.b",
        'a"',
        "é",
        "ä1",
        "x" * 41,
        "a\n",
        None,
        5,
        b"a",
    ],
)
def test_all_else_is_refused_for_a_log(name: object) -> None:
    """With an error that says what is allowed."""
    with pytest.raises(LogNameError, match="1 to 40"):
        check_log_name(name)


@pytest.mark.parametrize("name", ["mailer", "Read model, v2", "é", "x" * CONSUMER_LIMIT])
def test_a_consumer_may_be_called_nearly_anything(name: str) -> None:
    """Its name is a parameter of every statement."""
    assert check_consumer_name(name) == name


@pytest.mark.parametrize("name", ["", "a\0", "a\n", "\ud800", "x" * (CONSUMER_LIMIT + 1), None, 5])
def test_what_cannot_be_stored_or_printed_is_refused_for_a_consumer(name: object) -> None:
    """Before any statement is sent."""
    with pytest.raises(LogNameError, match="consumer"):
        check_consumer_name(name)


def test_the_longest_name_still_makes_a_channel() -> None:
    """A channel has at most 63 bytes, and an identifier too."""
    names = Names("x" * 40)
    assert len(names.wake_channel) <= 63
    assert len(f"{names.prefix}_append_many".partition(".")[2]) <= 63


def test_lock_keys_differ_by_log_and_purpose() -> None:
    """And fit in a signed integer of 64 bits."""
    keys = {Names(log).lock_key(what) for log in ("a", "b") for what in ("tick", "consumer tick")}
    assert len(keys) == 4
    assert all(-(2**63) <= key < 2**63 for key in keys)
