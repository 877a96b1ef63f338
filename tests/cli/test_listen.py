"""The command ``listen``: in pipes, on a terminal, with signals, and while the server restarts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import Notification
from asyncnotify.cli.execution import Command
from asyncnotify.log import Log
from tests.support.commands import (
    TIME_LIMIT,
    command_line,
    environment,
    lines_of,
    on_terminal,
    ran,
    running,
    shown_until,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncnotify.testing.server import PostgresServer


@pytest.fixture(autouse=True)
def hears_of_its_terminal() -> Iterator[None]:
    """Let commands get SIGHUP: under nohup, which these tests may be, programs ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


HOSTILE = "\x1b]0;title\x07 \x9b31m \u202e evil\r\nsecond line"


async def notify(dsn: str, *pairs: tuple[str, str]) -> int:
    """Notify by plain SQL; return the backend pid."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    for channel, payload in pairs:
        await connection.execute("SELECT pg_notify($1, $2)", channel, payload)
    pid: int = connection.get_server_pid()
    await connection.close(timeout=5.0)
    return pid


async def test_a_pipe_gets_a_line_of_json_for_each_notification(dsn: str) -> None:
    """With channel, payload and backend pid; words are on standard error."""
    with running("listen", "orders", "news", "-n", "2", dsn=dsn) as process:
        wait_for(process.stderr, "listening on orders, news")
        pid = await notify(dsn, ("other", "-"), ("news", "é"), ("orders", ""))
        out, _ = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0
    assert lines_of(out.splitlines()) == [
        {"channel": "news", "payload": "é", "pid": pid},
        {"channel": "orders", "payload": "", "pid": pid},
    ]


async def test_what_is_not_printable_is_escaped_in_json(dsn: str) -> None:
    """A line of JSON holds no byte that a terminal acts upon, and reads as what was sent."""
    with running("listen", "c\x1bh", "-n", "1", "--json", dsn=dsn) as process:
        said = wait_for(process.stderr, "listening on")
        await notify(dsn, ("c\x1bh", HOSTILE))
        out, _ = process.communicate(timeout=TIME_LIMIT)
    assert out[:-1].isprintable()
    assert said[:-1].isprintable()
    assert json.loads(out)["payload"] == HOSTILE
    assert json.loads(out)["channel"] == "c\x1bh"


async def test_a_terminal_gets_colours_and_nothing_raw(dsn: str) -> None:
    """In a line for each notification; what came from the server cannot act on the terminal."""
    with on_terminal("listen", "orders", "-n", "1", dsn=dsn) as (process, terminal):
        shown_until(terminal, "listening on")
        await notify(dsn, ("orders", HOSTILE))
        shown = shown_until(terminal, "no such word")
        assert process.wait(TIME_LIMIT) == 0
    assert "\x1b[1;36morders" in shown
    assert "\\x1b]0;title\\x07 \\x9b31m \\u202e evil\\r\\nsecond line" in shown
    assert not {"\x07", "\x9b", "\u202e"} & set(shown)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_it_cleanly(number: signal.Signals, status: int, dsn: str) -> None:
    """With the status that shells expect, without a word; the session ends (see ``dsn``)."""
    with running("listen", "orders", dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, out, err) == (status, "", "")


def test_a_signal_ends_it_though_its_reader_is_stuck(own_server: PostgresServer) -> None:
    """A pipe that is full holds up neither the end nor the connection."""
    with running("listen", "orders", dsn=own_server.dsn) as process:
        wait_for(process.stderr, "listening on")
        lines = "".join(f"{number} {'x' * 1_000}\n" for number in range(1_000))
        assert ran("notify", "orders", "-", dsn=own_server.dsn, text=lines).returncode == 0
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["payload"].startswith("0 ")
        process.terminate()
        assert process.wait(TIME_LIMIT) == 143


def test_it_ends_when_the_reader_of_its_pipe_has_left(dsn: str) -> None:
    """At once, also while nothing arrives: with status 141, and no traceback."""
    with running("listen", "orders", dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(TIME_LIMIT) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


async def test_it_survives_a_restart_and_says_gap(own_server: PostgresServer) -> None:
    """What is lost, that it listens again and the Gap are told; later notifications arrive."""
    dsn = own_server.dsn
    with running("listen", "orders", "-n", "2", dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        await notify(dsn, ("orders", "before"))
        wait_for(process.stdout, "before")
        own_server.restart()
        said = wait_for(process.stderr, "gap (reconnect)")
        await notify(dsn, ("orders", "after"))
        out, _ = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0
    assert "was lost" in said
    assert "listening again after " in said
    assert "something may be missing on orders since" in said
    assert [line["payload"] for line in lines_of(out.splitlines())] == ["after"]


def test_gaps_are_items_on_request(dsn: str) -> None:
    """With --gaps the first line is the Gap at the start."""
    with running("listen", "orders", "--gaps", dsn=dsn) as process:
        assert process.stdout is not None
        [gap] = lines_of([process.stdout.readline()])
    assert gap == {"gap": "start", "channel": "orders", "since": None, "dropped": None}


async def test_a_command_is_run_for_each(dsn: str, tmp_path: Path) -> None:
    """With the payload on standard input and the rest in its environment, never in its line."""
    line = 'printf "%s " "$ASYNCNOTIFY_GAP" "$ASYNCNOTIFY_CHANNEL" "$ASYNCNOTIFY_PID"; cat; echo'
    arguments = ("listen", "orders", "--gaps", "-n", "2", "--exec", line)
    with running(*arguments, dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        pid = await notify(dsn, ("orders", "$(touch hacked)"), ("orders", "'; exit 3"))
        out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [
        "start orders  ",
        f" orders {pid} $(touch hacked)",
        f" orders {pid} '; exit 3",
    ]


async def test_a_command_that_fails_is_reported_and_not_fatal(dsn: str) -> None:
    """Its status is told; the next notification is handed to it all the same."""
    with running("listen", "orders", "-n", "2", "--exec", "exit $(cat)", dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        await notify(dsn, ("orders", "3"), ("orders", "4"))
        _, err = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0
    assert err.splitlines() == [
        f"the command ended with status {n} for a notification on orders" for n in (3, 4)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_all_that_the_command_has_started(
    number: signal.Signals, dsn: str
) -> None:
    """The shell and the programs: none of them holds standard output any more, nor goes on."""
    line = "sh -c 'echo ran; sleep 600'; echo went on"
    with running("listen", "orders", "--exec", line, dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        await notify(dsn, ("orders", ""))
        wait_for(process.stdout, "ran")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, out, err) == (128 + number, "", "")


async def test_a_program_that_outlives_its_shell_is_killed(dsn: str) -> None:
    """One that ignores SIGTERM, of which its shell has died."""
    line = """sh -c 'trap "" TERM; echo ran; sleep 600; echo went on' & wait"""
    with running("listen", "orders", "--exec", line, dsn=dsn) as process:
        wait_for(process.stderr, "listening on")
        await notify(dsn, ("orders", ""))
        wait_for(process.stdout, "ran")
        process.terminate()
        out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, out, err) == (143, "", "")


@pytest.mark.parametrize("turns", [*range(8), None])
async def test_a_command_is_ended_at_whatever_moment(turns: int | None, tmp_path: Path) -> None:
    """Also while it is being started: once run() has ended, nothing has the pipe open."""
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    line = f"exec > {tmp_path}/pipe; sh -c 'echo ran; sleep 600'; echo went on"
    task = asyncio.ensure_future(Command(line).run(Notification("orders", "", 1)))
    try:
        if turns is None:
            await readable(pipe)
            assert os.read(pipe, 100) == b"ran\n"
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert os.read(pipe, 100) in {b"", b"ran\n"}
        assert os.read(pipe, 100) == b""  # raises BlockingIOError if a program has it open
    finally:
        os.close(pipe)


async def readable(descriptor: int) -> None:
    """Return when there is something to be read."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), TIME_LIMIT)
    finally:
        loop.remove_reader(descriptor)


async def test_a_durable_log_is_read_with_log(dsn: str) -> None:
    """From the place that --after names on, and then what is appended."""
    async with Log("shop", dsn) as log:
        await log.install()
        await log.append("orders", "1", key="a")
        await log.append("news", "2")
        arguments = ("listen", "orders", "--log", "shop", "--after", "start", "-n", "2")
        with running(*arguments, dsn=dsn) as process:
            wait_for(process.stderr, "reading log shop")
            event = await log.append("orders", "3")
            out, _ = process.communicate(timeout=TIME_LIMIT)
    first, second = lines_of(out.splitlines())
    assert (first["payload"], first["key"], first["channel"]) == ("1", "a", "orders")
    assert (second["payload"], second["id"]) == ("3", str(event))
    assert second["position"].startswith("shop:1.")


def test_without_a_channel_it_says_what_is_missing() -> None:
    """With status 2."""
    run = ran("listen")
    assert run.returncode == 2
    assert "name a channel" in run.stderr


def test_after_without_a_log_is_refused() -> None:
    """It would be passed over."""
    run = ran("listen", "orders", "--after", "start")
    assert run.returncode == 2
    assert "--after needs --log" in run.stderr


def test_ctrl_c_on_a_terminal(dsn: str) -> None:
    """The key ends it as the signal does."""
    with on_terminal("listen", "orders", dsn=dsn) as (process, terminal):
        shown_until(terminal, "listening on")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIME_LIMIT) == 130
        assert "Traceback" not in shown_until(terminal, "no such word")


def test_without_any_terminal_or_input(dsn: str) -> None:
    """As under a service manager: no standard input, and a session of its own."""
    process: subprocess.Popen[Any]
    with subprocess.Popen(
        command_line("listen", "orders"),
        env=environment(dsn, {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(process.stderr, "listening on")
        process.terminate()
        assert process.wait(TIME_LIMIT) == 143
