from __future__ import annotations

import pytest

from asyncnotify._asyncpg.encodings import _CODECS, size_in


@pytest.mark.parametrize(
    ("encoding", "text", "size"),
    [
        ("EUC_JP", "orders", 6),
        ("EUC_JP", "\u00e9" * 31, 93),
        ("euc_jp", "\u65e5\u672c", 4),
        ("LATIN1", "\u00e9" * 31, 31),
        ("UTF8", "\u00e9" * 31, 62),
        ("MULE_INTERNAL", "\u00e9" * 31, 62),
        ("LATIN1", "\u65e5", None),
    ],
)
def test_bytes_are_counted_in_the_encoding_of_the_database(
    encoding: str, text: str, size: int | None
) -> None:
    """As the server counts them; None for a text that the encoding cannot hold."""
    assert size_in(encoding, text) == size


@pytest.mark.parametrize("encoding", _CODECS)
def test_every_codec_is_one_of_python_s(encoding: str) -> None:
    """None of the table is misspelt."""
    assert size_in(encoding, "orders") == "orders".encode(_CODECS[encoding]).__len__()
