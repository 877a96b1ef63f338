"""The bytes that Litestar sends, as texts that PostgreSQL takes."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Final

_BINARY: Final = "\x01base64:"
"""Stands before bytes that are no text. No JSON begins with it."""


def text_of(data: bytes) -> str:
    """Return UTF-8 as it is, and other bytes, or what could be taken for them, in base64."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _in_base64(data)
    return _in_base64(data) if "\0" in text or text.startswith(_BINARY) else text


def _in_base64(data: bytes) -> str:
    return _BINARY + b64encode(data).decode()


def data_of(text: str) -> bytes:
    """
    Return the bytes of a text.

    Raises:
        ValueError: The text says that it is base64, and is not.
    """
    if text.startswith(_BINARY):
        return b64decode(text.removeprefix(_BINARY), validate=True)
    return text.encode()
