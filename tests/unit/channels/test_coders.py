from __future__ import annotations

import enum
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._channels.coders import Coder, RefusedError, coder_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction


class Struct(msgspec.Struct):
    """A type of msgspec's."""

    id: int
    note: str = ""


class Model(pydantic.BaseModel):
    """A type of pydantic's."""

    id: int
    note: str = ""


@pydantic.dataclasses.dataclass
class Validated:
    """Another type of pydantic's."""

    id: int


@dataclass
class Order:
    """A type of nobody's."""

    id: int
    price: float = 0.0
    tags: list[str] = field(default_factory=list)


@dataclass
class Mixed:
    """A type that msgspec cannot do, because of what is in it."""

    model: Model


@dataclass
class Impossible:
    """A type that neither can do, because of what is in it."""

    model: Model
    struct: Struct


class Row(TypedDict):
    """A dict with known keys."""

    id: int


class BackportedRow(typing_extensions.TypedDict):
    """The same, as pydantic wants it before Python 3.12."""

    id: int


class Pair(NamedTuple):
    """A tuple with names."""

    id: int
    note: str


class Colour(enum.Enum):
    """A choice."""

    RED = "red"


class Named(pydantic.BaseModel):
    """A model whose fields have other names in JSON, and which takes no others."""

    model_config = pydantic.ConfigDict(extra="forbid")

    order_id: int = pydantic.Field(alias="orderId")

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic says
    @property
    def double(self) -> int:
        """Twice the number: part of what is shown, not of what is taken."""
        return self.order_id * 2


class Opaque:
    """A class of which no library knows anything."""


@dataclass
class Unfinished:
    """A class that names another, which only type checkers know."""

    other: Fraction


OrderId = NewType("OrderId", int)
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VALUES: list[tuple[object, object]] = [
    (Struct, Struct(1, "é")),
    (Model, Model(id=1, note="é")),
    (Named, Named(orderId=1)),
    (Validated, Validated(1)),
    (Order, Order(1, 2.5, ["a"])),
    (Mixed, Mixed(Model(id=1))),
    (Row, {"id": 1}),
    (BackportedRow, {"id": 1}),
    (Pair, Pair(1, "x")),
    (Colour, Colour.RED),
    (UUID, UUID(int=7)),
    (datetime, WHEN),
    (date, WHEN.date()),
    (timedelta, timedelta(seconds=90)),
    (Decimal, Decimal("1.50")),
    (bytes, b"\0\xff"),
    (OrderId, OrderId(1)),
    (dict[str, int], {"a": 1}),
    (list[Order], [Order(1), Order(2)]),
    (list[Model], [Model(id=1)]),
    (tuple[int, str], (1, "x")),
    (set[int], {1, 2}),
    (Order | None, None),
    (Order | list[int], [1]),
    (Model | Order, Order(1)),
    (int | str, "x"),
    (str | None, "x"),
    (Literal["a", "b"], "b"),
    (Order | Literal["x"], "x"),
    (Any | None, [1]),
    (Annotated[int, "positive"], 1),
    (float | None, 1),
    (dict[str, Any], {"a": [1, None, "é"]}),
]
OF_LIBRARIES = (Struct, Model, Named, Validated, Mixed, list[Model], Model | Order)
OF_ANY_LIBRARY = [(k, v) for k, v in VALUES if k not in OF_LIBRARIES]
JSON_VALUES: list[tuple[object, object, str]] = [
    (dict, {"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'),
    (list, [1, "x"], '[1,"x"]'),
    (int, 7, "7"),
    (float, 2.5, "2.5"),
    (bool, True, "true"),
    (None, None, "null"),
    (NoneType, None, "null"),
    (object, "x", '"x"'),
    (Any, [1], "[1]"),
]

each_library = pytest.mark.parametrize("library", ["msgspec", "pydantic"])


def coded(kind: object) -> tuple[Callable[[object], str], Callable[[str], object]]:
    """Return the two functions of a type that is not sent as it is."""
    encode, decode = coder_for(kind)
    assert encode is not None
    assert decode is not None
    return encode, decode


def hide(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """Have libraries not be installed."""
    for name in libraries:
        monkeypatch.setitem(sys.modules, name, None)


# -- the standard library -------------------------------------------------------------------------


def test_text_is_sent_as_it_is() -> None:
    """Of a channel of str nothing is coded: there is nothing to be called."""
    assert coder_for(str) == Coder(None, None)


@pytest.mark.parametrize(("kind", "value", "text"), JSON_VALUES, ids=repr)
def test_json_needs_no_library(
    monkeypatch: pytest.MonkeyPatch, kind: object, value: object, text: str
) -> None:
    """What JSON has values of is coded by the standard library, in as few bytes as it can."""
    hide(monkeypatch, "msgspec", "pydantic")
    encode, decode = coded(kind)
    assert encode(value) == text
    assert decode(text) == value
    assert type(decode(text)) is type(value)


@pytest.mark.parametrize("kind", [dict, list, int, float, bool, None], ids=repr)
@pytest.mark.parametrize("text", ["{}", "[]", "7", "2.5", "true", "null", '"x"'])
def test_json_of_another_type_is_refused(kind: object, text: str) -> None:
    """JSON is taken for its own type only; an int also for a float; True is no number."""
    _, decode = coded(kind)
    own = {"{}": dict, "[]": list, "7": int, "2.5": float, "true": bool, "null": None}
    if text in own and (own[text] is kind or (text == "7" and kind is float)):
        assert type(decode(text)) is (kind or NoneType)
    else:
        with pytest.raises(RefusedError, match=r"is of type \w+, not \w+"):
            decode(text)


@pytest.mark.parametrize("kind", [dict, list, int, float, bool, None], ids=repr)
@pytest.mark.parametrize("value", [{}, [], 7, 2.5, True, None, "x", (), b"x"], ids=repr)
def test_value_of_another_type_is_refused(kind: object, value: object) -> None:
    """Only what would be read as the channel's type is encoded."""
    encode, decode = coded(kind)
    try:
        text = encode(value)
    except RefusedError as error:
        assert error.reason.startswith(f"is of type {type(value).__name__}, not ")  # noqa: PT017 - of one of many
        assert type(value) is not kind
    else:
        assert decode(text) == value


@pytest.mark.parametrize("kind", [object, float, list, dict], ids=repr)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_json_has_finite_numbers_only(kind: object, number: str) -> None:
    """What Python's parser takes and JSON does not have is refused, and never written."""
    encode, decode = coded(kind)
    wrap: dict[object, tuple[str, Callable[[float], object]]] = {
        list: ("[%s]", lambda x: [x]),
        dict: ('{"a":%s}', lambda x: {"a": x}),
    }
    template, build = wrap.get(kind, ("%s", lambda x: x))
    with pytest.raises(RefusedError):
        decode(template % number)
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(build(float(number)))


@pytest.mark.parametrize(
    "text", [r'"\ud800"', r'"\uDFFF"', r'{"\udc00":1}', r'["\ud83dx\ude00"]', r'"\ude00\ud83d"']
)
def test_half_a_character_is_refused(text: str) -> None:
    """Escapes cannot bring in what no UTF-8 holds; a whole pair of them is a character."""
    _, decode = coded(object)
    with pytest.raises(UnicodeEncodeError):
        decode(text)
    assert decode(r'"\ud83d\uDE00 \\ud800"') == "😀 \\ud800"


@pytest.mark.parametrize("text", ["", "[", "[" * 7_999, "9" * 7_999, "\ufeff1", "1 2", "'a'"])
def test_what_is_no_json_is_refused(text: str) -> None:
    """Nesting without end, endless numbers, a BOM: an ordinary exception, and no value."""
    _, decode = coded(object)
    with pytest.raises((ValueError, RecursionError)):
        decode(text)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé\\ud8"), inner),
    max_leaves=8,
)


@given(JSON)
def test_all_of_json_comes_back(value: object) -> None:
    """Whatever JSON can hold is read as it was written."""
    encode, decode = coded(object)
    assert decode(encode(value)) == value


# -- libraries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=repr)
def test_value_of_a_type_comes_back(kind: object, value: object) -> None:
    """With both libraries installed every type that one of them can do is done."""
    encode, decode = coded(kind)
    assert decode(encode(value)) == value


@each_library
@pytest.mark.parametrize(("kind", "value"), OF_ANY_LIBRARY, ids=repr)
def test_either_library_will_do(
    monkeypatch: pytest.MonkeyPatch, library: str, kind: object, value: object
) -> None:
    """A type that belongs to neither library needs one of them, whichever it is."""
    if library == "pydantic" and kind is Row and sys.version_info < (3, 12):
        pytest.skip("pydantic wants the TypedDict of typing_extensions before Python 3.12")
    if library == "pydantic" and kind is bytes:
        pytest.skip("pydantic takes bytes for text")
    hide(monkeypatch, *{"msgspec", "pydantic"} - {library})
    encode, decode = coded(kind)
    assert decode(encode(value)) == value


@pytest.mark.parametrize(("kind", "value"), OF_ANY_LIBRARY, ids=repr)
def test_both_libraries_write_what_the_other_reads(
    monkeypatch: pytest.MonkeyPatch, kind: object, value: object
) -> None:
    """Sender and receiver need not have the same library, except for bytes."""
    if kind is bytes or (kind is Row and sys.version_info < (3, 12)):
        pytest.skip("pydantic does otherwise")
    by_msgspec = coded(kind)
    hide(monkeypatch, "msgspec")
    by_pydantic = coded(kind)
    assert by_pydantic[1](by_msgspec[0](value)) == value
    assert by_msgspec[1](by_pydantic[0](value)) == value


@pytest.mark.parametrize("kind", [Order, Row, UUID, dict[str, int], int | str], ids=repr)
def test_no_library_is_an_error_that_names_the_cure(
    monkeypatch: pytest.MonkeyPatch, kind: object
) -> None:
    """Without either, making the channel fails, with the command that helps."""
    hide(monkeypatch, "msgspec", "pydantic")
    with pytest.raises(ImportError) as caught:
        coder_for(kind)
    assert "need msgspec or pydantic: pip install 'asyncnotify-pg[msgspec]' or" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "missing"), [(Struct, "msgspec"), (Model, "pydantic"), (Validated, "pydantic")]
)
def test_the_only_library_that_can_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: object, missing: str
) -> None:
    """For a type of one library the other is not offered."""
    hide(monkeypatch, missing)
    with pytest.raises(ImportError) as caught:
        coder_for(kind)
    assert str(caught.value).endswith(f"need {missing}: pip install 'asyncnotify-pg[{missing}]'")


def test_the_name_of_a_type_is_refused() -> None:
    """The class itself is needed: a name could be looked up nowhere."""
    with pytest.raises(
        TypeError, match=r"not the name of one: Channel\(…, Order\), without quotes"
    ):
        coder_for("Order")


@pytest.mark.parametrize("kind", [Impossible, Opaque, Struct | Model, Unfinished], ids=repr)
def test_type_that_nobody_can_do_is_refused(kind: object) -> None:
    """All that might are asked when the channel is made, not when it is used; with the reason."""
    with pytest.raises(TypeError, match=r"cannot be coded by (msgspec or )?pydantic$") as caught:
        coder_for(kind)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("thing", [7, msgspec, len, [Order]], ids=type)
def test_an_object_in_the_place_of_a_type_is_refused_and_not_shown(thing: object) -> None:
    """The object may be a payload, so only its type is named."""
    with pytest.raises(TypeError, match=f"an object of type {type(thing).__name__} is none"):
        coder_for(thing)


def test_the_library_that_might_help_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the one that is installed cannot, the other one is offered."""
    hide(monkeypatch, "pydantic")
    with pytest.raises(TypeError, match=r"by msgspec: pip install 'asyncnotify-pg\[pydantic\]"):
        coder_for(Mixed)


def test_msgspec_decodes_without_anything_between() -> None:
    """The decoder is msgspec's own method."""
    _, decode = coded(Order)
    assert isinstance(getattr(decode, "__self__", None), msgspec.json.Decoder)


def test_pydantic_writes_what_it_reads() -> None:
    """Fields bear their aliases, computed ones are left out."""
    encode, _ = coded(Named)
    assert encode(Named(orderId=1)) == '{"orderId":1}'


def test_pydantic_has_finite_numbers_where_they_are_no_text() -> None:
    """NaN and Infinity are refused as numbers, and stay words in a text."""
    encode, decode = coded(list[Model | float])
    for text in ("[NaN]", "[-Infinity]", '[{"id":1,"note":"NaN"},NaN]'):
        with pytest.raises(RefusedError, match="NaN or Infinity"):
            decode(text)
    value = [Model(id=1, note="NaN Infinity"), 1.5]
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Order, {"id": 1}),
        (Order, Struct(1)),
        (Struct, Order(1)),
        (Model, {"id": 1}),
        (Model, Named(orderId=1)),
        (Row, [("id", 1)]),
        (BackportedRow, [("id", 1)]),
        (Colour, "red"),
        (UUID, str(UUID(int=7))),
        (dict[str, int], [1]),
        (list[Order], Order(1)),
        (Order | None, 1),
        (Order | list[int], (1,)),
        (Annotated[int, "positive"], "1"),
    ],
    ids=repr,
)
def test_value_of_another_class_is_refused_by_name(kind: object, value: object) -> None:
    """The types are compared before anything is encoded, though the JSON might look the same."""
    encode, _ = coded(kind)
    with pytest.raises(RefusedError, match=rf"^is of type {type(value).__name__}, not "):
        encode(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Order, Order("1")),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (Order, Order(1, float("nan"))),
        (Order, Order(1, tags=[None])),  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
        (Model, Model.model_construct(id=object())),
        (Model, Model.model_construct(id="1")),
        (Row, {}),
        (dict[str, int], {"a": "b"}),
        (int | None, True),
        (date, WHEN),
        (Literal["a"], "b"),
        (list[Model | float], [float("nan")]),
        (list[object], [Opaque()]),
        (list[object], ["\ud800"]),
    ],
    ids=lambda thing: ascii(thing).partition(" at 0x")[0],  # the same in every process
)
def test_nothing_is_encoded_that_could_not_be_decoded(kind: object, value: object) -> None:
    """A value whose parts are not what their type says is an error for the sender."""
    encode, _ = coded(kind)
    with pytest.raises((ValueError, TypeError)):
        encode(value)


def test_subclass_passes_for_its_base() -> None:
    """An instance of a subclass is one of the class; it is read as the class."""

    class Special(Model):
        extra: int = 0

    encode, decode = coded(Model)
    assert decode(encode(Special(id=1))) == Model(id=1)
