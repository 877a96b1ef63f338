from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from asyncnotify._model import Gap, GapReason, Notification, Reread, State, Stats, in_context

NOTIFICATION = Notification("orders", "s3cret", 7)


@pytest.mark.parametrize(
    "text",
    [
        repr(NOTIFICATION),
        str(NOTIFICATION),
        f"{NOTIFICATION}",
        "%s" % (NOTIFICATION,),  # noqa: UP031 - as logging does it
        repr([NOTIFICATION]),
        repr(Notification("orders", {"key": "s3cret"}, 7)),
    ],
    ids=["repr", "str", "format", "percent", "in a list", "decoded"],
)
def test_r43_a_notification_shows_everything_but_its_payload(text: str) -> None:
    """However it is printed, the payload stays out of it."""
    assert "s3cret" not in text
    assert "channel='orders'" in text
    assert "pid=7" in text


def test_the_size_of_a_hidden_payload_is_shown() -> None:
    """The repr tells an empty payload from a long one."""
    assert "payload=<hidden of 6 characters>" in repr(NOTIFICATION)
    assert "payload=<hidden>" in repr(Notification("orders", None, 7))


@pytest.mark.parametrize(
    ("value", "shows"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_the_environment_may_have_payloads_shown(
    monkeypatch: pytest.MonkeyPatch, value: str, *, shows: bool
) -> None:
    """For tests, whose failing assertions have to be read: also once asyncnotify is imported."""
    monkeypatch.setenv("ASYNCNOTIFY_SHOW_PAYLOADS", value)
    shown = "Notification(channel='orders', payload='s3cret', pid=7)"
    assert (repr(NOTIFICATION) == shown) is shows
    assert ("s3cret" in repr(NOTIFICATION)) is shows


def test_a_notification_is_a_tuple() -> None:
    """It is equal to, unpacks and hashes like the tuple of its fields, and survives pickling."""
    channel, payload, pid = NOTIFICATION
    assert NOTIFICATION == ("orders", "s3cret", 7) == (channel, payload, pid)
    assert hash(NOTIFICATION) == hash(("orders", "s3cret", 7))
    assert pickle.loads(pickle.dumps(NOTIFICATION)) == NOTIFICATION  # noqa: S301 - ours
    assert isinstance(pickle.loads(pickle.dumps(NOTIFICATION)), Notification)  # noqa: S301 - its own


def test_notifications_and_gaps_are_told_apart_by_match() -> None:
    """The pattern of the documentation finds the payload in one and the reason in the other."""
    seen: list[str] = []
    for item in (NOTIFICATION, Gap("orders", GapReason.START)):
        match item:
            case Notification(payload=key):
                seen.append(key)
            case Gap(reason=reason):
                seen.append(reason)
    assert seen == ["s3cret", "start"]


def test_a_gap_is_a_value() -> None:
    """Compared by its fields, hashable, frozen; nothing is known unless it is said."""
    gap = Gap("orders", GapReason.OVERFLOW, datetime(2026, 1, 1, tzinfo=UTC), 3)
    assert gap == Gap("orders", GapReason.OVERFLOW, datetime(2026, 1, 1, tzinfo=UTC), 3)
    assert len({gap, gap}) == 1
    assert Gap(None, GapReason.START) == Gap(None, GapReason.START, since=None, dropped=None)
    with pytest.raises(AttributeError):
        gap.dropped = 4  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_reasons_and_states_are_text() -> None:
    """They can be logged, compared with and sent as their text."""
    assert f"{GapReason.OVERFLOW} {State.DEGRADED}" == "overflow degraded"
    assert {"overflow", "degraded"} == {GapReason.OVERFLOW, State.DEGRADED}


def test_the_statistics_of_what_never_ran_are_all_zero() -> None:
    """Stats() is what a listener that was not started has to tell."""
    stats = Stats()
    assert stats.state is State.NEW
    assert not any(
        (stats.received, stats.delivered, stats.dropped, stats.handler_errors, stats.gaps)
    )
    assert (stats.connected_since, stats.last_heartbeat) == (None, None)
    assert stats.heartbeat_round_trip is None
    assert stats.subscriptions == ()


@pytest.mark.parametrize("count", [None, 0, 1, 2**63 - 1])
def test_who_says_read_again_may_say_for_how_many_changes(count: int | None) -> None:
    """It is a value: equal to its like, hashable, never changed, and survives pickling."""
    made = Reread(count)
    assert made == Reread(count=count) != Reread(2)
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - ours
    assert hash(made) == hash(Reread(count))
    with pytest.raises(AttributeError):
        made.count = 5  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_a_sum_of_counts_can_be_shown() -> None:
    """However often the largest is added: Python refuses to print a number that is too long."""
    assert "digits" not in repr(Gap("orders", GapReason.REREAD, None, 10**6 * (2**63 - 1)))
    with pytest.raises(ValueError, match=r"2\*\*63"):
        Reread(2**63)


def test_a_notification_in_context_is_equal_to_one_without() -> None:
    """It is the same tuple, shown and taken apart alike; a copy with changes has no context."""
    bare = Notification("orders", "secret", 7)
    carried = in_context(bare, "00-ab")
    assert carried == bare
    assert (carried.context, bare.context) == ("00-ab", None)
    assert repr(carried) == repr(bare)
    assert carried._replace(payload="other").context is None
    match carried:
        case Notification(payload=payload):
            assert payload == "secret"
