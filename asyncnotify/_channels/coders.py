"""How payloads of a type are encoded and decoded: as they are, as JSON, or by a library."""

from __future__ import annotations

import importlib
import json
import math
from itertools import chain
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    NamedTuple,
    Union,
    get_args,
    get_origin,
)

from asyncnotify._channels.hidden import masked_secret, nulled_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_OF_TYPES: Final = {"types", "typing", "typing_extensions"}

# Together they make JSON: a type of which JSON has values needs no library.
_OF_JSON: Final = (dict, list, int, float, bool, NoneType)


class RefusedError(ValueError):
    """
    A payload that asyncnotify itself refuses, not a library.

    Attributes:
        reason: What is wrong, without anything of the payload. The ``__cause__`` may quote it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Coder(NamedTuple):
    """A function from payload to text, and back; None where the payload is the text."""

    encode: Callable[[Any], str] | None
    decode: Callable[[str], Any] | None


AS_IT_IS: Final = Coder(None, None)


def coder_for(kind: object) -> Coder:
    """
    Return how payloads of a type are coded.

    Raises:
        ImportError: The type needs a library, and none is installed.
        TypeError: No library supports the type.
    """
    if kind is str:
        return AS_IT_IS
    if kind is object or kind is Any:
        return Coder(_dumps, _loads)
    if isinstance(kind, str):
        msg = f"payloads have a type, not the name of one: Channel(…, {kind}), without quotes"
        raise TypeError(msg)
    _refuse_object(kind)
    for ours in _OF_JSON:
        if kind is ours or (kind is None and ours is NoneType):
            return _json_coder(ours)
    return _library_coder(kind)


def _refuse_object(kind: object) -> None:
    """Raise TypeError for what is neither a class nor a form of a type: it may be a payload."""
    package = type(kind).__module__.partition(".")[0]
    if kind is None or isinstance(kind, type) or package in _OF_TYPES or get_origin(kind):
        return
    name = type(kind).__name__
    msg = f"payloads have a type, as Channel('orders', dict), and an object of type {name} is none"
    if callable(kind):
        msg += ": give functions as encode= and decode="
    raise TypeError(msg)


def name_of(kind: object) -> str:
    """Return the name of a type in messages."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _wrong_type(payload: object, expected: str) -> RefusedError:
    return RefusedError(f"is of type {type(payload).__name__}, not {expected}")


# -- the standard library's JSON ------------------------------------------------------------------


def _refuse_constant(_: str) -> float:
    reason = "contains NaN or Infinity, which JSON does not have"
    raise RefusedError(reason)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        reason = "contains a number that no float can hold"
        raise RefusedError(reason)
    return number


_ENCODER: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_dumps: Final = _ENCODER.encode
_WHITE_SPACE: Final = " \t\n\r"


def _loads(text: str) -> object:
    value = _parsed(text)
    if "\\u" in text and ("\\ud" in text or "\\uD" in text):
        _dumps(value).encode()  # fails for a lone surrogate, which UTF-8 cannot hold
    return value


def _parsed(text: str) -> object:
    """Parse JSON; twice as fast as ``decode()`` if there is no white space around it."""
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        if text[:1] not in _WHITE_SPACE:
            raise  # do not parse twice: invalid JSON must not cost more than valid JSON
        return _DECODER.decode(text)
    if end != len(text) and text[end:].strip(_WHITE_SPACE):
        msg = "Extra data"
        raise json.JSONDecodeError(msg, text, end)
    return value


def _json_coder(kind: type) -> Coder:
    if kind is float:
        return Coder(_encode_float, _decode_float)
    name = kind.__name__

    def encode(payload: object) -> str:
        if not isinstance(payload, kind) or (kind is int and isinstance(payload, bool)):
            raise _wrong_type(payload, name)
        return _dumps(payload)

    def decode(text: str) -> object:
        value = _loads(text)
        if type(value) is not kind:  # isinstance() would take True for an int
            raise _wrong_type(value, name)
        return value

    return Coder(encode, decode)


def _encode_float(payload: object) -> str:
    return _dumps(_as_float(payload))


def _decode_float(text: str) -> float:
    return _as_float(_loads(text))  # JavaScript writes 1.0 as 1


def _as_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise _wrong_type(value, "float")
    return float(value)


# -- libraries ------------------------------------------------------------------------------------


def _library_coder(kind: object) -> Coder:
    """Return the coder of the first library that is installed and supports the type."""
    missing: list[str] = []
    unable: list[str] = []
    cause: Exception | None = None
    for name in _libraries_for(kind):
        library = _installed(name)
        if library is None:
            missing.append(name)
            continue
        try:
            return _MAKERS[name](library, kind)
        except Exception as error:  # noqa: BLE001 - each library raises its own for a type
            unable.append(name)
            cause = error
    if unable:
        message = f"payloads of type {name_of(kind)} cannot be coded by {' or '.join(unable)}"
        raise TypeError(message + _install_hint(missing)) from cause
    message = f"payloads of type {name_of(kind)} need {' or '.join(missing)}"
    raise ImportError(message + _install_hint(missing))


def _install_hint(missing: list[str]) -> str:
    commands = [f"pip install 'asyncnotify-pg[{name}]'" for name in missing]
    return f": {' or '.join(commands)}" if commands else ""


def _libraries_for(kind: object) -> tuple[str, ...]:
    """Return the libraries that may support a type, the best first."""
    if hasattr(kind, "__pydantic_validator__"):  # pydantic's models and dataclasses
        return ("pydantic",)
    if hasattr(kind, "__struct_fields__"):
        return ("msgspec",)
    return ("msgspec", "pydantic")


def _installed(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _msgspec_coder(msgspec: ModuleType, kind: object) -> Coder:
    # msgspec takes unknown types, which a hook may decode, and fails only when it decodes one;
    # a schema cannot be made of unknown types.
    msgspec.json.schema_components([kind])
    encode_bytes: Callable[[object], bytes] = msgspec.json.Encoder().encode
    decode: Callable[[str], object] = msgspec.json.Decoder(kind).decode

    def encode(payload: object) -> str:
        return encode_bytes(payload).decode()

    return Coder(_checked(kind, encode, decode), decode)


def _pydantic_coder(pydantic: ModuleType, kind: object) -> Coder:
    adapter = pydantic.TypeAdapter(kind)
    if not getattr(adapter, "pydantic_complete", True):  # it names a type not defined so far
        adapter.rebuild(raise_errors=True)
    dump: Callable[..., bytes] = adapter.dump_json
    validate: Callable[[str], object] = adapter.validate_json

    def encode(payload: object) -> str:
        # By alias and without computed fields, as validation expects
        return dump(payload, by_alias=True, round_trip=True, warnings="error").decode()

    def decode(text: str) -> object:
        if "NaN" in text or "Infinity" in text:
            _loads(text)  # refuses NaN and Infinity, which pydantic's parser takes
        return validate(text)

    return Coder(_checked(kind, encode, decode), decode)


_MAKERS: Final = {"msgspec": _msgspec_coder, "pydantic": _pydantic_coder}


def _checked(
    kind: object, encode: Callable[[object], str], decode: Callable[[str], object]
) -> Callable[[object], str]:
    """Return an encoder that returns only what its own decoder takes."""
    classes, name = _classes_of(kind), name_of(kind)

    def checked(payload: object) -> str:
        if classes and not isinstance(payload, classes):
            raise _wrong_type(payload, name)
        text = encode(payload)
        if (reason := masked_secret(payload, text)) is not None:
            raise RefusedError(reason)
        try:
            decode(text)  # libraries do not check fields on encoding
        except Exception as error:
            reason = f"could not be decoded again: {type(error).__name__}"
            raise RefusedError(reason) from error
        if (reason := nulled_number(payload, text)) is not None:
            raise RefusedError(reason)
        return text

    return checked


def _classes_of(kind: object) -> tuple[type, ...]:
    """Return the classes of which payloads of a type are instances; none if not known."""
    origin = get_origin(kind)
    if origin is Union or origin is UnionType:
        members = [_classes_of(member) for member in get_args(kind)]
        return tuple(chain.from_iterable(members)) if all(members) else ()
    if origin is Annotated:
        return _classes_of(get_args(kind)[0])
    return _class_of(origin or kind)


def _class_of(kind: object) -> tuple[type, ...]:
    if hasattr(kind, "__required_keys__"):  # a TypedDict of typing or typing_extensions
        return (dict,)
    if kind is float:
        return (float, int)
    if kind is Any or kind is object or not isinstance(kind, type):
        return ()
    return (kind,)
