"""The commands ``log …``, on a real log."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncnotify.log import Log, Retry
from tests.support.commands import TIME_LIMIT, lines_of, ran, running, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from asyncnotify.log import Event

HOSTILE = "\x1b[31mred"


@pytest_asyncio.fixture
async def log(dsn: str) -> AsyncIterator[Log]:
    """A log with three events."""
    log = Log("shop", dsn)
    await log.install()
    for channel, payload, key in (("orders", "1", "a"), ("news", "2", None), ("orders", "3", "b")):
        await log.append(channel, payload, key=key)
    yield log
    await log.aclose()


def result(*arguments: str, dsn: str) -> list[dict[str, Any]]:
    """Return the lines of JSON that a command that succeeds writes."""
    run = ran("log", *arguments, dsn=dsn)
    assert (run.returncode, run.stderr) == (0, ""), run
    return lines_of(run.stdout.splitlines())


def test_install_makes_a_log_and_changes_its_settings(dsn: str) -> None:
    """It may be repeated; what is not given stays as it is."""
    assert ran("log", "install", "shop", "--retention", "2w", dsn=dsn).returncode == 0
    assert ran("log", "install", "shop", dsn=dsn).returncode == 0
    [status] = result("status", "shop", "--json", dsn=dsn)
    assert status["retention_seconds"] == 14 * 86_400
    assert status["limit_seconds"] is None
    assert (status["events"], status["consumers"]) == (0, [])


def test_read_ends_at_the_end(log: Log, dsn: str) -> None:
    """All events, or those of some channels, or of a number, or behind a place."""
    events = result("read", "shop", dsn=dsn)
    assert [event["payload"] for event in events] == ["1", "2", "3"]
    assert [event["key"] for event in events] == ["a", None, "b"]
    assert [e["payload"] for e in result("read", "shop", "orders", dsn=dsn)] == ["1", "3"]
    assert [e["payload"] for e in result("read", "shop", "-n", "1", dsn=dsn)] == ["1"]
    assert result("read", "shop", "silence", dsn=dsn) == []
    behind = ("--after", events[1]["position"])
    assert [e["payload"] for e in result("read", "shop", *behind, dsn=dsn)] == ["3"]
    now = datetime.now(UTC).isoformat()
    assert result("read", "shop", "--after", now, "--after", "now", dsn=dsn) == []


async def test_read_follows_on_request(log: Log, dsn: str) -> None:
    """With --follow it waits for new events, until a signal ends it."""
    with running("log", "read", "shop", "--follow", dsn=dsn) as process:
        wait_for(process.stdout, '"3"')
        await log.append("orders", "4")
        wait_for(process.stdout, '"4"')
        process.send_signal(signal.SIGINT)
        assert process.wait(TIME_LIMIT) == 130


async def test_consumers_and_seek(log: Log, dsn: str) -> None:
    """Where a consumer stands is shown, and can be moved."""
    async with log.consumer("mailer") as consumer:
        async for event in consumer:
            if event.payload == "3":
                break
    [before] = result("consumers", "shop", "--json", dsn=dsn)
    assert (before["name"], before["is_paused"]) == ("mailer", False)
    assert ran("log", "seek", "shop", "mailer", "start", dsn=dsn).returncode == 0
    [after] = result("consumers", "shop", "--json", dsn=dsn)
    assert after["lag_events"] == 3
    table = ran("log", "status", "shop", dsn=dsn).stdout
    assert "mailer" in table
    assert max(map(len, table.splitlines())) <= 80


async def test_a_consumer_is_paused_and_dropped(log: Log, dsn: str) -> None:
    """Until it is resumed nobody serves it; one that is dropped holds nothing any more."""
    async with log.consumer("mailer") as consumer:
        await anext(aiter(consumer))
    for command, is_paused in (("pause", True), ("pause", True), ("resume", False)):
        assert ran("log", command, "shop", "mailer", dsn=dsn).returncode == 0
        [shown] = result("consumers", "shop", "--json", dsn=dsn)
        assert shown["is_paused"] is is_paused
    assert ran("log", "drop", "shop", "mailer", dsn=dsn).returncode == 0
    assert result("status", "shop", "--json", dsn=dsn)[0]["consumers"] == []


async def test_dead_letters_are_shown_and_discarded(log: Log, dsn: str) -> None:
    """By the ids of their events; one that is not there is named, with status 1."""

    @log.on("mailer", "orders", on_error=Retry(1, then="dead_letter"))
    async def mail(event: Event[str]) -> None:
        raise ValueError(HOSTILE)

    await log.start()
    while len(await log.dead_letters()) < 2:
        pass
    letters = result("dead", "shop", "mailer", "--json", dsn=dsn)
    assert [letter["event"]["payload"] for letter in letters] == ["1", "3"]
    assert HOSTILE in letters[0]["error"].replace("\\x1b", "\x1b")
    table = ran("log", "dead", "shop", dsn=dsn).stdout
    assert "\x1b" not in table
    first, second = (letter["event"]["id"] for letter in letters)
    assert ran("log", "dead", "shop", "--discard", first, dsn=dsn).returncode == 0
    [left] = result("dead", "shop", "--json", dsn=dsn)
    assert left["event"]["id"] == second
    missing = ran("log", "dead", "shop", "--discard", first, "--discard", second, dsn=dsn)
    assert missing.returncode == 1
    assert missing.stderr == f"there is no dead letter of event {first}\n"
    assert await log.dead_letters() == []


@pytest.mark.parametrize("command", ["seek", "pause", "resume", "drop"])
def test_an_unknown_consumer(command: str, log: Log, dsn: str) -> None:
    """It is the database that lacks something: status 4."""
    place = ("start",) * (command == "seek")
    run = ran("log", command, "shop", "nobody", *place, dsn=dsn)
    assert (run.returncode, run.stderr) == (4, "error: the log has no consumer 'nobody'\n")


def test_a_table_into_a_closed_pipe(log: Log, dsn: str) -> None:
    """Status 141, or the table was written before: never a traceback."""
    with running("log", "status", "shop", dsn=dsn) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(TIME_LIMIT) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_status_as_json_is_one_line(log: Log, dsn: str) -> None:
    """For scripts."""
    run = ran("log", "status", "shop", "--json", dsn=dsn)
    assert json.loads(run.stdout)["events"] == 3
    assert run.stdout.count("\n") == 1
