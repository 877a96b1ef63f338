"""Commands that are started without some of the standard streams, or whose output is full."""

from __future__ import annotations

import subprocess

import pytest

from asyncnotify import Listener
from tests.support.commands import TIME_LIMIT, command_line, environment


def shell(redirection: str, *arguments: str, dsn: str) -> subprocess.CompletedProcess[str]:
    """Run a command with its streams redirected by a shell."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *command_line(*arguments)],
        env=environment(dsn, {}),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_a_closed_stream_leads_nowhere(closed: str, dsn: str) -> None:
    """The command works as ever: what it writes there gets into no connection."""
    async with Listener(dsn) as listener, listener.stream("orders") as stream:
        run = shell(closed, "notify", "orders", "42", dsn=dsn)
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
        assert (await anext(stream)).payload == "42"
    run = shell(closed, "bench", "--seconds", "0.1", "--listeners", "1", "--json", dsn=dsn)
    assert (run.returncode, run.stderr) == (0, "")


def test_closed_input_is_empty_input(dsn: str) -> None:
    """Nothing is sent."""
    run = shell("<&-", "notify", "orders", "-", dsn=dsn)
    assert run.returncode == 0
    assert run.stderr.startswith("sent 0 notifications")


@pytest.mark.parametrize(
    "arguments", [("trigger", "print", "x", "--key", "id"), ("listen", "x", "--gaps")]
)
def test_a_full_disk_is_told(arguments: tuple[str, ...], dsn: str) -> None:
    """With status 1, in one line."""
    run = shell(">/dev/full", *arguments, dsn=dsn)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"
    assert "Traceback" not in run.stderr
