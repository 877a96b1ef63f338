from __future__ import annotations

import base64
import random
import tracemalloc
import zlib
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._channels.coders import RefusedError
from asyncnotify._channels.envelope import (
    MARK,
    TEXT_LIMIT,
    Layer,
    carrying,
    parted,
    signing,
    wrapping,
)
from asyncnotify._errors import PayloadError

KEY: Final = b"0123456789abcdef"
OTHER: Final = b"fedcba9876543210"
WRAPPINGS: Final = {
    "unique": wrapping(unique=True, compress=False),
    "compress": wrapping(unique=False, compress=True),
    "both": wrapping(unique=True, compress=True),
}
SIGNING: Final = signing("orders", [KEY])
CHARACTERS: Final = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x01uzp")
TEXTS: Final = st.text(CHARACTERS) | st.text(CHARACTERS, max_size=5).map(lambda text: text * 50)

each_wrapping = pytest.mark.parametrize("layer", WRAPPINGS.values(), ids=WRAPPINGS.keys())


def compressed(data: bytes) -> str:
    """Return an envelope as somebody else might make it."""
    return MARK + "z" + base64.b64encode(zlib.compress(data)).decode().rstrip("=")


# -- the envelope ---------------------------------------------------------------------------------


@each_wrapping
@given(text=TEXTS)
def test_every_text_comes_back_from_its_envelope(layer: Layer, text: str) -> None:
    """Whatever the text, also one that looks like an envelope, is read as it was written."""
    assert layer.open(layer.seal(text)) == text


@pytest.mark.parametrize("text", [MARK, MARK + "u12345678", MARK + "zeJw", MARK + "p", MARK * 40])
def test_text_that_looks_like_an_envelope_costs_two_bytes(text: str) -> None:
    """A text that begins with the mark is escaped by two characters, and read unchanged."""
    sealed = WRAPPINGS["compress"].seal(text)
    assert sealed in {MARK + "p" + text, compressed((MARK + "p" + text).encode())}
    assert len(sealed) <= len(text) + 2


@pytest.mark.parametrize(("writer", "reader"), [*product(WRAPPINGS, WRAPPINGS)])
def test_an_envelope_says_itself_what_it_is(writer: str, reader: str) -> None:
    """A reader needs not the same layers as the writer, as long as it has one of them."""
    for text in ("", "short", "long" * 100):
        assert WRAPPINGS[reader].open(WRAPPINGS[writer].seal(text)) == text


@each_wrapping
@pytest.mark.parametrize("text", ["", "as psql sends it", '{"a":1}', "\x02", "u", "é" * 3_999])
def test_a_plain_sender_is_read(layer: Layer, text: str) -> None:
    """What has no envelope is taken as it is."""
    assert layer.open(text) == text


@given(text=TEXTS)
def test_compression_never_makes_longer(text: str) -> None:
    """Only what becomes shorter is compressed; everything else is sent as it is."""
    sealed = WRAPPINGS["compress"].seal(text)
    escape = 2 if text.startswith(MARK) else 0
    assert len(sealed.encode()) <= len(text.encode()) + escape


def test_compression_helps() -> None:
    """A text that repeats itself becomes much shorter, and is ASCII."""
    sealed = WRAPPINGS["compress"].seal('{"größe":1}' * 1_000)
    assert len(sealed) < 200
    assert sealed.isascii()


def test_a_token_makes_equal_texts_differ_and_costs_ten_bytes() -> None:
    """No two of a thousand equal texts are sent as equal ones."""
    sealed = [WRAPPINGS["unique"].seal("same") for _ in range(1_000)]
    assert len(set(sealed)) == 1_000
    assert {len(text.encode()) for text in sealed} == {14}
    assert len({WRAPPINGS["both"].seal("same" * 50) for _ in range(100)}) == 100


@each_wrapping
@pytest.mark.parametrize(
    "text",
    [
        MARK,
        MARK + "x123",
        MARK + "u1234567",
        MARK + "z",
        MARK + "z====",
        MARK + "z\n",
        MARK + "zé",
        MARK + "z" + "A" * 100,
        compressed(b"x" * 100)[:-9],
        compressed(b"x" * 100) + "AAAA",
        compressed(b"x" * 100).replace("z", "z!!!!"),
        MARK + "z" + base64.b64encode(zlib.compress(b"x") + b"more").decode().rstrip("="),
        compressed(MARK.encode()),
        compressed(compressed(b"x" * 100).encode()),
    ],
    ids=ascii,
)
def test_a_garbled_envelope_is_refused(layer: Layer, text: str) -> None:
    """What begins like an envelope and is none is refused, with a reason of our own."""
    with pytest.raises(RefusedError, match=r"has (an unknown|a damaged) envelope"):
        layer.open(text)


def test_compressed_bytes_that_are_no_text_are_refused() -> None:
    """Compressed data that is not UTF-8 is a ValueError, like all else that is no text."""
    with pytest.raises(UnicodeDecodeError):
        WRAPPINGS["compress"].open(compressed(b"\xff" * 100))


@pytest.mark.parametrize("letter", ["x", "é"])
def test_the_longest_text_fits_exactly(letter: str) -> None:
    """A text of the limit comes back; ten bytes are left for what stands before it."""
    text = letter * (TEXT_LIMIT // len(letter.encode()))
    for layer in WRAPPINGS.values():
        assert layer.open(layer.seal(text)) == text
    with pytest.raises(RefusedError, match=f"over {TEXT_LIMIT} bytes"):
        WRAPPINGS["compress"].open(compressed(text.encode() + b"x" * 11))


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    """10 MB in a few kilobytes cost no more memory than the longest text that is allowed."""
    bomb = compressed(bytes(10_000_000))
    tracemalloc.start()
    with pytest.raises(RefusedError, match="is compressed, and unpacks to over"):
        WRAPPINGS["compress"].open(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * TEXT_LIMIT


# -- the signature --------------------------------------------------------------------------------


@given(text=TEXTS)
def test_every_text_comes_back_from_under_its_signature(text: str) -> None:
    """The signature takes 43 characters in front of the text, which is left alone."""
    sealed = SIGNING.seal(text)
    assert sealed[43:] == text
    assert sealed[:43].isascii()
    assert SIGNING.open(sealed) == text


@given(text=st.text(CHARACTERS, max_size=30), seed=st.integers(0, 2**32))
def test_any_change_to_a_signed_text_is_refused(text: str, seed: int) -> None:
    """Each character, changed, left out or doubled, is noticed; and so is one more at the end."""
    sealed, rng = SIGNING.seal(text), random.Random(seed)
    tampered = {sealed + "A", sealed + "="}
    for i, letter in enumerate(sealed):
        other = rng.choice("ABab01-_=é\x01\ud800".replace(letter, ""))
        tampered |= {f"{sealed[:i]}{part}{sealed[i + 1 :]}" for part in (other, "", letter * 2)}
    for wrong in tampered - {sealed}:
        with pytest.raises((RefusedError, UnicodeEncodeError)):
            SIGNING.open(wrong)


def test_the_last_character_of_a_signature_has_one_spelling() -> None:
    """Two bits of the 43rd character stand for nothing; they must be right nonetheless."""
    sealed = SIGNING.seal("text")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for letter in set(alphabet) - {sealed[42]}:
        with pytest.raises(RefusedError, match="has no valid signature"):
            SIGNING.open(f"{sealed[:42]}{letter}{sealed[43:]}")


@pytest.mark.parametrize("text", ["", "plain", "x" * 43, "é" * 43, "=" * 100])
def test_what_is_not_signed_is_refused(text: str) -> None:
    """A plain text is refused, whatever its length."""
    with pytest.raises(RefusedError, match="has no valid signature"):
        SIGNING.open(text)


def test_a_signature_is_for_one_channel() -> None:
    """What was signed for a channel is refused on another, also where both texts join alike."""
    assert signing("orders", [KEY]).open(SIGNING.seal("text")) == "text"
    for channel in ("order", "orders2", "Orders"):
        with pytest.raises(RefusedError):
            signing(channel, [KEY]).open(SIGNING.seal("text"))
    sealed = signing("ab", [KEY]).seal("c")
    with pytest.raises(RefusedError):
        signing("a", [KEY]).open(sealed[:43] + "bc")


def test_keys_are_rotated() -> None:
    """The first key signs, all verify: a new one is first added behind, then moved to the front."""
    old, both = signing("orders", [KEY]), signing("orders", [KEY, OTHER])
    new, turned = signing("orders", [OTHER]), signing("orders", [OTHER, KEY])
    assert both.seal("text") == old.seal("text")
    assert turned.seal("text") == new.seal("text")
    for reader, writer in product((both, turned), (old, new)):
        assert reader.open(writer.seal("text")) == "text"
    with pytest.raises(RefusedError):
        new.open(old.seal("text"))


def test_a_signature_is_what_is_documented() -> None:
    """OpenSSL makes the same signature: HMAC-SHA256 over channel, NUL and text, in base64url."""
    expected = "CJpDx-VwSzKK68yrwk3lKgjXE6q3xlq8wCH-95NiazI"
    assert SIGNING.seal("text") == expected + "text"


@pytest.mark.parametrize(
    ("keys", "kind", "message"),
    [
        ([], ValueError, "keys is empty"),
        ([KEY, b"secret of 15 by"], ValueError, "a key is 15 bytes; at least 16 are needed"),
        (KEY, TypeError, "keys is a list of keys, not one key"),
        ("secret of 16 byt", TypeError, "keys is a list of keys, not one key"),
        (["secret of 16 byt"], TypeError, "a key is of type str, not bytes"),
        ([bytearray(KEY)], TypeError, "a key is of type bytearray, not bytes"),
    ],
    ids=ascii,
)
def test_a_wrong_key_is_refused_without_being_shown(
    keys: list[bytes], kind: type[Exception], message: str
) -> None:
    """Keys are bytes of 16 or more, at least one; the error says so, and holds nothing of them."""
    with pytest.raises(kind, match=message) as caught:
        signing("orders", keys)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("context", [None, "", "00-ab-cd-01", "x" * 200])
@pytest.mark.parametrize("text", ["", "hello", f"{MARK}tx{MARK}y", f"{MARK}pz", MARK])
def test_a_context_comes_first_and_the_text_stays_what_it_was(
    text: str, context: str | None
) -> None:
    """Whatever the text begins with; a text without a context is sent as it is."""
    layer = carrying("orders", lambda: context)
    sealed = layer.seal(text)
    assert parted(sealed) == (context or "", text)
    assert layer.open(sealed) == text
    if not context and not text.startswith(f"{MARK}t"):
        assert sealed == text


@pytest.mark.parametrize("context", [5, "x" * 201, f"a{MARK}b", b"x"])
def test_a_context_that_cannot_be_sent_is_refused(context: Any) -> None:
    """By an error of the channel, as a payload would be."""
    with pytest.raises(PayloadError, match="orders"):
        carrying("orders", lambda: context).seal("hello")


def test_what_context_raises_is_the_cause() -> None:
    """Of a PayloadError."""
    with pytest.raises(PayloadError) as caught:
        carrying("orders", lambda: str(1 / 0)).seal("hello")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_context_without_an_end_is_refused() -> None:
    """Any sender can send it."""
    with pytest.raises(RefusedError):
        parted(f"{MARK}t{'x' * 300}{MARK}")
