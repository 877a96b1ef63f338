"""Random statements on a partitioned table: what is told, applied to a copy, is the table."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnotify import Reread
from asyncnotify.triggers import Change, Table
from tests.triggers.conftest import Told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

MAKE = """
    DROP TABLE IF EXISTS parts;
    CREATE TABLE parts (a int, b text, v text, big text DEFAULT '',
        PRIMARY KEY (a, b) {checked}) PARTITION BY RANGE (a);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (3);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (3) TO (100) PARTITION BY LIST (b);
    CREATE TABLE parts_x PARTITION OF parts_high FOR VALUES IN ('x');
    CREATE TABLE parts_rest PARTITION OF parts_high DEFAULT;
"""
NUMBERS, LETTERS = st.integers(0, 6), st.sampled_from("xyz")
TABLES = st.sampled_from(["parts", "parts", "parts_low", "parts_high", "parts_x", "parts_rest"])
VALUES = st.sampled_from(["'one'", "'two'", "NULL", "repeat('w', 3000)", "repeat('w', 9000)"])
CONDITIONS = st.one_of(
    st.just("true"),
    NUMBERS.map(lambda a: f"a = {a}"),
    NUMBERS.map(lambda a: f"a < {a}"),
    LETTERS.map(lambda b: f"b = '{b}'"),
)
ROWS = st.lists(st.tuples(NUMBERS, LETTERS, VALUES), min_size=1, max_size=4)
SETS = st.one_of(
    VALUES.map(lambda v: f"v = {v}"),
    st.sampled_from(["a = a + 1", "a = 6 - a", "b = 'x'", "big = 'untold'", "a = a, v = b"]),
    LETTERS.map(lambda b: f"b = CASE b WHEN 'x' THEN '{b}' ELSE 'x' END"),
)


def insert(table: str, rows: list[tuple[int, str, str]]) -> str:
    """Return an insert, which may be refused."""
    values = ", ".join(f"({a}, '{b}', {v})" for a, b, v in rows)
    return f"INSERT INTO {table} (a, b, v) VALUES {values}"


STATEMENTS = st.one_of(
    st.builds(insert, TABLES, ROWS),
    st.builds(
        "INSERT INTO {} (a, b, v) SELECT n, 'z', n FROM generate_series(3, {}) AS n".format,
        TABLES,
        st.integers(3, 99),
    ),
    st.builds("UPDATE {} SET {} WHERE {}".format, TABLES, SETS, CONDITIONS),
    st.builds("DELETE FROM {} WHERE {}".format, TABLES, CONDITIONS),
    TABLES.map("TRUNCATE {}".format),
)
TRANSACTIONS = st.lists(st.lists(STATEMENTS, min_size=1, max_size=4), min_size=1, max_size=6)


class Copy:
    """A copy of the table in memory, which reads the table only where it is told to."""

    def __init__(self, admin: asyncpg.Connection[Any], told: Told) -> None:
        self.rows: dict[tuple[Any, ...], str | None] = {}
        self._admin = admin
        self._told = told

    async def follow(self, statements: list[str]) -> None:
        """Execute statements in a transaction, which may be refused; apply what is told."""
        with contextlib.suppress(asyncpg.PostgresError):
            async with self._admin.transaction():
                for statement in statements:
                    with contextlib.suppress(asyncpg.PostgresError):
                        async with self._admin.transaction():
                            await self._admin.execute(statement)
        for item in await self._told.after():
            await self._apply(item)

    async def _apply(self, item: Change | Reread) -> None:
        if isinstance(item, Reread):
            self.rows = await self.table()
        elif item.operation == "truncate":
            self.rows.clear()
        elif item.operation == "delete":
            for key in item.keys:
                self.rows.pop(key, None)
        elif item.whole:
            self.rows.update({key: row["v"] for key, row in zip(item.keys, item.rows, strict=True)})
        else:
            for key in item.keys:
                await self._read(key)

    async def _read(self, key: tuple[Any, ...]) -> None:
        row = await self._admin.fetchrow("SELECT v FROM parts WHERE a = $1 AND b = $2", *key)
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row["v"]

    async def table(self) -> dict[tuple[Any, ...], str | None]:
        """Return what the table holds."""
        return {(a, b): v for a, b, v in await self._admin.fetch("SELECT a, b, v FROM parts")}


@contextlib.asynccontextmanager
async def copying(dsn: str, **options: Any) -> AsyncGenerator[Copy]:
    """Make the table with its triggers; yield an empty copy."""
    session = {"application_name": "tests", "client_min_messages": "warning"}
    admin = await asyncpg.connect(dsn, server_settings=session)
    reader = await asyncpg.connect(dsn, server_settings=session)
    try:
        # Row by row, a key that moves on to another row's key would be deleted with that
        checked = "NOT DEFERRABLE" if options["level"] == "row" else "DEFERRABLE"
        await admin.execute(MAKE.format(checked=checked))
        table = Table("parts", key=("a", "b"), payload="v", watch="v", **options)
        await table.install(admin)
        told = Told(admin, reader, table)
        await told.listen()
        yield Copy(admin, told)
    finally:
        await reader.close(timeout=5.0)
        await admin.close(timeout=5.0)


LEVELS = pytest.mark.parametrize("level", ["statement", "row"])
ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""Each example makes the table anew."""


def check_copy(dsn: str, level: str, data: st.DataObject) -> None:
    """Draw transactions, and compare the copy with the table after each."""

    async def run() -> None:
        options = {"level": level, "max_notifications": data.draw(st.integers(1, 4))}
        async with copying(dsn, **options) as copy:
            for transaction in data.draw(TRANSACTIONS):
                await copy.follow(transaction)
                assert copy.rows == await copy.table(), transaction

    asyncio.run(run())


@LEVELS
@settings(suppress_health_check=ALLOWED, max_examples=10)
@given(data=st.data())
def test_a_copy_is_the_table_at_every_fence(dsn: str, level: str, data: st.DataObject) -> None:
    """Whatever was inserted, moved, updated, deleted, truncated and rolled back, and wherever."""
    check_copy(dsn, level, data)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@LEVELS
@settings(suppress_health_check=ALLOWED, max_examples=300, derandomize=False)
@given(data=st.data())
def test_many_copies(dsn: str, level: str, data: st.DataObject) -> None:
    """The same, with many more examples."""
    check_copy(dsn, level, data)
