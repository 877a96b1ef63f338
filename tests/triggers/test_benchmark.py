"""The benchmark of triggers, with small numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_way_is_measured(tmp_path: Path) -> None:
    """With `--quick`, in one round; and each way sends what it should."""
    file = tmp_path / "results.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    arguments = ("triggers", "--quick", "--rounds", "1", "--results", str(file))
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, env=environment, check=True
    )
    sections = {
        one["key"]: one["series"] for one in json.loads(file.read_text("utf-8"))["sections"]
    }
    assert len(sections) == 6
    for key, series in sections.items():
        sent = {one["peer"]: one["rounds"][0]["notifications"] for one in series}
        one_each = 1_000 if "1,000 rows" in key else 1
        assert (sent["no trigger"], sent['to="log"']) == (0, 0)
        assert sent["row trigger by hand"] == sent["row level"] == one_each
        assert 1 <= sent["statement level"] <= 2
        assert sent.get("statement trigger by hand", 1) == 1
