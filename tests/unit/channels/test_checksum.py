from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._channels.checksum import Checksum

CHANNELS = st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=20)


def test_the_checksum_is_a_count_and_a_sum_of_md5_digits() -> None:
    """The first eight hexadecimal digits of each digest, which the server can compute as well."""
    digits = [hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:8] for name in "ab"]
    assert Checksum.of(["a", "b"]) == Checksum(2, sum(int(text, 16) for text in digits))


def test_no_channels_have_the_checksum_of_an_empty_sum() -> None:
    """As SQL_FUNCTIONS, whose sum over no rows is coalesced to 0."""
    assert Checksum.of(()) == Checksum(0, 0)


@given(CHANNELS)
def test_the_order_of_the_channels_does_not_matter(channels: set[str]) -> None:
    """The server lists them in an order of its own."""
    assert Checksum.of(sorted(channels)) == Checksum.of(sorted(channels, reverse=True))


@given(CHANNELS, CHANNELS)
def test_checksums_add_up(some: set[str], others: set[str]) -> None:
    """The sum of two is that of all channels of both."""
    apart = others - some
    assert Checksum.of(some) + Checksum.of(apart) == Checksum.of(some | apart)


@given(CHANNELS, CHANNELS)
def test_other_channels_have_another_checksum(some: set[str], others: set[str]) -> None:
    """Also where as many are listened on: one that is missing for another one is noticed."""
    assert (Checksum.of(some) == Checksum.of(others)) == (some == others)


def test_the_sql_expression_holds_both_numbers() -> None:
    """As a row of two bigints, which is compared with that of SQL_FUNCTIONS."""
    assert Checksum(3, 12_345).sql == "ROW(3::pg_catalog.int8, 12345::pg_catalog.int8)"


def test_a_million_channels_fit_in_a_bigint() -> None:
    """The greatest sum that a million digests can have."""
    assert 1_000_000 * (16**8 - 1) < 2**63
