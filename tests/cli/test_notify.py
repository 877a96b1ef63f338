"""The command ``notify``: one notification, and lines of standard input."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from asyncnotify import Listener
from asyncnotify.cli.input import portions
from tests.support.commands import TIME_LIMIT, ran, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence


async def received(
    dsn: str, count: int, *arguments: str, text: str | bytes | None = None
) -> list[str]:
    """Run a command while a listener listens; return the payloads of so many notifications."""
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        run = ran("notify", "orders", *arguments, dsn=dsn, text=text)
        assert run.returncode == 0, run
        assert run.stdout == ""
        return [(await anext(stream)).payload for _ in range(count)]


def last_line(err: str) -> str:
    """Return what is told at the end: each second before it, it is told how many so far."""
    return err.splitlines()[-1]


@pytest.mark.parametrize(("arguments", "payload"), [(["42"], "42"), ([], ""), (["--", "-5"], "-5")])
async def test_one_notification(arguments: list[str], payload: str, dsn: str) -> None:
    """With its payload, or the empty one."""
    assert await received(dsn, 1, *arguments) == [payload]


async def test_each_line_is_a_notification(dsn: str) -> None:
    """In their order, also those that are equal or empty, and a last one without an end."""
    assert await received(dsn, 5, "-", text="b\na\na\n\né") == ["b", "a", "a", "", "é"]


async def test_many_lines_are_sent_fast_and_the_rate_is_told(dsn: str) -> None:
    """All of them, in far fewer transactions than lines."""
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        lines = "".join(f"{number}\n" for number in range(20_000))
        run = ran("notify", "orders", "-", dsn=dsn, text=lines)
        pids = {(await anext(stream)).pid for _ in range(20_000)}
    assert run.returncode == 0
    assert len(pids) == 1
    assert last_line(run.stderr).startswith("sent 20,000 notifications in ")
    assert run.stderr.endswith("/s)\n")


async def test_lines_are_sent_as_they_come(dsn: str) -> None:
    """Who writes slowly need not fill a batch: each line arrives before the next is written."""
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        with running("notify", "orders", "-", dsn=dsn) as process:
            assert process.stdin is not None
            for line in ("one", "two"):
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
                assert (await anext(stream)).payload == line
            process.stdin.close()
            assert process.wait(TIME_LIMIT) == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"\xff", "line 3 is no UTF-8"),
        (b"x" * 8_000, "line 3 has 8,000 bytes; a notification holds at most 7,999"),
        (b"a\0b", "line 3 holds a NUL, which no notification can"),
    ],
)
async def test_a_line_that_cannot_be_sent_is_named(line: bytes, problem: str, dsn: str) -> None:
    """By its number, with status 2; the lines before have been sent."""
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        run = ran("notify", "orders", "-", dsn=dsn, text=b"1\n2\n" + line + b"\n4\n")
        assert [(await anext(stream)).payload for _ in range(2)] == ["1", "2"]
    assert run.returncode == 2
    assert f"error: {problem}" in run.stderr
    assert "sent 2 notifications" in run.stderr


def test_memory_is_bounded_by_the_longest_payload(dsn: str) -> None:
    """A line that never ends is refused long before it could fill the memory."""
    with running("notify", "orders", "-", dsn=dsn) as process:
        assert process.stdin is not None
        process.stdin.write("x" * 8_001)
        process.stdin.flush()
        assert process.wait(TIME_LIMIT) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_while_it_waits_for_input(
    number: signal.Signals, status: int, dsn: str
) -> None:
    """It says how many were sent."""
    with running("notify", "orders", "-", dsn=dsn) as process:
        assert process.stdin is not None
        process.stdin.write("1\n" * 3)
        process.stdin.flush()
        process.stdin.write("2\n")
        process.stdin.flush()
        with running("listen", "orders", "-n", "1", dsn=dsn) as listening:
            wait_for(listening.stderr, "listening on")
            process.stdin.write("3\n")
            process.stdin.flush()
            listening.communicate(timeout=TIME_LIMIT)
        process.send_signal(number)
        _, err = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == status
    assert last_line(err).startswith("sent 5 notifications")
    assert all(line.startswith("sent ") for line in err.splitlines())


def test_a_wrong_channel_is_refused(dsn: str) -> None:
    """With status 2, and what is wrong."""
    run = ran("notify", "x" * 64, dsn=dsn)
    assert run.returncode == 2
    assert "at most 63 are allowed" in run.stderr


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        (["a", "b"], [["a", "b"]]),
        (["a", "b", "a", "c", "c"], [["a", "b"], ["a", "c"], ["c"]]),
        ([*map(str, range(1_001))], [[*map(str, range(1_000))], ["1000"]]),
    ],
)
def test_no_portion_holds_equal_lines(lines: Sequence[str], expected: list[list[str]]) -> None:
    """PostgreSQL delivers one of equal notifications in a transaction; the order is kept."""
    assert list(portions(lines)) == expected
