"""Tables of which the server shows triggers of statements less than all: partitions and roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import pytest

from asyncnotify.log import Log
from asyncnotify.triggers import Change, Table, TriggerState

if TYPE_CHECKING:
    from tests.triggers.conftest import Connection, Telling

Level = Literal["statement", "row"]
GENERATED = """
    CREATE TABLE sales (id int, day int, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)
        PARTITION BY LIST (day);
    CREATE TABLE sales_1 PARTITION OF sales FOR VALUES IN (1);
"""
ATTACH = """
    CREATE TABLE sales_2 (gross int GENERATED ALWAYS AS (net * 2) STORED, net int, day int, id int);
    ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES IN (2);
"""
"""The columns of a partition lie otherwise than those of its parent."""

USES: dict[str, dict[str, Any]] = {
    "payload": {"key": "id", "payload": "gross"},
    "key": {"key": ("id", "gross")},
    "watch": {"key": "id", "watch": "gross"},
    "when": {"key": "id", "when": "new.gross > 100"},
}


@pytest.mark.parametrize("to", ["notify", "log"])
@pytest.mark.parametrize("use", USES)
async def test_a_stored_generated_column_of_a_partitioned_table_is_refused(
    admin: Connection, dsn: str, use: str, to: Literal["notify", "log"]
) -> None:
    """Whatever the columns of its partitions are now: one that is attached later may differ."""
    await admin.execute(GENERATED)
    async with Log("things", dsn) as log:
        await log.install()
    table = Table("sales", to=to, log="things" if to == "log" else None, **USES[use])
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="stored generated") as caught:
        await table.install(admin)
    assert caught.value.hint == 'Use level="row".'
    for statement in table.upgrade_statements():
        await admin.execute(statement)
    assert (await table.status(admin)).function is TriggerState.OUTDATED


async def test_each_level_tells_the_generated_values_that_it_takes(
    admin: Connection, telling: Telling
) -> None:
    """Those of a partitioned table by row; of statements those of deletes, and of other tables."""
    await admin.execute(GENERATED)
    by_row = await telling("sales", key="id", payload="gross", level="row", trigger="row")
    deletes = await telling(
        "sales", key="id", payload="gross", operations=("delete",), channel="deletes"
    )
    await admin.execute(ATTACH)
    expected = ({"id": 1, "gross": 200},)
    for statement, operation in (
        ("INSERT INTO sales VALUES (1, 2, 100)", "insert"),
        ("DELETE FROM sales", "delete"),
    ):
        assert await by_row.after(statement) == [Change(operation, (1,), expected)]
    assert await deletes.after() == [Change("delete", (1,), expected)]
    await admin.execute("CREATE TABLE t (id int, gross int GENERATED ALWAYS AS (id * 200) STORED)")
    told = await telling("t", key="id", payload="gross", when="new.gross > 100")
    assert await told.after("INSERT INTO t VALUES (1)") == [Change("insert", (1,), expected)]


async def test_other_columns_of_such_a_table_are_told(admin: Connection, telling: Telling) -> None:
    """Also where the columns of a partition lie otherwise: its rows and those moved into it."""
    await admin.execute(GENERATED)
    await admin.execute(ATTACH)
    told = await telling("sales", key="id", payload="net")
    assert await told.after("INSERT INTO sales VALUES (1, 1, 100)", "UPDATE sales SET day = 2") == [
        Change("insert", (1,), ({"id": 1, "net": 100},)),
        Change("update", (1,), ({"id": 1, "net": 100},)),
    ]
    assert (await told.table.status(admin)).is_fine
