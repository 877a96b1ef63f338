"""The SQL text of notifications: what can stand in it, whatever is sent."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncnotify._asyncpg.statements import notify_all_as_text, notify_as_text, unused_name

TEXTS: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
CONSTANT: Final = re.compile(r"'([ -&(-\[\]-~]*)'")  # printable ASCII, no quote, no backslash
WORD: Final = re.compile(r"(?<![\w.])(?!pair\b)[a-z_]+(?=\()|::(?!pg_catalog\.)")


def outside_of_constants(statement: str) -> str:
    """Return the statement with every constant left out."""
    return CONSTANT.sub("", statement)


def test_r47_plain_texts_are_sent_as_they_are() -> None:
    """Who looks at the server's activity can read them."""
    assert notify_as_text("orders", '{"id": 42}') == (
        "SELECT pg_catalog.pg_notify('orders'::pg_catalog.text, '{\"id\": 42}'::pg_catalog.text)"
    )


@pytest.mark.parametrize("text", ["it's", "a\\'", "é", "\n", "\x7f", "日本", "\u2019", "\x1b"])
def test_r47_texts_that_a_setting_could_change_are_hexadecimal(text: str) -> None:
    """Quotes, backslashes, control characters, and whatever is not ASCII."""
    statement = notify_as_text("orders", text)
    assert f"'{text.encode().hex()}'" in statement
    assert text not in statement


FORMS: Final = {
    *(outside_of_constants(notify_as_text(c, p)) for c in ("a", "é") for p in ("a", "é")),
    *(outside_of_constants(notify_all_as_text([c, c], ["a", "b"])) for c in ("a", "é")),
    outside_of_constants(notify_all_as_text(["a", "b"], ["a", "b"])),
}


@given(channel=TEXTS, payload=TEXTS)
@settings(max_examples=50)
@example(channel="'", payload="\\")
@example(channel="a'); DROP TABLE orders; --", payload="\\'); DROP TABLE orders; --")
def test_r47_nothing_that_is_sent_leaves_its_constant(channel: str, payload: str) -> None:
    """What stands outside of the constants is one of seven forms, whatever the texts are."""
    assert outside_of_constants(notify_as_text(channel, payload)) in FORMS
    assert outside_of_constants(notify_all_as_text([channel] * 2, [payload] * 2)) in FORMS
    assert outside_of_constants(notify_all_as_text([channel, ""], [payload, ""])) in FORMS


@pytest.mark.parametrize(
    "statement",
    [
        notify_as_text("a", "é"),
        notify_all_as_text(["a", "a"], ["1", "2"]),
        notify_all_as_text(["a", "é"], ["1", "2"]),
    ],
)
def test_r47_every_function_and_type_is_of_pg_catalog(statement: str) -> None:
    """A search_path of somebody else's does not matter."""
    assert WORD.findall(outside_of_constants(statement)) == []


def test_r47_a_batch_is_one_statement_of_one_form() -> None:
    """However many they are: pg_stat_statements keeps one entry for each form."""
    many = notify_all_as_text([str(n) for n in range(1_000)], ["payload"] * 1_000)
    few = notify_all_as_text(["a", "b"], ["1", "2"])
    assert outside_of_constants(many) == outside_of_constants(few)


def test_r47_names_of_prepared_statements_never_repeat() -> None:
    """Nor are they those that a driver makes, which count from one in each program."""
    names = {unused_name() for _ in range(1_000)}
    assert len(names) == 1_000
    assert all(name.startswith("asyncnotify_") for name in names)
