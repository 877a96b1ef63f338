from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest

from asyncnotify.lock import Leader, Lock, LockNameError, Locks
from asyncnotify.lock._names import (
    NAME_LIMIT,
    check_lock_name,
    key_of,
    parse_payload,
    resign_payload,
)

DSN = "postgresql://localhost/postgres"


@pytest.mark.parametrize(
    "name", ["", "a\0b", "\ud800", "x" * (NAME_LIMIT + 1), "é" * NAME_LIMIT, None, 1, b"x"]
)
def test_a_name_that_no_lock_may_have(name: Any) -> None:
    """Is refused where it is given, by locks and leaders: before anything is sent."""

    async def run(held: object) -> None: ...

    with pytest.raises(LockNameError):
        Lock(DSN, name)
    with pytest.raises(LockNameError):
        Leader(name, run, DSN)


def test_a_dsn_in_the_place_of_a_name_is_not_shown() -> None:
    """It may hold a password."""
    with pytest.raises(LockNameError) as raised:
        Lock(None, "postgresql://me:secret@localhost/db")
    assert "secret" not in str(raised.value)


def test_the_longest_name() -> None:
    """In bytes, not characters."""
    assert check_lock_name("é" * (NAME_LIMIT // 2)) == "é" * (NAME_LIMIT // 2)


def test_the_key_is_the_first_eight_bytes_of_sha256() -> None:
    """As a signed number: half of all names have a negative one."""
    for name in ("x", "nightly report", "grüße"):
        assert struct.pack(">q", key_of(name)) == hashlib.sha256(name.encode()).digest()[:8]


def test_payloads_say_what_they_are() -> None:
    """A key, a request to resign, or something of others, which is passed over."""
    assert parse_payload(str(key_of("x"))) == (key_of("x"), False)
    assert parse_payload(resign_payload("x")) == (key_of("x"), True)
    for foreign in ("", "x", "resign", "resign x", "1.5"):
        assert parse_payload(foreign) is None


@pytest.mark.parametrize(
    "options",
    [
        {"life": 0.1},
        {"life": 2_147_484},
        {"life": float("nan")},
        {"limit": 0},
        {"start_timeout": -1},
    ],
)
def test_options_are_checked_where_they_are_given(options: dict[str, Any]) -> None:
    """A number out of its bounds is a ValueError, before anything is sent."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Locks(DSN, **options)


@pytest.mark.parametrize("timeout", [-1, float("inf"), True])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    """Of a lock: seconds, 0 or None."""
    with pytest.raises(ValueError, match="timeout"):
        Lock(DSN, "x", timeout=timeout)
