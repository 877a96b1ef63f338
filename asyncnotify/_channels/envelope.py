"""
What may be added to the text of a payload: a token, compression, a signature.

Token and compression make an envelope. MARK and a letter at its beginning say which it is::

    MARK u TTTTTTTT text    the text, made unique by a token of eight characters
    MARK z DATA             any of the others, compressed by zlib, in base64 without padding
    MARK p text             a text that begins with MARK itself
    text                    the text, as senders without an envelope write it

A signature comes before all of that: 43 characters of base64url, without padding, of
HMAC-SHA256 over channel, NUL and the rest. No channel contains a NUL.

A context comes first of all, and is not signed: MARK t CONTEXT MARK, for example a traceparent of
55 characters. It is left out where there is none, unless the text begins as if it had one.
"""

from __future__ import annotations

import hmac
import secrets
import zlib
from base64 import urlsafe_b64encode
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncnotify._channels.coders import RefusedError
from asyncnotify._errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Context = Callable[[], str | None]

MARK: Final = "\x01"
TOKEN_LENGTH: Final = 8  # 48 random bits: two of 10,000 tokens are equal in one of 5 million cases
SIGNATURE_LENGTH: Final = 43
SHORTEST_KEY: Final = 16
TEXT_LIMIT: Final = 262_144
"""Bytes of a text that may be compressed, and of one that a receiver unpacks: about 33 times what
one NOTIFY holds. A small payload must not become a huge text."""

_UNIQUE: Final = MARK + "u"
_COMPRESSED: Final = MARK + "z"
_PLAIN: Final = MARK + "p"
_HEAD: Final = len(_UNIQUE) + TOKEN_LENGTH  # the longest prefix of a text
_BYTES_OF_TOKEN: Final = 6
_CONTEXT: Final = MARK + "t"
LONGEST_CONTEXT: Final = 200
_DAMAGED: Final = "has a damaged envelope"


class Layer(NamedTuple):
    """Two functions from text to text: each reverses the other."""

    seal: Callable[[str], str]
    open: Callable[[str], str]


# -- the envelope ---------------------------------------------------------------------------------


def wrapping(*, unique: bool, compress: bool) -> Layer:
    """Return the layer of a channel that has at least one of the two; its ``open`` takes both."""
    wrap = _with_token if unique else _escaped

    def seal(text: str) -> str:
        return _compressed(wrap(text)) if compress else wrap(text)

    return Layer(seal, _opened)


def _with_token(text: str) -> str:
    return f"{_UNIQUE}{secrets.token_urlsafe(_BYTES_OF_TOKEN)}{text}"


def _escaped(text: str) -> str:
    return _PLAIN + text if text.startswith(MARK) else text


def _compressed(text: str) -> str:
    """Return the text compressed, or unchanged if that is not shorter."""
    plain = text.encode()
    packed = b2a_base64(zlib.compress(plain), newline=False).rstrip(b"=").decode()
    return _COMPRESSED + packed if len(_COMPRESSED) + len(packed) < len(plain) else text


def _opened(text: str) -> str:
    if not text.startswith(MARK):
        return text
    if text.startswith(_COMPRESSED):
        text = _decompressed(text[len(_COMPRESSED) :])
        if not text.startswith(MARK):
            return text
    if text.startswith(_UNIQUE) and len(text) >= _HEAD:
        return text[_HEAD:]
    if text.startswith(_PLAIN):
        return text[len(_PLAIN) :]
    reason = "has an unknown envelope"
    raise RefusedError(reason)


def _decompressed(packed: str) -> str:
    try:
        data = a2b_base64(packed + "=" * (-len(packed) % 4), strict_mode=True)
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(data, TEXT_LIMIT + _HEAD + 1)
    except (ValueError, zlib.error) as error:  # a ValueError is what binascii raises
        raise RefusedError(_DAMAGED) from error
    if len(plain) > TEXT_LIMIT + _HEAD:
        reason = f"is compressed, and unpacks to over {TEXT_LIMIT} bytes"
        raise RefusedError(reason)
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError(_DAMAGED)
    return plain.decode()


# -- the context ----------------------------------------------------------------------------------


def carrying(channel: str, context: Context) -> Layer:
    """Return the layer that puts what ``context()`` returns before the text, and removes it."""

    def seal(text: str) -> str:
        found = _checked_context(channel, context)
        return f"{_CONTEXT}{found}{MARK}{text}" if found or text.startswith(_CONTEXT) else text

    def open_(text: str) -> str:
        return parted(text)[1]

    return Layer(seal, open_)


def parted(text: str) -> tuple[str, str]:
    """Return the context that a text was sent with, empty if there is none, and the text."""
    if not text.startswith(_CONTEXT):
        return "", text
    begin = len(_CONTEXT)
    end = text.find(MARK, begin, begin + LONGEST_CONTEXT + 1)
    if end < 0:
        raise RefusedError(_DAMAGED)
    return text[begin:end], text[end + 1 :]


def _checked_context(channel: str, context: Context) -> str:
    try:
        found = context()
    except Exception as error:
        reason = f"has no context: {type(error).__name__}"
        raise PayloadError(channel, reason) from error
    if found is not None and not _is_context(found):
        reason = f"has a context that is no text of at most {LONGEST_CONTEXT} characters"
        raise PayloadError(channel, reason)
    return found or ""


def _is_context(found: object) -> bool:
    return isinstance(found, str) and len(found) <= LONGEST_CONTEXT and MARK not in found


# -- the signature --------------------------------------------------------------------------------


def signing(channel: str, keys: Iterable[bytes]) -> Layer:
    """
    Return the layer that signs with the first key, and takes what any of the keys has signed.

    Raises:
        TypeError: ``keys`` is not a collection of bytes.
        ValueError: There is no key, or one is too short.
    """
    checked = _check_keys(keys)
    prefix = channel.encode() + b"\0"

    def signature(key: bytes, text: str) -> bytes:
        digest = hmac.digest(key, prefix + text.encode(), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=")

    def seal(text: str) -> str:
        return signature(checked[0], text).decode() + text

    def open_(text: str) -> str:
        # Signatures are compared as text: several base64 texts may decode to the same bytes
        given, rest = text[:SIGNATURE_LENGTH].encode(), text[SIGNATURE_LENGTH:]
        if any(hmac.compare_digest(given, signature(key, rest)) for key in checked):
            return rest
        reason = "has no valid signature"
        raise RefusedError(reason)

    return Layer(seal, open_)


def _check_keys(keys: Iterable[object]) -> tuple[bytes, ...]:
    if isinstance(keys, bytes | bytearray | str):  # which are iterable too
        message = "keys is a list of keys, not one key"
        raise TypeError(message)
    checked = tuple(_check_key(key) for key in keys)
    if not checked:
        message = "keys is empty: give at least one key, or leave keys out"
        raise ValueError(message)
    return checked


def _check_key(key: object) -> bytes:
    if not isinstance(key, bytes):
        message = f"a key is of type {type(key).__name__}, not bytes"
        raise TypeError(message)
    if len(key) < SHORTEST_KEY:
        message = f"a key is {len(key)} bytes; at least {SHORTEST_KEY} are needed"
        raise ValueError(message)
    return key
