from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pydantic
import pytest

from asyncnotify._channels.channel import Channel
from asyncnotify._channels.hidden import masked_secret, secret_in
from asyncnotify._errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET: Final = pydantic.SecretStr("hush")


class Salary(pydantic.Secret[float]):
    """A secret with a mask of its own."""

    def _display(self) -> str:
        return "$****.**"


class Login(pydantic.BaseModel):
    """A model with a secret."""

    name: str = "joe"
    password: pydantic.SecretStr = SECRET


class Outer(pydantic.BaseModel):
    """A model with a model with a secret."""

    logins: list[Login | None]


class Root(pydantic.RootModel[dict[str, pydantic.SecretBytes]]):
    """A model that is a dict with a secret."""


class Extra(pydantic.BaseModel):
    """A model that takes fields that it does not know."""

    model_config = pydantic.ConfigDict(extra="allow")


@pydantic.dataclasses.dataclass
class Validated:
    """A dataclass of pydantic's."""

    password: pydantic.SecretStr


@dataclass
class Plain:
    """A dataclass."""

    password: pydantic.SecretStr


@dataclass(slots=True)
class Slotted:
    """A dataclass with slots."""

    password: pydantic.SecretStr


class Struct(msgspec.Struct):
    """A struct, which refers to what msgspec does not know."""

    password: Any


class Member(enum.Enum):
    """A choice of secrets."""

    FIRST = pydantic.SecretStr("hush")


class Excluded(pydantic.BaseModel):
    """A model that does not send its secret, and something that looks like one."""

    password: pydantic.SecretStr = pydantic.Field(default=SECRET, exclude=True)
    stars: str = "*****"


class Revealed(pydantic.BaseModel):
    """A model that sends the value of its secret, on purpose."""

    password: pydantic.SecretStr = SECRET
    stars: str = "*****"

    @pydantic.field_serializer("password", when_used="json")
    def reveal(self, password: pydantic.SecretStr) -> str:
        """Return the value."""
        return password.get_secret_value()


def secret_of(payload: object) -> str:
    """Return the value of a secret, on purpose, and something that looks like a mask."""
    assert isinstance(payload, dict)
    return f"*** {payload['password'].get_secret_value()}"


def mask(payload: object) -> str:
    """Return what looks like a mask."""
    return "*"


def told_by(channel: Channel[Any], payload: object) -> str:
    """Return the error of what cannot be sent."""
    with pytest.raises(PayloadError) as caught:
        channel.encode(payload)
    assert "hush" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    return str(caught.value)


MASKED: Final[list[tuple[Any, object, str]]] = [
    (pydantic.SecretStr, SECRET, "SecretStr"),
    (pydantic.SecretBytes, pydantic.SecretBytes(b"hush"), "SecretBytes"),
    (pydantic.Secret[str], pydantic.Secret[str]("hush"), "Secret"),
    (Salary, Salary(5.0), "Salary"),
    (dict[str, Salary | str], {"a": Salary(5.0)}, "Salary"),
    (Login, Login(), "SecretStr"),
    (Login | None, Login(), "SecretStr"),
    (list[Login], [Login()], "SecretStr"),
    (tuple[Login, ...], (Login(),), "SecretStr"),
    (Outer, Outer(logins=[None, Login()]), "SecretStr"),
    (Root, Root({"a": pydantic.SecretBytes(b"hush")}), "SecretBytes"),
    (Extra, Extra.model_validate({"a": {"b": [SECRET]}}), "SecretStr"),
    (Validated, Validated(SECRET), "SecretStr"),
    (Plain, Plain(SECRET), "SecretStr"),
    (Slotted, Slotted(SECRET), "SecretStr"),
    (dict[str, Any], {"a": SECRET}, "SecretStr"),
    (Struct, Struct([SECRET]), "SecretStr"),
    (dict, {"a": SECRET}, "SecretStr"),
    (object, [[SECRET]], "SecretStr"),
]


@pytest.mark.parametrize(("kind", "payload", "name"), MASKED, ids=repr)
def test_r48_no_mask_is_sent_for_a_secret(kind: object, payload: object, name: str) -> None:
    """Wherever in a payload a secret is, it is refused by the name of its class."""
    assert f"contains a {name}" in told_by(Channel("logins", kind), payload)


def by_pydantic(payload: object) -> bytes:
    """Return JSON."""
    return pydantic.TypeAdapter(Any).dump_json(payload)


@pytest.mark.parametrize(
    "payload",
    [
        Login(),
        Slotted(SECRET),
        [Validated(SECRET)],
        OrderedDict(a=deque([SECRET])),
        {SECRET: 1},
        {"a": frozenset([SECRET])},
        [Member.FIRST],
    ],
    ids=repr,
)
@pytest.mark.parametrize("encode", [by_pydantic, str], ids=["pydantic", "str"])
def test_r48_nor_by_a_function_of_the_callers_own(
    encode: Callable[[object], str | bytes], payload: object
) -> None:
    """The same holds where the caller calls pydantic, or makes a text of a secret."""
    assert "contains a SecretStr" in told_by(Channel("logins", encode=encode), payload)


@pytest.mark.parametrize(
    ("channel", "payload", "text"),
    [
        (Channel("c", Excluded), Excluded(), '{"stars":"*****"}'),
        (Channel("c", Revealed), Revealed(), '{"password":"hush","stars":"*****"}'),
        (Channel("c", pydantic.SecretStr), pydantic.SecretStr(""), '""'),
        (Channel("c", dict[str, str]), {"a": "**********"}, '{"a":"**********"}'),
        (Channel("c", encode=secret_of), {"password": SECRET}, "*** hush"),
    ],
    ids=repr,
)
def test_what_is_no_mask_is_sent(channel: Channel[Any], payload: object, text: str) -> None:
    """A secret that is left out or sent on purpose is none of our business, nor are asterisks."""
    assert channel.encode(payload) == text


def test_a_payload_that_contains_itself_is_looked_at_once() -> None:
    """Nothing is walked through for ever."""
    payload: list[object] = []
    payload += [payload, {"a": payload}]
    assert Channel("c", encode=mask).encode(payload) == "*"


@dataclass
class Price:
    """A type of which a part need not be known."""

    value: float | None
    note: Any = None


class PriceModel(pydantic.BaseModel):
    """The same of pydantic's."""

    value: float | None = None
    note: Any = None


NUMBERS: Final[list[tuple[Any, Callable[[float], object]]]] = [
    (float | None, lambda number: number),
    (dict[str, float | None], lambda number: {"a": None, "b": number}),
    (Price, Price),
    (Price, lambda number: Price(None, {"a": (number,)})),
    (PriceModel, lambda number: PriceModel(value=number)),
    (PriceModel, lambda number: PriceModel(note=[number])),
]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("kind", "build"), NUMBERS)
def test_r48_no_null_is_sent_for_a_number(
    kind: Any,
    build: Callable[[float], object],
    number: float,
) -> None:
    """NaN and infinity are refused also where None would do; None itself is sent."""
    channel: Channel[Any] = Channel("prices", kind)
    assert f"contains {number!r}" in told_by(channel, build(number))
    assert "null" in Channel("prices", Price).encode(Price(None))


@pytest.mark.parametrize("payload", [{"note": "2 * 3"}, ["**********"], "*"])
def test_a_star_of_the_payloads_own_is_no_mask(payload: object) -> None:
    """There is no secret for which it could stand."""
    assert masked_secret(payload, json.dumps(payload)) is None
    assert secret_in(payload) is None
