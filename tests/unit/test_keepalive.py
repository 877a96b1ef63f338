from __future__ import annotations

import pytest

from asyncnotify._keepalive import Keepalive


@pytest.mark.parametrize("name", ["idle", "interval", "count", "user_timeout"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "5", None, True, 10**10])
def test_a_figure_that_the_system_would_not_take_is_refused(name: str, value: object) -> None:
    """The ValueError names it."""
    with pytest.raises(ValueError, match=f"^{name} must be a whole number from 1 to"):
        Keepalive(**{name: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_r38_by_default_a_dead_client_is_dropped_in_45_seconds() -> None:
    """Idle, or with data on its way: whichever applies ends in time."""
    default = Keepalive()
    assert default.idle + default.interval * default.count <= 45
    assert default.user_timeout <= 45
