"""What a user sees of a start that does not succeed: at once a reason, and at the end few lines."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from asyncnotify import (
    AsyncNotifyError,
    BlockingListener,
    BlockingNotifier,
    ExponentialBackoff,
    Listener,
    Notifier,
)
from asyncnotify.testing.faults import dns_fails
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

README: Final = Path(__file__).parents[2] / "README.md"
FACES: Final = (Listener, Notifier, BlockingListener, BlockingNotifier)
SHORT: Final[dict[str, Any]] = {
    "start_timeout": scaled(0.5),
    "connect_timeout": scaled(0.2),
    "backoff": ExponentialBackoff(initial=0.01, cap=0.05),
}
MOST_LINES: Final = 16


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections, at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def refuse() -> Any:
    """Refuse a connection, as a token service may."""
    message = "no token"
    raise ConnectionRefusedError(message)


async def start(face: type[Any], arguments: dict[str, Any]) -> AsyncNotifyError:
    """Start one that cannot succeed; return its error."""
    made = face(**{**SHORT, **arguments})
    blocks = face in (BlockingListener, BlockingNotifier)
    with dns_fails(), pytest.raises(AsyncNotifyError) as refused:
        await (asyncio.to_thread(made.start) if blocks else made.start())
    return refused.value


def arguments_for(fault: str, silent: int) -> dict[str, Any]:
    """Return what leads to a fault."""
    hosts = {
        "refused": "127.0.0.1:1",
        "two refused": "127.0.0.1:1,127.0.0.1:2",
        "unknown": "no-such.invalid",
        "silent": f"127.0.0.1:{silent}",
    }
    # Short only where an attempt has to exceed it: a busy machine must not decide the cause
    limit = {"connect_timeout": SHORT["connect_timeout" if fault == "silent" else "start_timeout"]}
    if fault == "callable":
        return {"connect": refuse, **limit}
    return {"dsn": f"postgresql://joe@{hosts[fault]}/app", **limit}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("fault", ["refused", "two refused", "unknown", "silent", "callable"])
async def test_a_start_that_waits_says_so_at_once_and_ends_in_few_lines(
    face: type[Any], fault: str, silent: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The first attempt is a WARNING with target, cause and patience; no cause is told thrice."""
    error = await start(face, arguments_for(fault, silent))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"start() keeps trying for {SHORT['start_timeout']:g} s" in warnings[0]
    assert ("connect=" if fault == "callable" else "joe@") in warnings[0]
    reason = type(error.__cause__).__name__
    assert reason in warnings[0]
    assert len(warnings) <= 2
    printed = "".join(traceback.format_exception(error))
    assert printed.count(f"{reason}: ") <= 3
    assert len(printed.splitlines()) <= MOST_LINES + 3 * (fault == "callable")
    assert "site-packages/asyncpg" not in printed


@pytest.mark.needs_server("driver")
@pytest.mark.parametrize("face", FACES)
async def test_a_start_that_is_refused_at_once_ends_in_few_lines(
    face: type[Any], dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is tried again, so nothing is logged of that; the server's words are told."""
    error = await start(face, {"dsn": dsn.replace("postgres@", "nobody@", 1)})
    assert isinstance(error.__cause__, asyncpg.PostgresError)
    assert 'role "nobody" does not exist' in str(error)
    assert len("".join(traceback.format_exception(error)).splitlines()) <= MOST_LINES
    assert [r for r in caplog.records if r.levelname == "WARNING"] == []


@pytest.mark.needs_server("network")
async def test_a_silent_host_that_costs_time_is_told(
    dsn: str, silent: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one answers, so all goes well; but each attempt takes longer by the timeout."""
    found = re.fullmatch(r"postgresql://([^@]*)@([^/]*)/(.*)", dsn)
    assert found is not None
    hosts = f"127.0.0.1:{silent},{found[2]}"
    options: dict[str, Any] = {**SHORT, "start_timeout": scaled(30.0)}
    async with Listener(f"postgresql://{found[1]}@{hosts}/{found[3]}", **options):
        pass
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    expected = f"127.0.0.1:{silent} does not answer, and each attempt to connect waits for it: "
    assert warning.startswith(f"{expected}TimeoutError")


async def test_a_notification_that_is_tried_again_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With retry=True a call may wait for half a minute: not without a word."""
    timeout = scaled(0.2)
    notifier = Notifier(
        "postgresql://joe@127.0.0.1:1/app", retry_timeout=timeout, connect_timeout=timeout
    )
    with pytest.raises(AsyncNotifyError):
        await notifier.notify("orders", retry=True)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "joe@127.0.0.1:1/app" in warning
    assert f"notify(retry=True) keeps trying for {timeout:g} s" in warning
    await notifier.aclose()


def test_the_first_example_without_a_server_says_what_is_wrong() -> None:
    """In its first line, and at the end: with what Python and asyncio print, 24 lines at most."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[:1]
    given = "Listener(dsn)"
    assert given in example
    timeout = scaled(0.3)
    code = example.replace(
        given, f'Listener("postgresql://localhost:1/postgres", start_timeout={timeout})'
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("attempt 1 to connect to localhost:1/postgres failed: ")
    assert (
        lines[0]
        .partition("; next attempt")[0]
        .endswith(f"; start() keeps trying for {timeout:g} s")
    )
    assert lines[-1].startswith("asyncnotify.ConnectTimeoutError: not connected to localhost:1/")
    assert len(lines) <= 24
