"""The caller's own functions, from payload to text and back: checked, and made a Coder."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, cast, get_args, get_origin

from asyncnotify._arguments import check_coding
from asyncnotify._channels.coders import Coder, RefusedError
from asyncnotify._channels.hidden import masked_secret

if TYPE_CHECKING:
    from collections.abc import Callable

Text: TypeAlias = str | bytes | bytearray
"""What an encode function may return: text, or text in UTF-8."""

_TEXTS: Final = (str, bytes, bytearray)
_BY_NAME: Final[dict[object, type]] = {kind.__name__: kind for kind in _TEXTS}


def coder_of(encode: object, decode: object) -> Coder:
    """
    Return the coder of one function or of both; a direction without a function has none.

    Raises:
        TypeError: A function is not called with one argument, is async, or says in its annotations
            that it returns no text, or takes none.
    """
    if encode is not None:
        check_coding("encode", encode)
        _check_returns_text(encode)
    if decode is not None:
        check_coding("decode", decode)
    return Coder(
        None if encode is None else _encoding(cast("Callable[[Any], object]", encode)),
        None if decode is None else _decoding(cast("Callable[[Any], Any]", decode)),
    )


def _encoding(encode: Callable[[Any], object]) -> Callable[[Any], str]:
    def encode_to_text(payload: object) -> str:
        text = _as_text(encode(payload))
        reason = masked_secret(payload, text)
        if reason is not None:
            raise RefusedError(reason)
        return text

    return encode_to_text


def _as_text(encoded: object) -> str:
    if isinstance(encoded, str):
        return encoded
    if not isinstance(encoded, bytes | bytearray):
        reason = f"is of type {type(encoded).__name__}, not str or bytes, once it is encoded"
        raise RefusedError(reason)
    try:
        return encoded.decode()
    except UnicodeDecodeError:  # not chained: it has the payload in its arguments
        reason = "is not UTF-8, once it is encoded"
    raise RefusedError(reason)


def _decoding(decode: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Return the function itself; one that calls it with bytes if it says that it takes those."""
    kinds = _annotated(decode, "decode")
    if _is_text(kinds, str):
        return decode
    if _is_text(kinds, bytes):
        return lambda text: decode(text.encode())
    msg = f"decode is called with a text, and takes {_named(kinds)}"
    raise TypeError(msg)


def _check_returns_text(encode: object) -> None:
    kinds = _annotated(encode, "encode")
    if not any(_is_text(kinds, text) for text in _TEXTS):
        msg = f"encode must return str or bytes, and returns {_named(kinds)}"
        raise TypeError(msg)


# -- annotations ----------------------------------------------------------------------------------


def _annotated(function: object, name: str) -> tuple[object, ...]:
    """Return what a function says that it returns, or takes, one by one; Any if nothing."""
    if name == "encode" and isinstance(function, type):
        return (function,)
    try:
        signature = _signature(function)
    except Exception:  # noqa: BLE001 - of functions written in C, and annotations of any kind
        return (Any,)
    said: object = signature.return_annotation
    if name == "decode":
        said = next((p.annotation for p in signature.parameters.values()), Any)
    said = _BY_NAME.get(said, said) if isinstance(said, str) else said
    return get_args(said) if get_origin(said) in {Union, UnionType} else (said,)


def _signature(function: Any) -> inspect.Signature:  # noqa: ANN401 - any callable
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # one of the names is known to type checkers only
        return inspect.signature(function)


def _is_text(kinds: tuple[object, ...], text: type) -> bool:
    """Return whether one of the kinds may be this class of text; what is not a class may be."""
    return any(_may_be(kind, text) for kind in kinds)


def _may_be(kind: object, text: type) -> bool:
    kind = NoneType if kind is None else get_origin(kind) or kind
    if not isinstance(kind, type) or kind in {Any, inspect.Signature.empty}:
        return True
    try:
        return issubclass(kind, text) or issubclass(text, kind)
    except TypeError:  # a protocol that cannot be asked
        return True


def _named(kinds: tuple[object, ...]) -> str:
    return " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
