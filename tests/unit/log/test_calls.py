"""The statements that append, in the form of every driver and as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncnotify.log._calls import append_call
from asyncnotify.log._entries import entry_of
from asyncnotify.log._names import Names
from tests.unit.asyncpg.test_statements import TEXTS, WORD, outside_of_constants

NAMES = Names("orders")


@given(TEXTS, st.none() | TEXTS, st.integers(1, 3))
def test_r47_nothing_that_is_appended_leaves_its_constant(
    payload: str, key: str | None, count: int
) -> None:
    """What stands outside of the constants depends on no text, only on which are there."""
    entries = [entry_of("things", payload, key, {"a": payload})] * count
    text = outside_of_constants(append_call(NAMES, entries, wake=True).as_text())
    plain = [entry_of("things", "x", key and "x", {"a": "x"})] * count
    allowed = outside_of_constants(append_call(NAMES, plain, wake=True).as_text())
    hexadecimal = "pg_catalog.convert_from(pg_catalog.decode(::pg_catalog.text, ), )"
    assert text.replace(hexadecimal, "::pg_catalog.text") == allowed
    assert WORD.findall(text.replace("ARRAY(", "").replace("CAST(", "")) == []


def test_a_driver_gets_its_own_placeholders() -> None:
    """One for each argument, in their order."""
    call = append_call(NAMES, [entry_of("things", "x")], wake=False)
    assert call.with_placeholders(lambda n: f"${n + 1}").count("$") == len(call.arguments) == 5
    assert "false" in call.template
