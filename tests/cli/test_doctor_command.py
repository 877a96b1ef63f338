"""The command ``doctor``: what it adds to asyncnotify.doctor, which has tests of its own."""

from __future__ import annotations

import json

from tests.support.commands import ran


def test_a_report_as_json(dsn: str) -> None:
    """One object, with the exit status that the command has."""
    run = ran("doctor", "--json", dsn=dsn)
    report = json.loads(run.stdout)
    assert run.returncode == report["exit_status"]
    assert report["server_version"] is not None
    assert {finding["check"] for finding in report["findings"]} >= {"connection", "queue"}


def test_a_report_as_text(dsn: str) -> None:
    """With --all each check has a line; --no-probe leaves one out."""
    run = ran("doctor", "--all", "--no-probe", dsn=dsn)
    assert "queue: " in run.stdout
    assert "delivery: " not in run.stdout
    assert "\x1b" not in run.stdout
    assert run.stderr == ""


def test_without_a_connection(unused_tcp_port: int) -> None:
    """The report says so, with status 3, and no password."""
    dsn = f"postgresql://me:secret@127.0.0.1:{unused_tcp_port}/x"
    run = ran("doctor", dsn=dsn)
    assert run.returncode == 3
    assert "connection: " in run.stdout
    assert "secret" not in run.stdout + run.stderr
