"""The command ``bench``: its figures, its progress bar, and what ends it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from tests.support.commands import TIME_LIMIT, on_terminal, ran, running, shown_until

if TYPE_CHECKING:
    import asyncpg

QUICK = ("bench", "--seconds", "0.1", "--listeners", "3")
LISTENS = """
    SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND application_name = 'asyncnotify'
"""


def test_figures_as_json(dsn: str) -> None:
    """Each part has measured something."""
    run = ran(*QUICK, "--size", "8", "--json", dsn=dsn)
    assert (run.returncode, run.stderr) == (0, "")
    figures = json.loads(run.stdout)
    assert figures["server"].startswith("PostgreSQL ")
    assert figures["payload_bytes"] == 8
    assert figures["round_trip_ms"]["count"] > 0
    assert 0 < figures["round_trip_ms"]["median"] <= figures["round_trip_ms"]["p99"]
    assert figures["notifications_per_second"] > 0
    assert figures["fan_out"]["listeners"] == 3
    assert figures["fan_out"]["received_per_second"] > 0


def test_a_terminal_gets_a_progress_bar_and_a_table(dsn: str) -> None:
    """Within 80 columns; the bar is gone at the end."""
    with on_terminal(*QUICK, dsn=dsn) as (process, terminal):
        shown = shown_until(terminal, "no such word")
        assert process.wait(TIME_LIMIT) == 0
    assert "round trip " in shown
    assert "━" in shown
    assert "fan-out, received by 3 listeners" in shown


async def test_a_signal_ends_it(admin: asyncpg.Connection[asyncpg.Record], dsn: str) -> None:
    """With status 130, no traceback, and no session left (see ``dsn``)."""
    with running("bench", "--seconds", "600", dsn=dsn) as process:
        while await admin.fetchval(LISTENS) < 2:
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, out, err) == (130, "", "")


def test_no_connection_is_told(unused_tcp_port: int) -> None:
    """With status 3, at once."""
    run = ran(*QUICK, dsn=f"postgresql://me:secret@127.0.0.1:{unused_tcp_port}/x")
    assert (run.returncode, run.stdout) == (3, "")
    assert "cannot connect" in run.stderr
    assert "secret" not in run.stderr
