from __future__ import annotations

import asyncio
import copy
import enum
import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, assert_type
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnotify._channels.channel import (
    Channel,
    RereadError,
    bare_decoder,
    encoded_up_to,
    undecodable,
)
from asyncnotify._channels.envelope import TEXT_LIMIT
from asyncnotify._errors import (
    ChannelDirectionError,
    ChannelNameError,
    PayloadDecodeError,
    PayloadError,
    PayloadTooLargeError,
)
from asyncnotify._model import Reread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY: Final = b"0123456789abcdef"


@dataclass
class Order:
    """A type that needs a library."""

    id: int
    note: str = ""


class Model(pydantic.BaseModel):
    """A type of pydantic's."""

    id: int
    note: str = ""


class Kind(str, enum.Enum):  # noqa: UP042 - many applications have such
    """Texts as some applications name them: str() of such a member is not its value."""

    SHORT = "x"
    LONG = "long" * 3_000


class Interrupted(BaseException):
    """What nobody expects."""


LAYERS: Final[list[dict[str, Any]]] = [
    {"unique": unique, "compress": compress, "keys": keys}
    for unique in (False, True)
    for compress in (False, True)
    for keys in (None, [KEY])
] + [{"unique": True, "compress": True, "keys": [KEY], "context": lambda: "of the sender"}]
each_layer = pytest.mark.parametrize(
    "layers", LAYERS, ids=lambda layers: "+".join(name for name in layers if layers[name]) or "none"
)
TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def failing_to_encode(payload: object) -> Any:
    """Return what is no text."""
    return [payload]


def failing_with(error: BaseException) -> Callable[[object], Any]:
    """Return a function that raises."""

    def fail(_: object) -> object:
        raise error

    return fail


# -- what a channel is ----------------------------------------------------------------------------


def test_a_channel_is_its_name() -> None:
    """Its name is what the server knows it by, and what is printed; it cannot be changed."""
    channel = Channel("or ders", dict)
    assert channel.name == str(channel) == "or ders"
    with pytest.raises(AttributeError):
        channel.name = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        channel.other = 1  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def test_each_channel_is_another() -> None:
    """Two of the same name are not equal: they may be coded differently."""
    channels = {Channel("orders"), Channel("orders"), Channel("orders", dict)}
    assert len(channels) == 3


@pytest.mark.parametrize("name", ["", "a" * 64, "a\0b", None, b"orders"], ids=repr)
def test_r40_a_channel_with_a_wrong_name_cannot_be_made(name: str) -> None:
    """The name is checked where the channel is written down, not where it is used."""
    with pytest.raises(ChannelNameError):
        Channel(name)


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        (Channel("orders"), "<Channel 'orders': str>"),
        (Channel("orders", Order), "<Channel 'orders': Order>"),
        (Channel("orders", dict[str, int]), "<Channel 'orders': dict[str, int]>"),
        (Channel("orders", None), "<Channel 'orders': None>"),
        (Channel("o", encode=str, decode=int, unique=True), "<Channel 'o': own coding, unique>"),
        (Channel("o", encode=str), "<Channel 'o': own coding without decode>"),
        (Channel("o", decode=int, keys=[KEY]), "<Channel 'o': own coding without encode, signed>"),
        (
            Channel("orders", int, unique=True, compress=True, keys=[b"secret of 16 bytes"]),
            "<Channel 'orders': int, unique, compressed, signed>",
        ),
    ],
    ids=repr,
)
def test_repr_tells_the_type_and_the_layers_but_no_key(channel: Channel[Any], text: str) -> None:
    """It is seen that a channel is signed, and not with what."""
    assert repr(channel) == text


def test_keys_are_in_no_attribute() -> None:
    """Nothing that prints a channel's attributes prints a key, and a copy is as good."""
    channel = Channel("orders", keys=[b"secret of 16 bytes"])
    values = [getattr(channel, name) for name in Channel.__slots__]
    assert "secret" not in repr(values)
    assert copy.copy(channel).decode(channel.encode("x")) == "x"


def test_types_follow_from_the_arguments() -> None:
    """A type checker knows what a channel carries; of a union it has to be told."""
    assert_type(Channel("x"), Channel[str])
    assert_type(Channel("x", compress=True), Channel[str])
    assert_type(Channel("x", Order), Channel[Order])
    assert_type(Channel("x", Model, unique=True), Channel[Model])
    assert_type(Channel("x", dict[str, int]), Channel[dict[str, int]])
    assert_type(Channel("x", list[Order]), Channel[list[Order]])
    assert_type(Channel("x", None), Channel[None])
    assert_type(Channel("x", encode=str, decode=UUID), Channel[UUID])
    union: Channel[Order | Model] = Channel("x", Order | Model)
    assert_type(union.decode('{"id":1}'), Order | Model)
    anything: Channel[Any] = Channel("x", Any)
    assert anything.decode("1") == 1
    with pytest.raises(PayloadError):
        Channel("x", Order).encode(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def generator(text: str) -> Iterator[str]:
    """Run nothing when called."""
    yield text


def of_two(text: str, other: str) -> str:
    """Take one argument too many."""
    return text + other


@pytest.mark.parametrize("channel", [Channel("orders"), Channel("orders", int)])
def test_r48_what_is_not_text_is_not_decoded(channel: Channel[Any]) -> None:
    """It is refused also where the payload is the text."""
    with pytest.raises(PayloadDecodeError, match="is of type bytes, not str"):
        channel.decode(b"1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encode": str, "kind": int}, "replace the type"),
        ({"decode": int, "kind": int}, "replace the type"),
        ({"encode": 1, "decode": int}, "encode must be callable"),
        ({"encode": asyncio.sleep, "decode": int}, "encode must be a plain function"),
        ({"encode": str, "decode": generator}, "decode contains a `yield`"),
        ({"encode": lambda: "", "decode": int}, "encode is called with 1 argument"),
        ({"encode": str, "decode": of_two}, "decode is called with 1 argument"),
        ({"unique": 1}, "unique must be True or False"),
        ({"compress": None}, "compress must be True or False"),
        ({"encode": str, "decode": int, "kind": int}, "replace the type"),
        ({"kind": int, "keys": KEY}, "not one key"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    """A channel that could not work is an error where it is made."""
    with pytest.raises(TypeError, match=message):
        Channel("orders", **arguments)


@pytest.mark.parametrize("keys", [[], [b"short"]])
def test_too_few_or_too_short_keys_are_refused(keys: list[bytes]) -> None:
    """An empty list of keys does not mean that nothing is signed."""
    with pytest.raises(ValueError, match="key"):
        Channel("orders", keys=keys)


# -- one way only ---------------------------------------------------------------------------------


@each_layer
def test_r48_a_channel_of_one_function_goes_one_way(layers: dict[str, Any]) -> None:
    """What has no function is refused by an error with the name of the channel and the function."""
    sending = Channel("orders", encode=str, **layers)
    receiving = Channel("orders", decode=int, **layers)
    text = sending.encode(7)
    assert receiving.decode(text) == 7
    for call, missing in (
        (lambda: receiving.encode(7), "encode"),
        (lambda: sending.decode(text), "decode"),
        (lambda: bare_decoder(sending), "decode"),
    ):
        with pytest.raises(ChannelDirectionError, match=f"'orders'.* without {missing}=") as caught:
            call()
        assert (caught.value.channel, caught.value.missing) == ("orders", missing)
        assert isinstance(caught.value, TypeError)


# -- the decoder ----------------------------------------------------------------------------------


def test_plain_text_has_no_decoder() -> None:
    """Nothing is called for payloads that are taken as they are."""
    assert bare_decoder(Channel("orders")) is None
    assert bare_decoder(Channel("orders", unique=True)) is not None


def test_the_decoder_is_the_librarys_own() -> None:
    """Without layers nothing stands between a payload and msgspec."""
    decoder = bare_decoder(Channel("orders", Order))
    assert isinstance(getattr(decoder, "__self__", None), msgspec.json.Decoder)


def test_what_the_decoder_raises_becomes_the_error_that_decode_raises() -> None:
    """Who calls the bare decoder makes the same error of what it raises, without raising it."""
    channel = Channel("orders", Order)
    decoder = bare_decoder(channel)
    assert decoder is not None
    with pytest.raises(msgspec.ValidationError) as bare:
        decoder('{"id":"secret"}')
    failure = undecodable("orders", bare.value)
    with pytest.raises(PayloadDecodeError) as caught:
        channel.decode('{"id":"secret"}')
    assert failure.__cause__ is bare.value
    assert failure.args == caught.value.args
    assert type(caught.value.__cause__) is msgspec.ValidationError


# -- round trips ----------------------------------------------------------------------------------


@each_layer
@given(text=TEXTS)
def test_every_text_comes_back_through_all_layers(layers: dict[str, Any], text: str) -> None:
    """Whatever is sent on a channel of text is read unchanged, whatever it is wrapped in."""
    channel = Channel("orders", **layers)
    assert channel.decode(channel.encode(text)) == text


@each_layer
@given(id_=st.integers(-(2**63), 2**63 - 1), note=TEXTS)
def test_every_value_comes_back_through_all_layers(
    layers: dict[str, Any], id_: int, note: str
) -> None:
    """The same holds for a type."""
    channel = Channel("orders", Order, **layers)
    assert channel.decode(channel.encode(Order(id_, note))) == Order(id_, note)


def test_own_functions_are_used() -> None:
    """Any pair of functions makes a channel."""
    channel = Channel("orders", encode=UUID.__str__, decode=UUID, unique=True, keys=[KEY])
    assert channel.decode(channel.encode(UUID(int=7))) == UUID(int=7)
    assert Channel("orders", encode=str, decode=int).encode(7) == "7"


@each_layer
def test_a_text_that_no_notify_has_to_hold_comes_back_through_all_layers(
    layers: dict[str, Any],
) -> None:
    """Up to the limit that is given, which counts for what the layers make of it."""
    channel = Channel("orders", list[int], **layers)
    numbers = list(range(3_000))  # over 8,000 bytes as JSON
    assert channel.decode(encoded_up_to(channel, numbers, 100_000)) == numbers
    with pytest.raises(PayloadTooLargeError):
        encoded_up_to(channel, numbers, 1_000)


@pytest.mark.parametrize("layers", [{"unique": True}, {"compress": True}], ids=str)
def test_plain_notify_is_read(layers: dict[str, Any]) -> None:
    """What psql or a trigger sends, without an envelope, is taken by a channel that makes some."""
    assert Channel("orders", Order, **layers).decode('{"id":1}') == Order(1)
    assert Channel("orders", **layers).decode("") == ""


def test_layers_cost_what_is_documented() -> None:
    """Ten bytes for the token, 43 for the signature, nothing for compression that is of no use."""
    text = "some text"
    assert len(Channel("orders", unique=True).encode(text)) == len(text) + 10
    assert len(Channel("orders", keys=[KEY]).encode(text)) == len(text) + 43
    assert Channel("orders", compress=True).encode(text) == text
    everything = Channel("orders", unique=True, compress=True, keys=[KEY])
    assert len(everything.encode(text)) == len(text) + 53


@each_layer
def test_a_kind_of_str_is_sent_by_its_text(layers: dict[str, Any]) -> None:
    """A member of a str enumeration is the text of its value, short or long."""
    members = Kind if layers["compress"] else [Kind.SHORT]
    channel = Channel("orders", **layers)
    assert [channel.decode(channel.encode(member)) for member in members] == [
        member.value for member in members
    ]


# -- what cannot be sent --------------------------------------------------------------------------


@each_layer
@pytest.mark.parametrize("payload", ["secret\0", "secret\ud800", b"secret", None, 7], ids=ascii)
def test_r40_what_is_no_text_is_refused(layers: dict[str, Any], payload: str) -> None:
    """With and without layers the same is refused: none of them hides a NUL."""
    with pytest.raises(PayloadError) as caught:
        Channel("orders", **layers).encode(payload)
    assert "secret" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("payload", [{"id": 1}, Model(id=1), 1, None], ids=repr)
def test_another_type_is_refused_by_name(payload: Order) -> None:
    """The error tells which type came and which was wanted."""
    with pytest.raises(PayloadError, match=rf"is of type {type(payload).__name__}, not Order"):
        Channel("orders", Order).encode(payload)


@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), asyncio.CancelledError("secret"), Interrupted("secret")],
    ids=repr,
)
def test_what_an_encoder_raises_is_the_cause(error: BaseException) -> None:
    """The error names the type of what was raised; what that says is left to the cause."""
    channel: Channel[object] = Channel("orders", encode=failing_with(error), decode=int)
    with pytest.raises(PayloadError, match=f"cannot be encoded: {type(error).__name__}$") as caught:
        channel.encode(7)
    assert caught.value.__cause__ is error
    assert "secret" not in f"{caught.value} {caught.value!r}"


def test_an_encoder_that_makes_no_text_is_refused() -> None:
    """A list is no payload, with a signature or without."""
    for keys in (None, [KEY]):
        channel: Channel[Any] = Channel("orders", encode=failing_to_encode, keys=keys)
        with pytest.raises(PayloadError, match="is of type list, not str or bytes"):
            channel.encode("x")


@pytest.mark.parametrize(
    ("layers", "cost"), [({}, 0), ({"unique": True}, 10), ({"keys": [KEY]}, 43)], ids=repr
)
def test_r40_the_limit_holds_for_what_is_sent(layers: dict[str, Any], cost: int) -> None:
    """7,999 bytes with everything around it; one more is an error with the size and the limit."""
    channel = Channel("orders", **layers)
    assert len(channel.encode("x" * (7_999 - cost))) == 7_999
    with pytest.raises(PayloadTooLargeError) as caught:
        channel.encode("é" * 4_000)
    assert caught.value.limit == 7_999
    assert caught.value.size in {8_000, 8_000 + cost}
    with pytest.raises(PayloadTooLargeError) as caught:
        channel.encode("x" * (TEXT_LIMIT + 1))
    assert caught.value.limit == 7_999


def test_r40_compression_makes_room_up_to_a_limit() -> None:
    """Compressed a long text fits; longer than the limit none is taken, however well it would."""
    channel = Channel("orders", compress=True)
    assert channel.decode(channel.encode("x" * TEXT_LIMIT)) == "x" * TEXT_LIMIT
    with pytest.raises(PayloadTooLargeError) as caught:
        channel.encode("x" * (TEXT_LIMIT + 1))
    assert (caught.value.size, caught.value.limit) == (TEXT_LIMIT + 1, TEXT_LIMIT)
    noise = random.Random(1).choices(string.printable, k=20_000)
    with pytest.raises(PayloadTooLargeError) as caught:
        channel.encode("".join(noise))
    assert caught.value.limit == 7_999 < caught.value.size


# -- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["encode", "decode"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes(function: str, error: type[BaseException]) -> None:
    """Ctrl-C inside a coding is no wrong payload."""
    fail = failing_with(error())
    channel: Channel[Any] = Channel("orders", encode=fail, decode=fail)
    with pytest.raises(error):
        getattr(channel, function)("x")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        RecursionError("secret"),
        MemoryError("secret"),
        StopIteration("secret"),
        asyncio.CancelledError("secret"),
        GeneratorExit("secret"),
        Interrupted("secret"),
        PayloadDecodeError("other", "secret"),
    ],
    ids=repr,
)
def test_whatever_a_decoder_raises_is_a_decode_error(error: BaseException) -> None:
    """One type to catch, with the cause and without its text."""
    channel: Channel[Any] = Channel("orders", encode=str, decode=failing_with(error))
    with pytest.raises(PayloadDecodeError) as caught:
        channel.decode("secret")
    assert caught.value.__cause__ is error
    assert (caught.value.channel, caught.value.reason) == (
        "orders",
        f"cannot be decoded: {type(error).__name__}",
    )
    assert "secret" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("channel", "payload", "reason"),
    [
        (Channel("c", dict), '["secret"]', "is of type list, not dict"),
        (Channel("c", int), "true", "is of type bool, not int"),
        (Channel("c", object), "[NaN]", "contains NaN or Infinity, which JSON does not have"),
        (Channel("c", dict), "secret", "cannot be decoded: JSONDecodeError"),
        (Channel("c", Order), '{"id":"secret"}', "cannot be decoded: ValidationError"),
        (Channel("c", Model), '{"id":"secret"}', "cannot be decoded: ValidationError"),
        (Channel("c", keys=[KEY]), "secret", "has no valid signature"),
        (Channel("c", unique=True), "\x01secret", "has an unknown envelope"),
        (Channel("c", compress=True), "\x01zsecret", "has a damaged envelope"),
    ],
    ids=repr,
)
def test_the_reason_says_what_is_wrong_and_nothing_of_the_payload(
    channel: Channel[Any], payload: str, reason: str
) -> None:
    """It can be logged."""
    with pytest.raises(PayloadDecodeError) as caught:
        channel.decode(payload)
    assert caught.value.reason == reason
    assert "secret" not in f"{caught.value} {caught.value!r}"


HOSTILE_CHANNELS: Final[list[tuple[Channel[Any], Any, Any]]] = [
    (Channel("c", dict), {"id": 1, "note": "é\\"}, dict),
    (Channel("c", list), [1, 2.5, "x"], list),
    (Channel("c", int), 12_345, int),
    (Channel("c", float), 1.5e10, float),
    (Channel("c", None), None, type(None)),
    (Channel("c", object), {"a": [None, True]}, object),
    (Channel("c", Order), Order(1, "é"), Order),
    (Channel("c", list[Model]), [Model(id=1)], list),
    (Channel("c", Model), Model(id=1, note="é"), Model),
    (Channel("c", UUID), UUID(int=7), UUID),
    (Channel("c", encode=str, decode=int), 7, int),
    (Channel("c", unique=True), "text", str),
    (Channel("c", compress=True), "text" * 30, str),
    (Channel("c", dict, unique=True, compress=True), {"a": "b" * 99}, dict),
    (Channel("c", Order, unique=True, keys=[KEY]), Order(1), Order),
    (Channel("c", Model, unique=True, compress=True, keys=[KEY]), Model(id=1), Model),
]
NASTIES: Final = [
    "",
    "\ufeff{}",
    "[" * 7_999,
    '{"a":' * 1_500,
    "9" * 7_999,
    "-",
    "1e9999",
    "NaN",
    '{"id":Infinity}',
    r'"\ud800"',
    r'{"id":1,"note":"\udfff"}',
    "\ud800",
    "\x01",
    "\x01zeJw",
    "\x01u",
    "\0",
    '{"id":1' + " " * 7_000,
    "A" * 43,
    "é" * 43,
]
LETTERS: Final = '{}[]":,\\ud8e+-.019NaINnulltrue\x01\0éA= '


def mutant(text: str, rng: random.Random) -> str:
    """Return a text with a piece changed, or something else altogether."""
    start = rng.randrange(len(text) + 1)
    piece = "".join(rng.choices(LETTERS, k=rng.randrange(4)))
    match rng.randrange(8):
        case 0:
            return "".join(rng.choices(LETTERS, k=rng.randrange(20)))
        case 1:
            return "\x01" + rng.choice("uzp") + text[start:]
        case _:
            return text[:start] + piece + text[start + rng.randrange(3) :]


def test_r44_hostile_payloads_are_read_or_refused() -> None:
    """Every coding gives a value of its type or the one error, whatever comes; none is signed."""
    rng = random.Random(2026)
    count = settings().max_examples * 50  # the thorough profile makes more than 100,000 in all
    refused = 0
    for channel, value, kind in HOSTILE_CHANNELS:
        own = channel.encode(value)
        payloads = NASTIES + [mutant(own, rng) for _ in range(count)]
        for payload in payloads:
            try:
                read = channel.decode(payload)
            except PayloadDecodeError as error:
                refused += 1
                assert error.channel == "c"  # noqa: PT017 - of one of many
            else:
                assert isinstance(read, kind)
                assert payload == own or "signed" not in repr(channel)
    assert refused > count * len(HOSTILE_CHANNELS) / 2


def test_a_text_that_says_read_again_has_no_payload_to_return() -> None:
    """Decoded by hand it is an error of its own kind, with the count; it survives copying."""
    channel: Channel[str] = Channel("orders", decode=lambda _: Reread(3))
    with pytest.raises(PayloadDecodeError, match='says "read again"') as caught:
        channel.decode("secret")
    assert isinstance(caught.value, RereadError)
    for error in (caught.value, copy.copy(caught.value)):
        assert (error.channel, error.count, error.__cause__) == ("orders", 3, None)
        assert "secret" not in f"{error} {error!r}"
