"""Functions and triggers that notify, partitions, and logs: what is wrong with them is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify.doctor import Severity, diagnose
from asyncnotify.log import Event, Log, Retry
from asyncnotify.triggers import Table
from tests.doctor.findings import bad, of, one, text_of
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.testing.server import PostgresServer

    Connection = asyncpg.Connection[asyncpg.Record]

WAIT_LIMIT = scaled(20.0)
YESTERDAY = "UPDATE asyncnotify.audit_ticks SET taken_at = taken_at - interval '1 d'"
LONG = "x" * 64
FIXED = "SET search_path = pg_catalog, pg_temp"


async def add_function(admin: Connection, body: str, options: str = FIXED) -> None:
    """Create a trigger function named ``tell``."""
    await admin.execute(f"""
        CREATE TABLE orders (id int PRIMARY KEY, body text);
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql {options} AS
        $$ BEGIN {body}; RETURN NULL; END $$
    """)


@pytest.mark.parametrize(
    ("body", "options", "expected"),
    [
        ("PERFORM pg_notify('orders', NEW.id::text)", "", (Severity.WARNING, "without its schema")),
        ("PERFORM pg_catalog.pg_notify('a', 'b')", "", (Severity.INFO, "search_path is not fixed")),
        ("NOTIFY orders", "SECURITY DEFINER", (Severity.WARNING, "SECURITY DEFINER")),
        ("PERFORM pg_notify('a', row_to_json(NEW)::text)", FIXED, (Severity.WARNING, "whole row")),
        ("PERFORM pg_notify('a', to_jsonb( OLD )::text)", FIXED, (Severity.WARNING, "whole row")),
        (f"PERFORM pg_notify('{LONG}', 'b')", FIXED, (Severity.ERROR, "over 63 bytes")),
        (f"NOTIFY {LONG}", FIXED, (Severity.ERROR, "over 63 bytes")),
    ],
)
async def test_functions_are_faulted(
    dsn: str, admin: Connection, body: str, options: str, expected: tuple[Severity, str]
) -> None:
    """For one thing each, by their name, with the cure."""
    await add_function(admin, body, options)
    severity, told = expected
    finding = one(await diagnose(dsn), "functions", severity)
    assert told in finding.title
    assert finding.evidence == ("tell()",)
    assert finding.cure


@pytest.mark.parametrize(
    "body",
    [
        "PERFORM pg_notify('orders', NEW.id::text)",
        "PERFORM pg_catalog.pg_notify('orders', NEW.id::text)",
        f"NOTIFY {'x' * 63}",
        "-- row_to_json(NEW)\nNOTIFY orders",
        "IF octet_length(NEW::text) < 7999 THEN PERFORM pg_notify('a', NEW::text); END IF",
    ],
)
async def test_good_functions_are_not_faulted(dsn: str, admin: Connection, body: str) -> None:
    """With a fixed search_path; what is in comments does not count."""
    await add_function(admin, body)
    report = await diagnose(dsn)
    assert [f.severity for f in of(report, "functions")] == [Severity.OK]


@pytest.mark.parametrize(
    "body", ["NOTIFY orders", "PERFORM asyncnotify.audit_append('orders', NEW.id::text)"]
)
async def test_triggers_that_tell_nobody_are_named(dsn: str, admin: Connection, body: str) -> None:
    """Disabled ones, and those that fire on replicas only; and no others. Also those of a log."""
    await add_function(admin, body)
    for name in ("off", "away", "fine"):
        await admin.execute(
            f"CREATE TRIGGER {name} AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()"
        )
    await admin.execute("ALTER TABLE orders DISABLE TRIGGER off")
    await admin.execute("ALTER TABLE orders ENABLE REPLICA TRIGGER away")
    found = of(await diagnose(dsn), "triggers")
    assert [f.evidence for f in found] == [("off on orders",), ("away on orders",)]
    assert {f.severity for f in found} == {Severity.WARNING}


async def test_row_triggers_on_big_tables_are_named(dsn: str, admin: Connection) -> None:
    """By what the server knows of their size; statement-level ones are no fault."""
    await add_function(admin, "NOTIFY orders")
    for level in ("ROW", "STATEMENT"):
        await admin.execute(
            f"CREATE TRIGGER each_{level} AFTER INSERT ON orders FOR EACH {level}"
            " EXECUTE FUNCTION tell()"
        )
    assert bad(await diagnose(dsn)) == []
    await admin.execute("UPDATE pg_class SET reltuples = 2e6 WHERE relname = 'orders'")
    finding = one(await diagnose(dsn), "triggers", Severity.WARNING)
    assert finding.evidence == ("each_row on orders",)


@pytest.mark.parametrize("body", ["NOTIFY orders", "PERFORM asyncnotify.audit_append('a', '')"])
async def test_partitions_that_are_left_out_are_named(
    dsn: str, admin: Connection, body: str
) -> None:
    """A statement-level trigger of the root does not fire for a statement on a partition."""
    await admin.execute(f"""
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS
        $$ BEGIN {body}; RETURN NULL; END $$;
        CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
        CREATE TRIGGER tell AFTER INSERT ON parts EXECUTE FUNCTION tell();
        CREATE TRIGGER tell AFTER INSERT ON parts_1 EXECUTE FUNCTION tell();
    """)
    finding = one(await diagnose(dsn), "partitions", Severity.WARNING)
    assert finding.evidence == ("parts: parts_2",)
    await admin.execute("ALTER TABLE parts_1 ENABLE REPLICA TRIGGER tell")
    finding = one(await diagnose(dsn), "partitions", Severity.WARNING)
    assert finding.evidence == ("parts: parts_1, parts_2",)
    await admin.execute("DROP TRIGGER tell ON parts; DROP TRIGGER tell ON parts_1")
    await admin.execute(
        "CREATE TRIGGER tell AFTER INSERT ON parts FOR EACH ROW EXECUTE FUNCTION tell()"
    )
    assert bad(await diagnose(dsn)) == []


async def test_triggers_of_our_own_come_out_clean(dsn: str, admin: Connection) -> None:
    """Of tables and of partitioned ones."""
    await admin.execute("""
        CREATE TABLE orders (id int PRIMARY KEY, body text);
        CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    """)
    for name in ("orders", "parts"):
        await Table(name, key="id").install(admin)
    assert bad(await diagnose(dsn)) == []


async def test_a_log_in_good_order_comes_out_clean(dsn: str, admin: Connection) -> None:
    """And is not changed by the question."""
    async with Log("audit", dsn) as log:
        await log.install()
        await log.append("orders", "1")
        ticks = await admin.fetchval("SELECT count(*) FROM asyncnotify.audit_ticks")
        report = await diagnose(dsn)
        assert bad(report) == []
        assert "audit" in one(report, "log", Severity.OK).title
        assert await admin.fetchval("SELECT count(*) FROM asyncnotify.audit_ticks") == ticks


async def test_consumers_that_are_behind_are_named(dsn: str, admin: Connection) -> None:
    """With how far, and that nobody serves them; and who holds the retention up."""
    async with Log("audit", dsn) as log:
        await log.install(retention=timedelta(hours=2))
        await log.append("orders", "1")
        async with log.consumer("mailer") as consumer:
            assert consumer is not None
        await log.status()
        await admin.execute(YESTERDAY)
        report = await diagnose(dsn)
        found = {f.title: text_of(f) for f in of(report, "log")}
        assert [f.severity for f in of(report, "log")] == [Severity.WARNING] * 2
        behind, held = sorted(found)
        assert "behind" in behind
        assert "consumer mailer: 1 events" in found[behind]
        assert "served by nobody" in found[behind]
        assert "longer than its retention" in held
        assert "held by: consumer mailer" in found[held]


async def test_a_consumer_that_is_only_just_behind_holds_nothing_up(
    dsn: str, admin: Connection
) -> None:
    """Whatever else is kept for longer than the retention, as a partition is removed as a whole."""
    async with Log("audit", dsn) as log:
        await log.install()
        await log.append("orders", "1")
        async with log.consumer("mailer") as consumer:
            await anext(consumer)
            await log.append("orders", "2")
            await anext(consumer)  # which commits what was before
            await admin.execute(
                "UPDATE asyncnotify.audit_ticks SET taken_at = taken_at - interval '8 days'"
                " WHERE tick < (SELECT max(tick) FROM asyncnotify.audit_ticks)"
            )
            [status] = (await log.status()).consumers
            assert (status.holds_retention, status.lag_events) == (True, 1)
            assert bad(await diagnose(dsn)) == []


async def test_dead_letters_are_counted(dsn: str) -> None:
    """By consumer, with how to see their errors."""
    log = Log("audit", dsn)
    await log.install()
    end = asyncio.Event()

    @log.on("mailer", on_error=Retry(1))
    async def mail(event: Event[str]) -> None:
        if event.payload == "bad":
            raise ValueError
        end.set()

    async with log:
        for payload in ("bad", "good"):
            await log.append("orders", payload)
        async with asyncio.timeout(WAIT_LIMIT):
            await end.wait()
        report = await diagnose(dsn)
    finding = one(report, "log", Severity.WARNING)
    assert finding.evidence == ("consumer mailer: 1 dead letters",)
    assert "dead_letters()" in finding.cure
    assert bad(report) == [finding]


async def test_a_log_that_the_role_may_not_read_is_unknown(
    own_server: PostgresServer,
) -> None:
    """Not clean."""
    async with Log("audit", own_server.dsn) as log:
        await log.install()
    connection = await asyncpg.connect(own_server.dsn)
    await connection.execute("CREATE ROLE plain LOGIN IN ROLE pg_monitor")
    await connection.close()
    report = await diagnose(own_server.dsn_for("postgres", user="plain"))
    assert [f.check for f in bad(report)] == ["log"]
    assert "permission denied" in text_of(one(report, "log", Severity.UNKNOWN))
