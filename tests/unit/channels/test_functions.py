from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping  # noqa: TC003 - annotations are evaluated here
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pydantic
import pytest

from asyncnotify._channels.coders import RefusedError
from asyncnotify._channels.functions import coder_of

if TYPE_CHECKING:
    from fractions import Fraction


class Order(pydantic.BaseModel):
    """A payload."""

    id: int


def of_bytes(data: bytes) -> str:
    """Take bytes."""
    assert type(data) is bytes
    return data.decode()


def of_bytes_or_bytearray(data: bytes | bytearray) -> str:
    """Take bytes, among others."""
    assert type(data) is bytes
    return data.decode()


def of_bytes_and_of_what_checkers_know(data: bytes) -> Fraction | str:
    """Take bytes; the rest of the annotations cannot be evaluated."""
    assert type(data) is bytes
    return data.decode()


class OfBytes:
    """Take bytes, when called."""

    def __call__(self, data: bytes, *, more: str = "") -> str:
        """Take them."""
        assert type(data) is bytes
        return data.decode() + more


def of_any(data: str | bytes) -> str:
    """Take text, in either form."""
    assert type(data) is str
    return data


def of_text_in_general(data: Any) -> str:
    """Take whatever comes."""
    return of_any(data)


def of_a_choice(data: Literal["é"]) -> str:
    """Take one text."""
    return of_any(data)


def unannotated(data):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 - what is tested # pyright: ignore[reportUnknownParameterType,reportMissingParameterType]
    """Say nothing."""
    return of_any(data)


@pytest.mark.parametrize(
    "decode",
    [
        of_bytes,
        of_bytes_or_bytearray,
        of_bytes_and_of_what_checkers_know,
        OfBytes(),
        partial(OfBytes(), more=""),
        of_any,
        of_text_in_general,
        of_a_choice,
        str,
        unannotated,
    ],
)
def test_a_decode_function_gets_what_it_says_that_it_takes(decode: object) -> None:
    """Bytes if its annotation says so, otherwise text."""
    decoding = coder_of(None, decode).decode
    assert decoding is not None
    assert decoding("é") == "é"


def to_bytearray(payload: str) -> bytearray:
    """Return UTF-8."""
    return bytearray(payload.encode())


def to_what_checkers_know(payload: str) -> Fraction | str:
    """Return text; the annotation cannot be evaluated."""
    return payload


@pytest.mark.parametrize(
    "encode", [str, str.encode, to_bytearray, to_what_checkers_know, unannotated]
)
def test_an_encode_function_returns_text_or_utf_8(encode: object) -> None:
    """Libraries for JSON return bytes, and those are as good."""
    encoding = coder_of(encode, None).encode
    assert encoding is not None
    assert encoding("é") == "é"


@pytest.mark.parametrize(
    ("encode", "decode"),
    [
        (msgspec.json.encode, msgspec.json.decode),
        (Order.model_dump_json, Order.model_validate_json),
        (pydantic.TypeAdapter(Order).dump_json, pydantic.TypeAdapter(Order).validate_json),
        (partial(json.dumps, default=vars), json.loads),
    ],
)
def test_functions_of_libraries_are_taken_as_they_are(encode: object, decode: object) -> None:
    """What libraries offer needs nothing around it."""
    coder = coder_of(encode, decode)
    assert coder.encode is not None
    assert coder.decode is not None
    payload: object = {"id": 1} if encode is msgspec.json.encode else Order(id=1)
    decoded = coder.decode(coder.encode(payload))
    assert decoded in (payload, {"id": 1})


def returned(encoded: bytes, payload: object) -> bytes:
    """Return something binary."""
    return encoded


@pytest.mark.parametrize("encoded", [b"\xff", b"caf\xe9", bytearray(b"\xc3")])
def test_r48_what_is_not_utf_8_is_refused(encoded: bytes) -> None:
    """Binary data is no payload, and the error does not quote it."""
    encoding = coder_of(partial(returned, encoded), None).encode
    assert encoding is not None
    with pytest.raises(RefusedError, match="is not UTF-8") as caught:
        encoding(None)
    assert caught.value.__context__ is None


def to_dict(payload: object) -> dict[str, Any]:
    """Return no text."""
    return {"a": payload}


def to_nothing(payload: object) -> None:
    """Return nothing."""


def to_number(payload: object) -> int | None:
    """Return no text, whichever."""


def of_dict(data: dict[str, Any]) -> object:
    """Take no text."""
    return data


def of_mapping(data: Mapping[str, Any] | None) -> object:
    """Take no text."""
    return data


async def to_text_later(payload: object) -> str:
    """Return text, once awaited."""
    return ""


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ((to_dict, None), "encode must return str or bytes, and returns dict"),
        ((Order.model_dump, None), "encode must return str or bytes, and returns [Dd]ict"),
        ((to_nothing, None), "encode must return str or bytes, and returns None"),
        ((to_number, None), "encode must return str or bytes, and returns int or NoneType"),
        ((dict, None), "encode must return str or bytes, and returns dict"),
        ((to_text_later, None), "encode must be a plain function"),
        ((None, of_dict), "decode is called with a text, and takes dict"),
        ((None, of_mapping), "decode is called with a text, and takes Mapping or NoneType"),
        ((None, partial(of_dict, data={})), "decode is called with 1 argument"),
        ((None, asyncio.sleep), "decode must be a plain function"),
        ((None, 5), "decode must be callable"),
    ],
)
def test_r48_what_a_function_says_is_checked(
    functions: tuple[Callable[..., object], object], message: str
) -> None:
    """A function that says that it does something else is refused before it is called."""
    with pytest.raises(TypeError, match=message):
        coder_of(*functions)
