"""How payloads of a type become text, and come back: as they are, as JSON, by a library."""

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

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

# Together they make JSON: a type of which JSON has values needs no library.
_OF_JSON: Final = (dict, list, int, float, bool, NoneType)


class RefusedError(ValueError):
    """
    What we ourselves have found wrong with a payload.

    Attributes:
        reason: What it is, with nothing of the payload. The ``__cause__`` may quote it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Coder(NamedTuple):
    """A pair of functions, text on one side; None where the payload is the text."""

    encode: Callable[[Any], str] | None
    decode: Callable[[str], Any] | None


AS_IT_IS: Final = Coder(None, None)


def coder_for(kind: object) -> Coder:
    """
    Return how payloads of a type are coded.

    Raises:
        ImportError: It needs a library, and none that could do it is installed.
        TypeError: No library can do it.
    """
    if kind is str:
        return AS_IT_IS
    if kind is object or kind is Any:
        return Coder(_dumps, _loads)
    for ours in _OF_JSON:
        if kind is ours or (kind is None and ours is NoneType):
            return _json_coder(ours)
    return _library_coder(kind)


def name_of(kind: object) -> str:
    """Return what a type is called in messages."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _of_type(payload: object, expected: str) -> RefusedError:
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
        _dumps(value).encode()  # fails for half a character, which UTF-8 cannot hold
    return value


def _parsed(text: str) -> object:
    """Parse JSON; where no white space is around it, twice as fast as to look for it."""
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        if text[:1] not in _WHITE_SPACE:
            raise  # not once more: whoever sends what is wrong has cost us enough
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
            raise _of_type(payload, name)
        return _dumps(payload)

    def decode(text: str) -> object:
        value = _loads(text)
        if type(value) is not kind:  # also of True, which is an int to isinstance()
            raise _of_type(value, name)
        return value

    return Coder(encode, decode)


def _encode_float(payload: object) -> str:
    return _dumps(_as_float(payload))


def _decode_float(text: str) -> float:
    return _as_float(_loads(text))  # 1 is a way to write 1.0, and the only one in JavaScript


def _as_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise _of_type(value, "float")
    return float(value)


# -- libraries ------------------------------------------------------------------------------------


def _library_coder(kind: object) -> Coder:
    """Return the coder of the first library that is installed and takes the type."""
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
        except Exception as error:  # noqa: BLE001 - whatever a library says of a type it cannot do
            unable.append(name)
            cause = error
    if unable:
        message = f"payloads of type {name_of(kind)} cannot be coded by {' or '.join(unable)}"
        raise TypeError(message + _cure(missing)) from cause
    message = f"payloads of type {name_of(kind)} need {' or '.join(missing)}"
    raise ImportError(message + _cure(missing))


def _cure(missing: list[str]) -> str:
    commands = [f"pip install 'asyncnotify-pg[{name}]'" for name in missing]
    return f": {' or '.join(commands)}" if commands else ""


def _libraries_for(kind: object) -> tuple[str, ...]:
    """Return the libraries that may do a type, the best first."""
    if hasattr(kind, "__pydantic_validator__"):  # its models and its dataclasses
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
    # It decodes what it does not know by a hook, and without one fails only when it decodes;
    # for a schema it has to know all.
    msgspec.json.schema_components([kind])
    encode_bytes: Callable[[object], bytes] = msgspec.json.Encoder().encode
    decode: Callable[[str], object] = msgspec.json.Decoder(kind).decode

    def encode(payload: object) -> str:
        return encode_bytes(payload).decode()

    return Coder(_checked(kind, encode, decode), decode)


def _pydantic_coder(pydantic: ModuleType, kind: object) -> Coder:
    adapter = pydantic.TypeAdapter(kind)
    if not getattr(adapter, "pydantic_complete", True):  # a name in it is not known, or not yet
        adapter.rebuild(raise_errors=True)
    dump: Callable[..., bytes] = adapter.dump_json
    validate: Callable[[str], object] = adapter.validate_json

    def encode(payload: object) -> str:
        # By alias, and without computed fields: that is what validation asks for.
        return dump(payload, by_alias=True, round_trip=True, warnings="error").decode()

    def decode(text: str) -> object:
        if "NaN" in text or "Infinity" in text:
            _loads(text)  # refuses what pydantic's parser takes, and JSON does not have
        return validate(text)

    return Coder(_checked(kind, encode, decode), decode)


_MAKERS: Final = {"msgspec": _msgspec_coder, "pydantic": _pydantic_coder}


def _checked(
    kind: object, encode: Callable[[object], str], decode: Callable[[str], object]
) -> Callable[[object], str]:
    """Return an encoder that makes nothing which its own decoder would not take."""
    classes, name = _classes_of(kind), name_of(kind)

    def checked(payload: object) -> str:
        if classes and not isinstance(payload, classes):
            raise _of_type(payload, name)
        text = encode(payload)
        try:
            decode(text)  # libraries do not look at fields when they encode, and make NaN null
        except Exception as error:
            reason = f"could not be decoded again: {type(error).__name__}"
            raise RefusedError(reason) from error
        return text

    return checked


def _classes_of(kind: object) -> tuple[type, ...]:
    """Return the classes whose instances payloads of a type are; none if that is not known."""
    origin = get_origin(kind)
    if origin is Union or origin is UnionType:
        members = [_classes_of(member) for member in get_args(kind)]
        return tuple(chain.from_iterable(members)) if all(members) else ()
    if origin is Annotated:
        return _classes_of(get_args(kind)[0])
    return _class_of(origin or kind)


def _class_of(kind: object) -> tuple[type, ...]:
    if hasattr(kind, "__required_keys__"):  # a TypedDict, of typing or of typing_extensions
        return (dict,)
    if kind is float:
        return (float, int)
    if kind is Any or kind is object or not isinstance(kind, type):
        return ()
    return (kind,)
