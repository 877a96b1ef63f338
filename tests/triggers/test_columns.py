"""Values, names, watched columns and conditions."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from asyncnotify import Gap, GapReason, Listener, Notification
from asyncnotify.log import Log
from asyncnotify.triggers import Change, Table, TriggerState

if TYPE_CHECKING:
    from tests.triggers.conftest import Connection, Telling

ID = UUID("0b5f4f60-3c1e-4d3b-9d58-0f5fc3a4c1aa")
EAST = timezone(timedelta(hours=5, minutes=30))
TYPES: dict[str, list[tuple[str, Any]]] = {
    "uuid": [(f"'{ID}'", ID)],
    "timestamptz": [
        ("'2026-02-03 04:05:06.7+05:30'", datetime(2026, 2, 3, 4, 5, 6, 700_000, tzinfo=EAST)),
        ("'infinity'", "infinity"),
    ],
    "timestamp": [("'2026-02-03 04:05:06'", datetime(2026, 2, 3, 4, 5, 6))],  # noqa: DTZ001 - it has no zone
    "date": [("'2026-02-03'", date(2026, 2, 3)), ("'0044-03-15 BC'", "0044-03-15 BC")],
    "time": [("'04:05:06.5'", time(4, 5, 6, 500_000))],
    "bytea": [(r"'\x00ff5c'", b"\x00\xff\\"), ("''", b"")],
    "numeric": [("1.50", Decimal("1.50")), ("3", Decimal(3)), ("'NaN'", "nan")],
    "float8": [("0.1", 0.1), ("'-Infinity'", -math.inf), ("1", 1.0)],
    "int8": [("9223372036854775807", 2**63 - 1)],
    "bool": [("true", True)],
    "text": [("'ü \"quoted\" \\ '", 'ü "quoted" \\ ')],
    "jsonb": [("""'{"a": [0.5, 1, null, "x"]}'""", {"a": [0.5, 1, None, "x"]})],
    "int4[]": [("'{1,2}'", [1, 2])],
    "mood": [("'sad'", "sad")],
    "inet": [("'10.0.0.1'", "10.0.0.1")],
}


async def test_values_have_pythons_types(admin: Connection, telling: Telling) -> None:
    """As asyncpg has them, also in domains over these types; what Python cannot hold is a text."""
    await admin.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
    samples = [(kind, *sample) for kind, all_of in TYPES.items() for sample in all_of]
    columns, values = [], []
    for number, (kind, text, _) in enumerate(samples):
        await admin.execute(f"CREATE DOMAIN d{number} AS {kind}")
        columns += [f"c{number} {kind}", f"e{number} d{number}"]
        values += [text, text]
    await admin.execute(f"CREATE TABLE t ({', '.join(columns)}, nothing uuid)")
    names = [column.split()[0] for column in columns]
    told = await telling("t", key=names[0], payload=[*names, "nothing"])
    (change,) = await told.after(f"INSERT INTO t VALUES ({', '.join(values)})")
    row = dict(change.rows[0])
    assert row.pop("nothing") is None
    for number, (kind, text, expected) in enumerate(samples):
        for found in (row[f"c{number}"], row[f"e{number}"]):
            if expected == "nan":
                assert found.is_nan()
            else:
                assert (found, type(found)) == (expected, type(expected)), (kind, text)


SETTINGS = (
    "bytea_output = escape",
    "DateStyle = German",
    "DateStyle = SQL, DMY",
    "TimeZone = 7",
    "IntervalStyle = iso_8601",
    "extra_float_digits = -15",
    "quote_all_identifiers = on",
)
"""What changes how a session writes values."""


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("settings", SETTINGS)
async def test_settings_of_a_session_change_no_value(
    admin: Connection, telling: Telling, settings: str, level: str
) -> None:
    """A key is the same whoever writes its row, and that of a float is not rounded."""
    values = {
        "bytea": r"decode('005c27ff61', 'hex')",
        "timestamptz": "to_timestamp(1e9)",
        "date": "date '2026-02-03'",
        "float8": "1.0::float8 / 3",
        "float4": "1.0::float4 / 3",
        "float8[]": "ARRAY[1.0::float8 / 3]",
        "interval": "interval '1 mon -2 days 03:04:05'",
        "timestamptz[]": "ARRAY[to_timestamp(1e9)]",
        "tstzrange": "tstzrange(to_timestamp(1e9), to_timestamp(1e10))",
        "daterange": "daterange('2026-02-03', '2026-03-02')",
        "regclass": "'t'::regclass",
    }
    columns = [f"c{number}" for number in range(len(values))]
    made = ", ".join(f"{name} {kind}" for name, kind in zip(columns, values, strict=True))
    await admin.execute(f"CREATE TABLE t ({made})")
    told = await telling("t", key=columns, level=level)
    insert = f"INSERT INTO t SELECT {', '.join(values.values())}"
    (expected,) = await told.after(insert)
    moment = datetime.fromtimestamp(1e9, tz=UTC)
    assert expected.keys[0][:4] == (b"\x00\\'\xffa", moment, date(2026, 2, 3), 1 / 3)
    await admin.execute(f"SET {settings}; SET standard_conforming_strings = off")
    assert (await told.after(insert))[0].keys == expected.keys


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("bigint", ""),
        ("mood", ""),
        ("text[]", ""),
        ("date", ""),
        ("bytea", "bytea_output"),
        ("timestamptz[]", "TimeZone"),
        ("moments", "TimeZone"),
        ("real", "extra_float_digits"),
        ("interval", "IntervalStyle"),
        ("int4range", "DateStyle IntervalStyle TimeZone bytea_output extra_float_digits"),
        ("pair", "DateStyle IntervalStyle TimeZone bytea_output extra_float_digits"),
        ("money", "lc_monetary"),
        ("regtype", "quote_all_identifiers"),
        (
            "priced[]",
            "DateStyle IntervalStyle TimeZone bytea_output extra_float_digits lc_monetary",
        ),
    ],
)
async def test_a_function_has_the_settings_that_its_columns_need(
    admin: Connection, dsn: str, kind: str, names: str
) -> None:
    """Each takes time in every call. For a column of another type they are made by upgrade()."""
    await Log("l", dsn).install()
    await admin.execute("CREATE TYPE mood AS ENUM ('glad'); CREATE TYPE pair AS (a int, b float8)")
    await admin.execute("CREATE DOMAIN moments AS timestamptz[]; CREATE TYPE priced AS (p money)")
    await admin.execute(f'CREATE TABLE t (id int PRIMARY KEY, "V" {kind}, at date, x float8)')
    for told in ({"payload": "V"}, {"payload": "V", "level": "row"}, {"to": "log", "log": "l"}):
        options: dict[str, Any] = {"key": ("id", "V"), **told}
        table = Table("t", **options)
        await table.install(admin)
        assert await settings_of(admin, table) == names.split()
        assert (await table.status(admin)).is_fine
        await table.remove(admin)
    table = Table("t", key="id", payload="at")
    await table.install(admin)
    assert await settings_of(admin, table) == []
    await admin.execute("ALTER TABLE t ALTER at TYPE timestamptz")
    assert (await table.status(admin)).function is TriggerState.OUTDATED
    await table.upgrade(admin)
    assert await settings_of(admin, table) == ["TimeZone"]
    assert (await table.status(admin)).is_fine
    with_condition = Table("t", key="id", when="new.at > '2026-02-03'", trigger="other")
    await with_condition.install(admin)
    common = "DateStyle IntervalStyle TimeZone bytea_output extra_float_digits"
    assert await settings_of(admin, with_condition) == common.split()


async def settings_of(admin: Connection, table: Table) -> list[str]:
    """Return the names of the settings of a Table's function, but search_path, in order."""
    function = table.definition.qualified_function
    query = "SELECT proconfig FROM pg_proc WHERE oid = $1::text::regprocedure"
    first, *others = await admin.fetchval(query, function)
    assert first == "search_path=pg_catalog, pg_temp"
    return sorted(setting.partition("=")[0] for setting in others)


class Mood(Enum):
    """An enumeration of the user's."""

    GLAD = "glad"


def hexadecimal(found: UUID) -> str:
    """Make another value of a UUID."""
    return found.hex


async def test_types_of_the_users(admin: Connection, dsn: str) -> None:
    """types= makes values of a column's value; a stream gives changes, and gaps in their place."""
    await admin.execute("CREATE TABLE t (id uuid PRIMARY KEY, mood text, v numeric)")
    types: dict[str, Any] = {"mood": Mood, "id": hexadecimal}
    table = Table("t", key="id", payload=("mood", "v"), types=types, max_notifications=1)
    await table.install(admin)
    async with Listener(dsn) as listener, listener.stream(table.changes, gaps=True) as stream:
        assert await anext(stream) == Gap("t", GapReason.START)
        await admin.execute(f"INSERT INTO t VALUES ('{ID}', 'glad', 1.5)")
        told = await anext(stream)
        expected = {"id": ID.hex, "mood": Mood.GLAD, "v": Decimal("1.5")}
        assert isinstance(told, Notification)
        assert told.payload == Change("insert", (ID.hex,), (expected,))
        rows = "SELECT gen_random_uuid(), 'glad' FROM generate_series(1, 1000)"
        await admin.execute(f"INSERT INTO t {rows}")
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.dropped) == (GapReason.REREAD, 1000)
        await admin.execute(f"INSERT INTO t VALUES ('{UUID(int=0)}', 'unknown')")
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.UNDECODABLE


ODD = ['we"ird', "UPPER", "x" * 63, "with.dot", "per%cent", "co:lon", "sp ace", "quo'te", "bä\\ck"]


@pytest.mark.parametrize("odd", ODD)
async def test_odd_names(admin: Connection, telling: Telling, odd: str) -> None:
    """Schema, table and columns may be called anything; so may the channel."""
    name = '"' + odd.replace('"', '""') + '"'
    await admin.execute(f"CREATE SCHEMA {name}")
    columns = f'{name} int PRIMARY KEY, {name[:-2]}y" text'
    await admin.execute(f"CREATE TABLE {name}.{name} ({columns})")
    told = await telling(
        f"{name}.{name}", key=odd, watch=odd[:-1] + "y", payload=odd[:-1] + "y", channel=odd
    )
    assert (await told.table.status(admin)).is_fine
    (change,) = await told.after(f"INSERT INTO {name}.{name} VALUES (1, 'x')")
    assert (change.keys, change.rows[0][odd[:-1] + "y"]) == ((1,), "x")
    assert await told.keys_after(f"UPDATE {name}.{name} SET {name} = 2") == [
        ("delete", [1]),
        ("insert", [2]),
    ]
    await told.table.remove(admin)


async def test_two_tables_that_begin_alike(admin: Connection, telling: Telling) -> None:
    """Names of 63 bytes, of which only the last differs, have functions of their own."""
    one, two = "x" * 62 + "1", "x" * 62 + "2"
    await admin.execute(f"CREATE TABLE {one} (id int); CREATE TABLE {two} (id int)")
    first = await telling(one, key="id")
    second = await telling(two, key="id")
    assert await first.keys_after(f"INSERT INTO {two} VALUES (1)") == []
    assert await second.keys_after() == [("insert", [1])]


async def test_composite_keys(admin: Connection, telling: Telling) -> None:
    """Each key is a tuple, in the order of key=, and a change of one part is another key."""
    await admin.execute("CREATE TABLE t (a int, b uuid, v int, PRIMARY KEY (a, b))")
    told = await telling("t", key=("b", "a"))
    assert await told.keys_after(f"INSERT INTO t VALUES (1, '{ID}')") == [("insert", [(ID, 1)])]
    assert await told.keys_after("UPDATE t SET a = 2") == [
        ("delete", [(ID, 1)]),
        ("insert", [(ID, 2)]),
    ]
    assert await told.keys_after("UPDATE t SET v = 2") == [("update", [(ID, 2)])]


async def test_generated_and_identity_columns(admin: Connection, telling: Telling) -> None:
    """Their values are told as the statement has made them."""
    await admin.execute("""
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int,
            twice int GENERATED ALWAYS AS (v * 2) STORED)
    """)
    told = await telling("t", key="id", payload="twice", watch="twice")
    (change,) = await told.after("INSERT INTO t (v) VALUES (3), (4)")
    assert change.rows == ({"id": 1, "twice": 6}, {"id": 2, "twice": 8})
    assert await told.keys_after("UPDATE t SET v = 5 WHERE id = 2") == [("update", [2])]


LEVELS = pytest.mark.parametrize("level", ["statement", "row"])


@LEVELS
async def test_watched_columns(admin: Connection, telling: Telling, level: str) -> None:
    """An update that leaves them is not told, of types without an equality operator as well."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, a json, p point, other int)")
    told = await telling("t", key="id", watch=("a", "p"), level=level)
    await told.after("INSERT INTO t VALUES (1, '[1]', '(1,2)'), (2, NULL, NULL)")
    assert await told.keys_after("UPDATE t SET other = 1, a = a") == []
    assert await told.keys_after("UPDATE t SET p = '(1,3)' WHERE id = 1") == [("update", [1])]
    assert await told.keys_after("UPDATE t SET a = '[1]'") == [("update", [2])]
    assert await told.keys_after("UPDATE t SET a = NULL WHERE id = 2") == [("update", [2])]
    assert await told.keys_after("UPDATE t SET id = 3 WHERE id = 1") == [
        ("delete", [1]),
        ("insert", [3]),
    ]


@LEVELS
async def test_conditions(admin: Connection, telling: Telling, level: str) -> None:
    """Both names stand for the only row of an insert or a delete; NULL is not met."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, total int)")
    when = "new.total > 0 OR old.total > 0 -- a comment"
    told = await telling("t", key="id", when=when, level=level)
    rows = await told.keys_after("INSERT INTO t VALUES (1, 1), (2, 0), (3, NULL)")
    assert rows == [("insert", [1])]
    assert await told.keys_after("UPDATE t SET total = 0 WHERE id = 1") == [("update", [1])]
    assert await told.keys_after("UPDATE t SET total = 0") == []
    assert await told.keys_after("UPDATE t SET total = 5 WHERE id IN (2, 3)") != []
    assert await told.keys_after("UPDATE t SET id = 4 WHERE id = 1") == []
    gone = [key for _, keys in await told.keys_after("DELETE FROM t") for key in keys]
    assert sorted(gone) == [2, 3]


@LEVELS
@pytest.mark.parametrize(
    "when",
    [
        "(to_jsonb(old) - 'seen') IS DISTINCT FROM (to_jsonb(new) - 'seen')",
        "(old.id, old.v) IS DISTINCT FROM (new.id, new.v) AND to_jsonb(old) ? 'seen'",
        "old IS DISTINCT FROM new AND old.v IS DISTINCT FROM new.v",
        "old.* IS DISTINCT FROM new.* AND old.v IS DISTINCT FROM new.v",
        "(SELECT count(*) = 3 FROM json_object_keys(to_json(old))) AND old.v <> new.v",
    ],
)
async def test_conditions_on_whole_rows(
    admin: Connection, telling: Telling, level: str, when: str
) -> None:
    """Both rows have the columns of the table and no other, however many rows are updated."""
    await admin.execute("""
        CREATE TABLE t (id int PRIMARY KEY, gone int, v int, seen int);
        ALTER TABLE t DROP gone;
        INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);
    """)
    told = await telling("t", key="id", when=when, level=level)
    assert await told.keys_after("UPDATE t SET seen = 1 WHERE id = 1") == []
    assert await told.keys_after("UPDATE t SET seen = 2") == []
    assert await told.keys_after("UPDATE t SET v = 4 WHERE id = 1") == [("update", [1])]
    changed = await told.keys_after("UPDATE t SET v = 4 WHERE id < 3")
    assert changed == [("update", [2])]
    changed = await told.keys_after("UPDATE t SET v = v + 1")
    assert sorted(key for _, keys in changed for key in keys) == [1, 2, 3]


@LEVELS
async def test_names_in_a_condition(admin: Connection, telling: Telling, level: str) -> None:
    """Names of columns in a query of a condition's mean these, whatever the function has."""
    names = "number, operation, payload, payloads, must_read, total, was, data, types, items, item"
    columns = ", ".join(f"{name.strip()} int" for name in names.split(","))
    await admin.execute(f"""
        CREATE TABLE t (id int PRIMARY KEY, v int);
        CREATE TABLE others ({columns});
        INSERT INTO others VALUES (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    """)
    when = f"EXISTS (SELECT FROM public.others WHERE ({names}) = ({', '.join(['new.v'] * 11)}))"
    told = await telling("t", key="id", when=when, level=level)
    assert await told.keys_after("INSERT INTO t VALUES (1, 1), (2, 2)") == [("insert", [1])]
    assert await told.keys_after("UPDATE t SET v = 1 WHERE id = 2") == [("update", [2])]


async def test_chosen_operations(admin: Connection, telling: Telling) -> None:
    """Others have no trigger, and are not told."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = await telling("t", key="id", operations=["update", "truncate"])
    statements = "INSERT INTO t VALUES (1), (2)", "UPDATE t SET v = 1", "DELETE FROM t"
    assert await told.keys_after(*statements, "TRUNCATE t") == [
        ("update", [1, 2]),
        ("truncate", []),
    ]
    assert await admin.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 2


async def test_two_definitions_for_a_table(admin: Connection, telling: Telling) -> None:
    """With another trigger=, each has its channel, and is removed alone."""
    await admin.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    one = await telling("t", key="id", operations=["insert"])
    two = await telling("t", key="id", channel="second", payload="v", trigger="audit")
    assert await one.keys_after("INSERT INTO t VALUES (1)") == [("insert", [1])]
    assert await two.keys_after() == [("insert", [1])]
    await one.table.remove(admin)
    assert (await two.table.status(admin)).is_fine
    assert await two.keys_after("INSERT INTO t VALUES (2)") == [("insert", [2])]
    assert await one.keys_after() == []


async def test_keys_equal_in_a_collation_are_other_keys(
    admin: Connection, telling: Telling
) -> None:
    """Who listens compares what was sent: 'a' that becomes 'A' is deleted, and 'A' inserted."""
    await admin.execute("CREATE TABLE t (id numeric PRIMARY KEY)")
    await admin.execute("INSERT INTO t VALUES (1.0)")
    told = await telling("t", key="id")
    assert [change.operation for change in await told.after("UPDATE t SET id = 1.00")] == [
        "delete",
        "insert",
    ]
