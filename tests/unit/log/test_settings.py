"""How long events are kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from asyncnotify.log._settings import Settings

WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retention": timedelta(0)},
        {"retention": -WEEK},
        {"retention": 7},
        {"limit": timedelta(days=6)},
        {"limit": 5},
        {"ring": 2},
        {"ring": 65},
        {"ring": True},
        {"ring": 8.0},
        {"ring": "8"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    """When they are made, with the argument's name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize("ring", [3, 8, 64])
@pytest.mark.parametrize("retention", [timedelta(seconds=1), timedelta(hours=1), WEEK])
def test_a_partition_is_kept_long_enough(ring: int, retention: timedelta) -> None:
    """All partitions but the one written and the next to be written hold the longest time."""
    for longest, limit in ((retention, None), (retention * 5, retention * 5)):
        settings = Settings(retention=retention, limit=limit, ring=ring)
        assert settings.slot_seconds * (ring - 2) >= longest.total_seconds()
        assert settings.slot_seconds >= 1
