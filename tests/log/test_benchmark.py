"""The benchmark of the log beside its peers, with small numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_row_of_the_benchmark_is_measured_or_says_what_is_missing(tmp_path: Path) -> None:
    """With `--quick`, in one round; the log itself is measured in each section."""
    file = tmp_path / "results.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    arguments = ("log", "--quick", "--rounds", "1", "--results", str(file))
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, env=environment, check=True
    )
    sections = json.loads(file.read_text(encoding="utf-8"))["sections"]
    assert {section["key"].partition(",")[0] for section in sections} == {
        "log append",
        "log consume",
        "log pinned",
        "log dead",
        "log latency",
        "log growth",
        "log consumers",
    }
    for series in (series for section in sections for series in section["series"]):
        measured = [figures for figures in series["rounds"] if figures is not None]
        assert measured or series["trouble"].startswith("not installed"), series
        assert measured or not series["peer"].startswith("asyncnotify")
