from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from asyncnotify._publishing.limits import DEFAULT_QUEUE, PublishingLimits

TIMES = [field.name for field in fields(PublishingLimits) if field.name != "queue"]


def test_the_defaults_are_accepted() -> None:
    """The queue holds DEFAULT_QUEUE calls."""
    assert PublishingLimits().queue == DEFAULT_QUEUE


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", None, True])
def test_a_time_must_be_a_positive_number_of_seconds(name: str, value: object) -> None:
    """The error names the argument. A start may have no time limit, and a connection no age."""
    if name in {"max_connection_age", "start_timeout"} and value is None:
        value = "None"
    arguments: dict[str, Any] = {name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        PublishingLimits(**arguments)


@pytest.mark.parametrize("value", [0, -1, 1.5, "10", None])
def test_the_queue_must_have_room_for_a_call(value: Any) -> None:
    """A whole number, at least 1."""
    with pytest.raises(ValueError, match="queue"):
        PublishingLimits(queue=value)
