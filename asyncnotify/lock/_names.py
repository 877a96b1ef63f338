"""The names of locks, and the keys by which the server knows them."""

from __future__ import annotations

import hashlib
from typing import Final

from asyncnotify.lock._errors import LockNameError

SCHEMA: Final = "asyncnotify"
"""The schema that the table of locks is in."""

CHANNEL: Final = "asyncnotify_lock"
"""On which a release is told of, and a leader asked to resign."""

NAME_LIMIT: Final = 1_024
"""Bytes of a lock's name, as UTF-8."""

_RESIGN: Final = "resign "


def check_lock_name(name: object) -> str:
    """Return the name if it can be a lock's, else raise LockNameError."""
    if isinstance(name, str) and "://" in name:
        raise LockNameError(name, "is Lock(dsn, name) or Leader(name, run, dsn) meant?")
    if not isinstance(name, str) or not name or "\0" in name:
        raise LockNameError(name, "a text is needed, not empty, and neither with NUL nor a URL")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise LockNameError(name, "a lone surrogate cannot be stored") from None
    if size > NAME_LIMIT:
        raise LockNameError(name, f"is {size} bytes; at most {NAME_LIMIT} are allowed")
    return str.__str__(name)


def key_of(name: str) -> int:
    """Return the key of the advisory lock: the first 8 bytes of SHA-256, with a sign."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def resign_payload(name: str) -> str:
    """Return the payload that asks the leader of this name to resign."""
    return f"{_RESIGN}{key_of(name)}"


def parse_payload(payload: str) -> tuple[int, bool] | None:
    """Return the key in a payload, and whether its leader is asked to resign; None: of others."""
    key = payload.removeprefix(_RESIGN)
    try:
        return int(key), key != payload
    except ValueError:
        return None
