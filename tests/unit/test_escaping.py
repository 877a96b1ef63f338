"""What the escaping of foreign text lets through, and what it does not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._escaping import escaped

HOSTILE = {
    "\r": "\\r",
    "\n": "\\n",
    "\t": "\\t",
    "\x1b[31m": "\\x1b[31m",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x9b31m": "\\x9b31m",  # the CSI of C1
    "\x00": "\\x00",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    "\u202e": "\\u202e",
    "\u2066": "\\u2066",
    "\ufeff": "\\ufeff",
    "\ud800": "\\ud800",
    "\U000e0041": "\\U000e0041",
}
ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(("hostile", "text"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_what_acts_on_a_terminal_is_escaped(hostile: str, text: str) -> None:
    """Control characters, separators of lines, marks of direction, invisible ones, surrogates."""
    assert escaped(f"a{hostile}b") == f"a{text}b"


@pytest.mark.parametrize(
    "text",
    ["", "plain", "C:\\new", "'quoted'", "«\xa0refusé\xa0»", "接続が切れました", "été 😀"],
)
def test_text_in_any_language_stays_as_it_is(text: str) -> None:
    """Backslashes, quotes, and the spaces of the server's French as well."""
    assert escaped(text) == text


@given(st.text(st.characters()))
def test_no_text_gets_through_that_acts(text: str) -> None:
    """Of any text only what stands for itself is left; a second pass changes nothing."""
    result = escaped(text)
    assert not ACTING.intersection(map(unicodedata.category, result))
    assert len(result.splitlines()) <= 1
    assert escaped(result) == result
    assert [c for c in text if unicodedata.category(c) not in ACTING] == [
        c for c in text if c in escaped(c)
    ]
