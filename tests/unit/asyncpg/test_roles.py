"""Whether a server is of the kind that is wanted, by what it reports or answers."""

from __future__ import annotations

import asyncpg
import pytest

from asyncnotify._asyncpg.roles import check_role, condition
from tests.unit.fake_connection import FakeConnection

PRIMARY = {"in_hot_standby": "off", "default_transaction_read_only": "off"}
READ_ONLY_PRIMARY = {**PRIMARY, "default_transaction_read_only": "on"}
STANDBY = {"in_hot_standby": "on", "default_transaction_read_only": "off"}
READ_ONLY_STANDBY = {"in_hot_standby": "on", "default_transaction_read_only": "on"}


@pytest.mark.parametrize(
    ("wanted", "reported", "fits"),
    [
        ("any", STANDBY, True),
        ("primary", PRIMARY, True),
        ("primary", READ_ONLY_PRIMARY, True),
        ("primary", STANDBY, False),
        ("standby", STANDBY, True),
        ("standby", PRIMARY, False),
        ("standby", READ_ONLY_PRIMARY, False),
        ("read-write", PRIMARY, True),
        ("read-write", READ_ONLY_PRIMARY, False),
        ("read-write", STANDBY, False),
        ("read-only", PRIMARY, False),
        ("read-only", READ_ONLY_PRIMARY, True),
        ("read-only", STANDBY, True),
        ("read-only", READ_ONLY_STANDBY, True),
    ],
)
async def test_r13_a_server_that_reports_what_it_is_is_not_asked(
    wanted: str, reported: dict[str, str], *, fits: bool
) -> None:
    """As libpq decides; the error says what is wrong."""
    connection = FakeConnection()
    connection.reported = reported
    if fits:
        await check_role(connection, wanted)
    else:
        with pytest.raises(asyncpg.TargetServerAttributeNotMatched, match=wanted):
            await check_role(connection, wanted)
    assert connection.statements == []


@pytest.mark.parametrize(("answer", "fits"), [("SELECT 1", True), ("SELECT 0", False)])
async def test_r47_one_that_does_not_is_asked_without_a_prepared_statement(
    answer: str, *, fits: bool
) -> None:
    """A pooler, or a server before 14: by a text, and not as a transaction that may wait."""
    connection = FakeConnection()
    connection.reported = {}
    connection.answer = answer
    if fits:
        await check_role(connection, "primary")
    else:
        with pytest.raises(asyncpg.TargetServerAttributeNotMatched, match="a standby"):
            await check_role(connection, "primary")
    (statement,) = connection.statements
    assert statement.startswith("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; ")
    assert statement.endswith(condition("primary") or "nothing")
