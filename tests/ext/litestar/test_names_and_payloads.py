"""What Litestar sends and calls its channels, as PostgreSQL takes it."""

from __future__ import annotations

import asyncio
import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify import ChannelNameError
from asyncnotify._channels.names import PAYLOAD_LIMIT, check_channel, check_payload
from asyncnotify.ext.litestar._buffer import Buffer
from asyncnotify.ext.litestar._names import PREFIX_LIMIT, check_prefix, name_in_postgres
from asyncnotify.ext.litestar._payloads import data_of, text_of
from tests.support.machine import scaled

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_all_bytes_come_back(data: bytes) -> None:
    """Any bytes become a text that PostgreSQL takes, and that becomes the same bytes."""
    assert data_of(check_payload("channel", text_of(data))) == data


def test_a_text_is_sent_as_it_is() -> None:
    """UTF-8 stays readable for triggers and other programs; only what is none is coded."""
    assert text_of('{"größe": 1}'.encode()) == '{"größe": 1}'
    assert data_of("größe") == "größe".encode()
    assert text_of(b"\xff") != "\xff"


def test_a_text_that_looks_like_base64_comes_back_too() -> None:
    """What begins as coded bytes do is coded itself."""
    coded = text_of(b"\x00")
    assert data_of(text_of(coded.encode())) == coded.encode()


def test_bytes_that_fit() -> None:
    """About 5,990 bytes of no text fit in a notification, as the documentation says."""
    assert len(text_of(bytes(5_990))) <= PAYLOAD_LIMIT < len(text_of(bytes(6_000)))


def test_broken_base64_is_refused() -> None:
    """A text that says that it is base64, and is not, is an error and no message."""
    with pytest.raises(ValueError, match="padding"):
        data_of(text_of(b"\xff") + "!")


@given(ANY_TEXT, st.sampled_from(["", "ws:", "p" * PREFIX_LIMIT]))
def test_each_channel_has_a_name(channel: str, prefix: str) -> None:
    """Whatever a channel is called, PostgreSQL takes its name, which begins with the prefix."""
    name = name_in_postgres(prefix, channel)
    assert check_channel(name) == name
    assert name.startswith(prefix)


@pytest.mark.parametrize("channel", ["orders", "Orders", 'a "b"; c', "x" * 63, "é" * 31])
def test_what_fits_keeps_its_name(channel: str) -> None:
    """Case and odd characters are kept, up to 63 bytes: triggers can notify by that name."""
    assert name_in_postgres("", channel) == channel


@given(ANY_TEXT, ANY_TEXT)
def test_names_differ_as_channels_do(one: str, other: str) -> None:
    """Two channels never share a name; nor does one that is called as a hash is."""
    names = {name_in_postgres("", channel) for channel in (one, other)}
    names.add(name_in_postgres("", name_in_postgres("", one + "x" * 64)))
    assert len(names) == len({one, other}) + 1


def test_a_prefix_leaves_room_for_a_hash() -> None:
    """A prefix that would not is refused, with the limit."""
    assert check_prefix("p" * PREFIX_LIMIT)
    with pytest.raises(ChannelNameError, match=f"more than {PREFIX_LIMIT} bytes"):
        check_prefix("p" * (PREFIX_LIMIT + 1))


async def test_a_full_buffer_makes_its_writer_wait() -> None:
    """Who puts one more waits until one is taken; the order is kept."""
    buffer = Buffer[int](1)
    await buffer.put(1)
    writer = asyncio.ensure_future(buffer.put(2))
    done, _ = await asyncio.wait({writer}, timeout=0)
    assert not done
    assert [await buffer.get(), await buffer.get()] == [1, 2]
    await writer


async def test_a_closed_buffer_lets_nobody_wait() -> None:
    """All who wait go on at once, and what was in it is dropped."""
    full, empty = Buffer[int](1), Buffer[int](1)
    await full.put(1)
    waiting = [asyncio.ensure_future(full.put(2)), asyncio.ensure_future(empty.get())]
    await asyncio.wait(waiting, timeout=0)
    full.close()
    empty.close()
    async with asyncio.timeout(scaled(10)):
        assert await asyncio.gather(*waiting) == [None, None]
    assert await full.get() is None


def test_without_litestar_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with the extra of this package."""
    for name in [name for name in sys.modules if name.startswith("asyncnotify.ext.litestar")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "litestar", None)
    with pytest.raises(ImportError, match=r"pip install 'asyncnotify-pg\[litestar\]'"):
        importlib.import_module("asyncnotify.ext.litestar")
