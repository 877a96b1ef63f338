from __future__ import annotations

import pytest

from asyncnotify._connection.limits import Limits


@pytest.mark.parametrize("name", Limits.__slots__)
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "5", None])
def test_a_time_that_is_not_positive_is_refused(name: str, value: object) -> None:
    """The ValueError names the argument; None switches off what may be switched off."""
    times = dict.fromkeys(Limits.__slots__, 1.0)
    if name in {"heartbeat", "max_connection_age", "start_timeout"} and value is None:
        value = "None"
    with pytest.raises(ValueError, match=f"^{name} must be a positive number of seconds"):
        Limits(**times | {name: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("heartbeat", "limit"), [(1.0, 3.0), (100.0, 5.0), (None, 5.0)])
def test_a_command_takes_no_longer_than_a_dead_connection_may_live(
    heartbeat: float | None, limit: float
) -> None:
    """The operation timeout, unless heartbeat and its timeout are shorter."""
    limits = Limits(10.0, heartbeat, 2.0, 5.0, 30.0, 5.0)
    assert limits.command_timeout == limit
