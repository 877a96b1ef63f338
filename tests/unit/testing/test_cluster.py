"""Files in the data directory of a server that runs: it may look at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from asyncnotify.testing._server.binaries import Account
from asyncnotify.testing._server.cluster import Cluster

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_has_all_its_rights_when_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes the order to promote away at once: what follows would not find it."""
    seen: list[list[str]] = []

    def changed(path: Path, uid: int, gid: int) -> None:
        assert (path.read_text(encoding="utf-8"), uid, gid) == ("now", 7, 8)
        seen.append([entry.name for entry in path.parent.iterdir()])

    monkeypatch.setattr(os, "chown", changed)
    nothing = cast("Any", None)
    cluster = Cluster(nothing, Account("somebody", 7, 8), tmp_path, nothing)
    cluster.data_dir.mkdir()
    cluster.write("promote", "now")
    assert [names.count("promote") for names in seen] == [0]
    assert [entry.name for entry in cluster.data_dir.iterdir()] == ["promote"]
