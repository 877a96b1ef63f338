from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from asyncnotify._errors import describe_error
from asyncnotify._events import (
    Announcer,
    Closed,
    Connected,
    ConnectionEvent,
    ConnectionLost,
    Reconnected,
    RetryScheduled,
    describe_event,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LOST = ConnectionLost(ConnectionResetError("reset by peer"), 7)
RETRY = RetryScheduled(3, 0.25, OSError("refused"))


# -- what is logged -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "level", "parts"),
    [
        (Connected(1, 7), "INFO", ["listening on 1 channel at joe@db", "backend 7"]),
        (Connected(0, 7), "INFO", ["listening on 0 channels"]),
        (LOST, "WARNING", ["the connection to joe@db (backend 7) was lost", "reset by peer"]),
        (ConnectionLost(None, 7), "WARNING", ["the connection ended"]),
        (RETRY, "INFO", ["attempt 3 to connect to joe@db", "OSError: refused", "0.25 s"]),
        (Reconnected(1.5, 1, 2, 8), "INFO", ["listening again on 2 channels", "1 attempt;"]),
        (Reconnected(1.5, 2, 2, 8), "INFO", ["after 1.500 s and 2 attempts", "a Gap"]),
        (Closed(), "INFO", ["the listener of joe@db is closed"]),
    ],
)
def test_the_log_says_each_event_in_one_line(
    event: ConnectionEvent, level: str, parts: list[str]
) -> None:
    """The loss is a warning, all else is for information; whom it concerns stands in it."""
    number, text = describe_event(event, "joe@db")
    assert logging.getLevelName(number) == level
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (TimeoutError(), "TimeoutError"),
        (None, "the connection ended"),
    ],
)
def test_an_error_is_described_in_one_line(error: BaseException | None, text: str) -> None:
    """By its type and the first line of its text, where there is one."""
    assert describe_error(error) == text


def test_an_announcement_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One record for an event, however many want to know; a percent sign in it does no harm."""
    caplog.set_level(logging.DEBUG)
    announcer = Announcer("100%s@db", lambda event: None)
    streams = [announcer.stream(), announcer.stream()]
    announcer.announce(LOST)
    assert len(streams) == 2
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("asyncnotify.connection", "WARNING")
    assert "100%s@db" in record.getMessage()


class ManualClock:
    """A clock for the log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("asyncnotify._logs.time", self)

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


def test_r11_the_same_trouble_is_a_warning_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In between it is for information: a link that flaps does not flood the log."""
    caplog.set_level(logging.INFO)
    clock, announcer = ManualClock(monkeypatch), Announcer("db", None)
    for _ in range(180):
        announcer.announce(ConnectionLost(ConnectionResetError("reset by peer"), 7))
        clock.now += 1
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (len(warnings), len(caplog.records)) == (3, 180)


def test_r11_another_trouble_is_a_warning_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What retrying will not fix is one too, and says so."""
    clock, announcer = ManualClock(monkeypatch), Announcer("db", None)
    announcer.announce(LOST)
    clock.now += 1
    announcer.announce(RetryScheduled(1, 5.0, PermissionError("wrong password"), needs_repair=True))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "retrying will not help until this is fixed" in caplog.text


def test_r11_troubles_that_take_turns_are_a_warning_once_a_minute_each(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One listener that is now refused, now reset, does not flood the log either."""
    ManualClock(monkeypatch)
    announcer = Announcer("db", None)
    for _ in range(50):
        announcer.announce(LOST)
        announcer.announce(ConnectionLost(None, 7))
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2


def test_events_are_values() -> None:
    """They are compared by what they say, and cannot be changed."""
    makers: list[Callable[[], ConnectionEvent]] = [
        lambda: Connected(1, 7),
        lambda: ConnectionLost(None, 7),
        lambda: Reconnected(1.0, 1, 1, 8),
        Closed,
    ]
    for make in makers:
        assert make() == make()
        assert hash(make()) == hash(make())
    with pytest.raises(AttributeError):
        LOST.cause = None  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


# -- the start ------------------------------------------------------------------------------------


def test_the_first_failed_attempt_of_a_start_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It names the target and the cause, and for how long start() keeps trying; then INFO."""
    caplog.set_level(logging.INFO)
    announcer = Announcer("joe@db", None, start_timeout=30.0)
    for attempt in (1, 2, 3):
        announcer.announce(RetryScheduled(attempt, 0.25, OSError("refused")))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert caplog.records[0].getMessage() == (
        "attempt 1 to connect to joe@db failed: OSError: refused; start() keeps trying for 30 s;"
        " next attempt in 0.25 s"
    )


def test_only_a_start_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Once it has succeeded, failed attempts are for information; the next start() is one again."""
    caplog.set_level(logging.INFO)
    announcer = Announcer("joe@db", None)
    retry = RetryScheduled(1, 0.25, OSError("refused"))
    for event in (Connected(1, 7), retry, Closed(), retry):
        announcer.announce(event)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "INFO", "WARNING"]


def test_a_pid_that_is_not_known_is_not_told() -> None:
    """Behind a pooler that hides it there is none."""
    for event in (Connected(1, 0), ConnectionLost(None, 0), Reconnected(1.5, 1, 2, 0)):
        assert "backend" not in describe_event(event, "joe@db")[1]
