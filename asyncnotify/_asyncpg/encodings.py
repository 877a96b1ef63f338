"""How many bytes a text has in the encoding of a database, where PostgreSQL counts them."""

from __future__ import annotations

from typing import Final

_CODECS: Final = {
    "EUC_CN": "gb2312",
    "EUC_JP": "euc_jp",
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_KR": "euc_kr",
    "ISO_8859_5": "iso8859_5",
    "ISO_8859_6": "iso8859_6",
    "ISO_8859_7": "iso8859_7",
    "ISO_8859_8": "iso8859_8",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    "WIN866": "cp866",
    "WIN874": "cp874",
    **{f"LATIN{n}": f"latin{n}" for n in range(1, 11)},
    **{f"WIN{n}": f"cp{n}" for n in range(1250, 1259)},
}
"""Python's codecs for the server encodings of more or less than UTF-8's length, as documented in
PostgreSQL's table of character sets; it has none for EUC_TW and MULE_INTERNAL."""


def size_in(server_encoding: str, text: str) -> int | None:
    """Return the bytes of a text in a server's encoding; None if that cannot be told."""
    if text.isascii():
        return len(text)
    codec = _CODECS.get(server_encoding.upper())
    try:
        return len(text.encode("utf-8" if codec is None else codec))
    except UnicodeEncodeError:
        return None  # the server will say so
