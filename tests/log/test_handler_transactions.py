"""Transactions of handlers: whatever a function leaves behind, each event has one outcome."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import ExponentialBackoff
from asyncnotify.log import Event, Interrupted, Log, Retry
from tests.support.machine import scaled

if TYPE_CHECKING:
    from asyncnotify.log._names import Names
    from tests.log.conftest import Connection

pytestmark = pytest.mark.needs_server("SQL in the handler")

AT_ONCE: Final = ExponentialBackoff(initial=0.001, cap=0.001)

TABLE: Final = "CREATE TABLE effects (n int, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)"

AT_COMMIT: Final = """
    CREATE TABLE checked (code text);
    CREATE FUNCTION check_later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.code = 'the end' THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(60);  -- until the signal has arrived
        END IF;
        RAISE EXCEPTION 'not allowed' USING ERRCODE = NEW.code;
    END $$;
    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION check_later()
"""
"""What is checked at COMMIT, where any error may be raised, and the session may be ended."""

CODES: Final = ("55P03", "57014", "40P01", "53200", "42P01", "25006")
"""Of a lock, a cancelled statement, a deadlock, memory, a missing table, a standby: errors that
would have another meaning if statements of the log's own met them."""

WAYS: Final = {
    "an error that it caught": "SELECT 1 / 0",
    "a deferred constraint": "INSERT INTO effects VALUES (2), (2)",
    "a rollback": "ROLLBACK",
    "a commit": "COMMIT",
    "another transaction": "ROLLBACK; BEGIN",
    "a chain": "ROLLBACK AND CHAIN",
    "a transaction that only reads": "SET TRANSACTION READ ONLY",
    **{f"{code} at COMMIT": f"INSERT INTO checked VALUES ('{code}')" for code in CODES},
}
"""What a handler does to its transaction before it returns, as if all were well."""


@pytest.mark.parametrize("way", WAYS)
async def test_what_ends_or_breaks_the_transaction_is_an_error_of_the_handler(
    dsn: str, installed: Names, admin: Connection, way: str
) -> None:
    """It is tried as often as Retry says, then a dead letter; it is neither lost nor for ever."""
    await admin.execute(f"{TABLE}; {AT_COMMIT}")
    calls: list[str] = []
    finished = asyncio.Event()
    log = Log("orders", dsn)

    @log.on("h", transactional=True, on_error=Retry(2, backoff=AT_ONCE))
    async def handle(event: Event[str], connection: Any) -> None:
        calls.append(event.payload)
        if event.payload == "bad":
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute(WAYS[way])
        else:
            await connection.execute("INSERT INTO effects VALUES (1)")
            finished.set()

    async with log, asyncio.timeout(scaled(20)):
        await log.append("things", "bad")
        await log.append("things", "good")
        await finished.wait()
        [letter] = await log.dead_letters()
        assert (letter.event.payload, letter.attempts) == ("bad", 2)
    assert calls == ["bad", "bad", "good"]
    assert await admin.fetchval("SELECT count(*) FROM effects") == 1


async def _end_session(connection: Any) -> None:
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")


async def _close(connection: Any) -> None:
    await connection.close()


async def _end_at_commit(connection: Any) -> None:
    await connection.execute("INSERT INTO checked VALUES ('the end')")


async def _end_and_raise(connection: Any) -> None:
    await _end_session(connection)
    raise ValueError


LOSSES: Final = {
    "an error that it caught": _end_session,
    "an error that it raised": _end_and_raise,
    "a connection that it closed": _close,
    "a trigger at COMMIT": _end_at_commit,
}
"""How the session is lost in which a handler is called."""


@pytest.mark.parametrize("way", LOSSES)
async def test_an_event_with_which_each_session_is_lost_holds_up_no_other(
    dsn: str, installed: Names, admin: Connection, way: str
) -> None:
    """After five of them it is a dead letter, whatever the function has made of the loss."""
    await admin.execute(AT_COMMIT)
    calls: list[str] = []
    finished = asyncio.Event()
    log = Log("orders", dsn, poll=3600)

    @log.on("h", transactional=True, on_error=Retry(2, backoff=AT_ONCE))
    async def handle(event: Event[str], connection: Any) -> None:
        calls.append(event.payload)
        if event.payload == "bad":
            await LOSSES[way](connection)
        else:
            finished.set()

    async with log, asyncio.timeout(scaled(20)):
        await log.append_many([("things", "bad"), ("things", "good")])
        await finished.wait()
        [letter] = await log.dead_letters()
        assert (letter.event.payload, letter.attempts) == ("bad", 5)
        assert "lost 5 times" in letter.error
    assert calls == ["bad"] * 5 + ["good"]


async def test_there_is_a_wait_between_two_losses(dsn: str, installed: Names) -> None:
    """As between two attempts; a handler that is stopped does not wait for its end."""
    log, calls = Log("orders", dsn), 0

    @log.on("h", transactional=True, on_error=Retry(1, backoff=lambda: itertools.repeat(3600.0)))
    async def handle(event: Event[str], connection: Any) -> None:
        nonlocal calls
        calls += 1
        await _end_session(connection)

    async with asyncio.timeout(scaled(20)), log:
        incidents = log.incidents()
        await log.append("things", "x")
        async for incident in incidents:
            if isinstance(incident, Interrupted):
                assert incident.delay == 3600.0
                break
    assert calls == 1


@pytest.mark.parametrize("way", ["a rollback", "another transaction"])
async def test_a_dead_letter_whose_transaction_the_handler_ends_stays(
    dsn: str, installed: Names, way: str
) -> None:
    """What the handler did is undone, so the letter cannot have been dealt with."""
    asked = asyncio.Event()
    log = Log("orders", dsn)

    @log.on("h", transactional=True, on_error=Retry(1))
    async def handle(event: Event[str], connection: Any) -> None:
        if asked.is_set():
            await connection.execute(WAYS[way])
            return
        asked.set()
        raise ValueError(event.channel)

    async with log, asyncio.timeout(scaled(20)):
        await log.append("things", "x")
        while not (letters := await log.dead_letters()):
            await asked.wait()
        with pytest.raises(Exception, match="ended the transaction"):
            await log.retry(letters[0])
        assert await log.dead_letters() == letters
