"""Installing a log, and bringing it to another version."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asyncnotify.log import Log, LogError, SchemaVersionError
from asyncnotify.log._schema.installing import install, installed
from asyncnotify.log._schema.versions import CHANGES, newest_version, statements_of
from asyncnotify.log._settings import GivenSettings, Settings
from tests.log.conftest import NAMES, append

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._names import Names
    from tests.log.conftest import Connect, Connection, Reader

pytestmark = pytest.mark.needs_server("tables")

OBJECTS = """
    SELECT relname FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
    WHERE nspname = $1 AND relkind IN ('r', 'p', 'S') ORDER BY 1
"""


async def test_everything_is_in_a_schema_of_its_own(admin: Connection) -> None:
    """Alembic's autogenerate proposes to drop tables in the default one that it does not know."""
    await install(admin, "orders")
    assert await admin.fetch(OBJECTS, "public") == []
    names = [row[0] for row in await admin.fetch(OBJECTS, "asyncnotify")]
    assert {"logs", "orders_events", "orders_id", "orders_ticks"} < set(names)
    assert all(name == "logs" or name.startswith("orders_") for name in names)


async def test_it_can_be_installed_again_and_the_events_stay(
    admin: Connection, reader: Reader
) -> None:
    """A second installation changes nothing but the settings."""
    await append(admin, "before")
    assert await install(admin, "orders") == newest_version()
    await append(admin, "after")
    assert await reader.payloads() == ["before", "after"]


async def test_several_install_at_once(connect: Connect) -> None:
    """Two processes that start together make one log, and neither fails."""

    async def one() -> int:
        async with connect() as connection:
            return await install(connection, "orders")

    found = await asyncio.gather(one(), one(), one())
    assert sorted(found) == [0, newest_version(), newest_version()]


async def test_two_logs_of_a_database_are_apart(admin: Connection, reader: Reader) -> None:
    """What is appended to one is not in the other."""
    await install(admin, "mails")
    await admin.execute("SELECT asyncnotify.append('mails', 'things', 'of another log')")
    await append(admin, "ours")
    assert await reader.payloads() == ["ours"]


async def test_the_settings_are_kept_unless_others_are_given(admin: Connection, dsn: str) -> None:
    """A process that installs without settings does not reset those of another."""
    month = GivenSettings(timedelta(days=30), timedelta(days=60), 5)
    await install(admin, "orders", month)
    kept = Settings(timedelta(days=30), timedelta(days=60), 5)
    for given in (GivenSettings(), GivenSettings(ring=12)):
        await install(admin, "orders", given)
        assert await installed(admin, "orders") == (newest_version(), kept)
    await install(admin, "orders", GivenSettings(limit=timedelta(days=45)))
    kept = Settings(timedelta(days=30), timedelta(days=45), 5)
    assert await installed(admin, "orders") == (newest_version(), kept)
    with pytest.raises(LogError, match=r"keeps events for 30 days.*: limit must be at least ret"):
        await Log("orders", dsn).install(limit=timedelta(days=29))
    assert await installed(admin, "orders") == (newest_version(), kept)
    await install(admin, "orders", GivenSettings(retention=timedelta(days=1)))
    assert await installed(admin, "orders") == (
        newest_version(),
        Settings(timedelta(days=1), ring=5),
    )


async def test_statements_for_a_log_that_is_there(admin: Connection, dsn: str) -> None:
    """Its functions say in which partition an event goes: another ring has some that are none."""
    log, week = Log("orders", dsn), timedelta(days=7)
    await log.install(ring=3)
    needs = r"since=1 needs retention= and ring="
    with pytest.raises(ValueError, match=needs):
        log.statements(since=1, retention=week)
    with pytest.raises(ValueError, match=needs):
        log.statements(since=1, ring=3)
    for statement in log.statements(since=1, retention=week, ring=3):
        await admin.execute(statement)
    assert await installed(admin, "orders") == (newest_version(), Settings(week, ring=3))
    body = "SELECT prosrc FROM pg_proc WHERE proname = 'orders_append'"
    assert "% 3)" in await admin.fetchval(body)


async def test_a_newer_schema_is_refused_before_any_write(admin: Connection) -> None:
    """An old process neither installs over a newer schema nor changes anything."""
    await install(admin, "orders", changes=(*CHANGES, lambda names, settings: ()))
    with pytest.raises(SchemaVersionError) as caught:
        await install(admin, "orders")
    assert (caught.value.installed, caught.value.known) == (newest_version() + 1, newest_version())
    assert (await installed(admin, "orders"))[0] == newest_version() + 1


async def test_foreign_tables_of_the_same_name_are_refused(admin: Connection) -> None:
    """A table that is not the log's is neither taken for the log's nor changed; nothing is made."""
    await admin.execute("CREATE SCHEMA asyncnotify CREATE TABLE orders_ticks (mine int)")
    with pytest.raises(LogError, match="orders_ticks"):
        await install(admin, "orders")
    assert [row[0] for row in await admin.fetch(OBJECTS, "asyncnotify")] == ["orders_ticks"]


async def test_the_statements_do_what_install_does(admin: Connection, connect: Connect) -> None:
    """A migration that runs the statements leaves a log that install() finds up to date."""
    async with admin.transaction():
        for statement in statements_of("orders", Settings()):
            await admin.execute(statement)
    assert await install(admin, "orders") == newest_version()


def made_up_version(names: Names, settings: Settings) -> Iterator[str]:
    """Change tables as a later version might: a column with a default, and another index."""
    yield f"ALTER TABLE {names.events} ADD COLUMN trace pg_catalog.text DEFAULT 'none'"
    yield f"ALTER TABLE {names.ticks} ADD COLUMN reason pg_catalog.text"


async def test_an_upgrade_under_load_loses_nothing(reader: Reader, connect: Connect) -> None:
    """From version 1 to a made-up version 2 while two connections append: all arrive, in order."""
    done = asyncio.Event()

    async def appending(number: int) -> list[str]:
        sent: list[str] = []
        async with connect() as connection:
            while not done.is_set():
                sent.append(f"{number}:{len(sent)}")
                await append(connection, sent[-1])
        return sent

    writers = [asyncio.ensure_future(appending(number)) for number in range(2)]
    read: list[str] = []
    async with connect() as connection:
        while len(read) < 50:
            read += await reader.payloads()
        assert await install(connection, "orders", changes=(*CHANGES, made_up_version)) == 1
        before = len(read)
        while len(read) < before + 50:
            read += await reader.payloads()
    done.set()
    for sent in await asyncio.gather(*writers):
        own = sent[0].partition(":")[0]
        read += await reader.payloads()
        assert [payload for payload in read if payload.startswith(f"{own}:")] == sent


async def test_settings_of_the_session_do_not_matter(connect: Connect) -> None:
    """A search_path with hostile names, and another default isolation, change nothing."""
    async with connect() as connection:
        await connection.execute(
            "CREATE SCHEMA evil; CREATE FUNCTION evil.nextval(text) RETURNS bigint"
            " LANGUAGE sql AS 'SELECT 666'; SET search_path = evil, pg_catalog;"
            " SET default_transaction_isolation = 'serializable'"
        )
        await install(connection, "orders")
        await connection.execute("SELECT asyncnotify.append('orders', 'things', 'x')")
        assert await connection.fetchval(f"SELECT id FROM {NAMES.events}") == 1


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("SELECT asyncnotify.append('orders', '', 'x')", "1 to 63 bytes"),
        ("SELECT asyncnotify.append('orders', repeat('x', 64), 'x')", "1 to 63 bytes"),
        ("SELECT asyncnotify.append('orders', 'a', 'x', headers => '[1]')", "JSON object"),
        ("SELECT asyncnotify.append('orders', NULL, 'x')", "channel"),
        ("SELECT asyncnotify.append('orders', 'a', NULL)", "payload"),
        ("SELECT asyncnotify.orders_append_many('{a,\"\"}', '{x,x}')", "1 to 63 bytes"),
        (
            "SELECT asyncnotify.orders_append_many('{a,a}', '{x,x}', headers => '{NULL,1}')",
            "JSON object",
        ),
        ("SELECT asyncnotify.append('none', 'a', 'x')", "none_append"),
        ("SELECT asyncnotify.append('x(); DROP', 'a', 'x')", "DROP_append"),
    ],
)
async def test_plain_sql_is_refused_what_cannot_be_an_event(
    admin: Connection, installed: Names, statement: str, why: str
) -> None:
    """Callers in other languages get an error of the server, and nothing is appended."""
    with pytest.raises(asyncpg.PostgresError, match=why):
        await admin.execute(statement)
    assert await admin.fetchval(f"SELECT count(*) FROM {installed.events}") == 0


async def test_plain_sql_appends_all_there_is(admin: Connection, installed: Names) -> None:
    """The function returns the event's id, and sends the wake-up unless told not to."""
    wakes: list[str] = []

    def woken(connection: object, pid: int, channel: str, payload: object) -> None:
        wakes.append(channel)

    await admin.add_listener(installed.wake_channel, woken)
    row = (
        "SELECT asyncnotify.append('orders', 'order_changed', '{\"id\":42}',"
        " key => '42', headers => '{\"trace\": \"7\"}', wake => $1)"
    )
    made = await admin.fetchval(row, False)  # noqa: FBT003 - a parameter of SQL
    assert wakes == []
    await admin.fetchval(row, True)  # noqa: FBT003 - a parameter of SQL
    await admin.execute("SELECT 1")
    assert len(wakes) == 1
    event = await admin.fetchrow(f"SELECT * FROM {installed.events} ORDER BY id")
    assert event is not None
    assert (event["uid"], event["key"], event["headers"]) == (made, "42", '{"trace": "7"}')
