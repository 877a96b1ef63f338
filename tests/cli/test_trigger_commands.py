"""The commands ``trigger …``, on a real table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Listener
from asyncnotify.triggers import Table
from tests.support.commands import ran

if TYPE_CHECKING:
    import asyncpg

OPTIONS = ("orders", "--key", "id", "--payload", "status")
TABLE = Table("orders", key="id", payload="status")


@pytest.fixture
async def orders(admin: asyncpg.Connection[asyncpg.Record]) -> asyncpg.Connection[Any]:
    """A connection to a database with a table."""
    await admin.execute("CREATE TABLE orders (id int PRIMARY KEY, status text)")
    return admin


async def test_install_status_and_remove(orders: asyncpg.Connection[Any], dsn: str) -> None:
    """The triggers tell of a change; status has 0 while all is there, and 1 otherwise."""
    assert ran("trigger", "status", *OPTIONS, dsn=dsn).returncode == 1
    assert ran("trigger", "install", *OPTIONS, dsn=dsn).returncode == 0
    assert (await TABLE.status(orders)).is_fine
    status = ran("trigger", "status", *OPTIONS, "--json", dsn=dsn)
    assert status.returncode == 0
    assert json.loads(status.stdout) == {
        "state": "fine",
        "function": "fine",
        "tables": {"public.orders": "fine"},
    }
    async with Listener(dsn) as listener, listener.stream(TABLE.changes) as stream:
        await orders.execute("INSERT INTO orders VALUES (42, 'new')")
        assert (await anext(stream)).payload.keys == (42,)
    table = ran("trigger", "status", "orders", "--key", "id", dsn=dsn)
    assert (table.returncode, "outdated" in table.stdout) == (1, True)
    assert ran("trigger", "remove", "orders", dsn=dsn).returncode == 0
    assert (await TABLE.status(orders)).state == "missing"


async def test_print_is_what_install_executes(orders: asyncpg.Connection[Any]) -> None:
    """The SQL can be run as it is printed, and so can that of the way back."""
    printed = ran("trigger", "print", *OPTIONS)
    assert (printed.returncode, printed.stderr) == (0, "")
    await orders.execute(printed.stdout)
    assert (await TABLE.status(orders)).is_fine
    removal = ran("trigger", "print", *OPTIONS, "--removal")
    await orders.execute(removal.stdout)
    assert (await TABLE.status(orders)).state == "missing"


def test_every_option_reaches_the_table() -> None:
    """Printed SQL is that of the Table with the same arguments."""
    run = ran(
        *("trigger", "print", "shop.orders", "--key", "region", "--key", "id"),
        *("--watch", "status", "--watch", "total", "--when", "new.total > 0"),
        *("--channel", "sales", "--payload", "status", "--level", "row", "--operation", "insert"),
        *("--operation", "update", "--trigger", "sales", "--log", "shop"),
    )
    table = Table(
        "shop.orders",
        key=("region", "id"),
        watch=("status", "total"),
        when="new.total > 0",
        channel="sales",
        payload="status",
        level="row",
        operations=("insert", "update"),
        to="log",
        log="shop",
        trigger="sales",
    )
    assert run.returncode == 0
    for statement in table.statements():
        assert statement.strip().rstrip(";") in run.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["install", "nowhere", "--key", "id"], 4, "the database has no table"),
        (["status", "nowhere", "--key", "id"], 4, "the database has no table"),
        (["install", "orders", "--key", ""], 2, "key"),
        (["print", "orders"], 2, "--key"),
        (["print", "orders", "--key", "id", "--when", "new.s = '\udcff'"], 2, "surrogate"),
        (["remove", "orders", "--timeout", "inf"], 2, "--timeout"),
        (["remove", "orders", "--timeout", "nan"], 2, "--timeout"),
    ],
)
def test_what_is_wrong_is_told(arguments: list[str], status: int, problem: str, dsn: str) -> None:
    """With its status, and without a traceback."""
    run = ran("trigger", *arguments, dsn=dsn)
    assert (run.returncode, run.stdout) == (status, "")
    assert problem in run.stderr
    assert "Traceback" not in run.stderr


async def test_what_the_server_refuses_is_told(orders: asyncpg.Connection[Any], dsn: str) -> None:
    """A column that the table has not: status 4, in one line, with what to do."""
    run = ran("trigger", "install", "orders", "--key", "nothing", dsn=dsn)
    assert run.returncode == 4
    assert run.stderr.startswith("error: ")
    assert "nothing" in run.stderr
    assert "nothing was changed: key=, payload=, watch=" in run.stderr


def test_no_connection_is_told(unused_tcp_port: int) -> None:
    """Status 3, and no password."""
    dsn = f"postgresql://me:secret@127.0.0.1:{unused_tcp_port}/x"
    run = ran("trigger", "status", "orders", "--key", "id", dsn=dsn)
    assert run.returncode == 3
    assert "cannot connect" in run.stderr
    assert "secret" not in run.stderr
