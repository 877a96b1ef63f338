"""What befalls readers and consumers: one outage for each name, however many it stops."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

import pytest

from asyncnotify import ConnectError, ConnectionLostError, GapReason
from asyncnotify.log import (
    DeadLettered,
    EventsExpired,
    HandlerEnded,
    Interrupted,
    Position,
    Resumed,
)
from asyncnotify.log._reporting import Reporter, Reports
from asyncnotify.log._walk.cursor import Expired

if TYPE_CHECKING:
    from asyncnotify.log._incidents import Incident

LOST = ConnectionLostError("lost")
REFUSED = ConnectError("refused")


class Source:
    """What is interrupted."""


class Harness:
    """A reporter, what it has told, and two who share a consumer's name."""

    def __init__(self) -> None:
        self.seen: list[Incident] = []
        self.reporter = Reporter("orders", "joe@db", self.seen.append)
        self.first, self.second = Source(), Source()

    def mailer(self) -> Reports:
        """Return what reports of the consumer."""
        return self.reporter.of_consumer("mailer")

    def lose(self, source: Source, error: Exception = LOST, *, needs_repair: bool = False) -> None:
        """Interrupt one of them."""
        self.mailer().interrupted(source, error, 0.5, needs_repair=needs_repair)

    @property
    def kinds(self) -> list[str]:
        """What was told, in short."""
        return [type(incident).__name__ for incident in self.seen]


def test_attempts_that_fail_alike_are_one_incident() -> None:
    """Another error is another one, and so is one that has to be mended by now."""
    it = Harness()
    for _ in range(3):
        it.lose(it.first)
        it.lose(it.first, REFUSED)
    assert it.seen == [Interrupted("mailer", LOST, 0.5), Interrupted("mailer", REFUSED, 0.5)]
    it.lose(it.first, REFUSED, needs_repair=True)
    assert it.seen[2:] == [Interrupted("mailer", REFUSED, 0.5, needs_repair=True)]


def test_an_outage_ends_when_nobody_is_interrupted_any_more() -> None:
    """Not with the first who is back; then the next one is an outage of its own."""
    it = Harness()
    for _ in range(2):
        it.lose(it.first)
        it.lose(it.second)
        it.mailer().succeeded(it.first)
        it.mailer().succeeded(it.first)
        assert it.kinds[-1] == "Interrupted"
        it.mailer().succeeded(it.second)
        it.mailer().succeeded(it.second)
        assert it.kinds[-1] == "Resumed"
    assert it.kinds == ["Interrupted", "Resumed"] * 2


def test_one_who_has_left_does_not_keep_an_outage() -> None:
    """By its end, or because nobody holds it; but the outage ends only when something succeeds."""
    it = Harness()
    it.lose(it.first)
    it.lose(it.second)
    it.mailer().gone(it.first)
    del it.second
    gc.collect()
    assert it.kinds == ["Interrupted"]
    it.mailer().succeeded(Source())
    assert it.kinds == ["Interrupted", "Resumed"]


def test_names_have_outages_of_their_own() -> None:
    """The readers, too, who have no name."""
    it = Harness()
    it.lose(it.first)
    it.reporter.readers.interrupted(it.second, LOST, 0.0, needs_repair=False)
    it.reporter.readers.succeeded(it.second)
    it.mailer().succeeded(it.first)
    assert [getattr(one, "consumer", 0) for one in it.seen] == ["mailer", None, None, "mailer"]
    assert isinstance(it.seen[-1], Resumed)


def test_a_name_that_nobody_uses_is_forgotten_unless_it_is_interrupted() -> None:
    """Consumers may come and go without end; who comes back during an outage ends it."""
    it = Harness()
    for number in range(100):
        it.reporter.of_consumer(f"tenant_{number}")
    gc.collect()
    assert not list(it.reporter._consumers)  # noqa: SLF001 - what it keeps
    it.lose(it.first)
    gc.collect()
    it.mailer().succeeded(it.first)
    assert it.kinds == ["Interrupted", "Resumed"]


def test_lines_name_the_log_and_the_consumer(caplog: pytest.LogCaptureFixture) -> None:
    """And say what happens next, and since when; the same trouble is a WARNING once a minute."""
    caplog.set_level(logging.INFO)
    it = Harness()
    it.lose(it.first)
    it.lose(it.first)
    it.lose(it.first, REFUSED, needs_repair=True)
    it.mailer().succeeded(it.first)
    it.reporter.readers.interrupted(it.second, LOST, 0.0, needs_repair=False)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    who = "consumer 'mailer' of log 'orders'"
    interrupted = f"{who} is interrupted, and tried again in 0.50 s"
    assert [*lines[:3], lines[4]] == [
        ("WARNING", f"{interrupted}: ConnectionLostError: lost"),
        ("INFO", f"{interrupted}: ConnectionLostError: lost"),
        (
            "WARNING",
            f"{interrupted}: ConnectError: refused; retrying will not help until this is fixed",
        ),
        (
            "WARNING",
            (
                "a reader of log 'orders' is interrupted, and tried again at once:"
                " ConnectionLostError: lost"
            ),
        ),
    ]
    assert lines[3][0] == "INFO"
    assert lines[3][1].startswith(f"{who} goes on after 0.0")
    assert {record.__dict__["target"] for record in caplog.records} == {"joe@db"}


def test_the_trouble_of_one_consumer_hides_no_others(caplog: pytest.LogCaptureFixture) -> None:
    """One outage stops all consumers of a process: each of them is a WARNING, once a minute."""
    it = Harness()
    for _ in range(2):
        for number in range(100):
            reports = it.reporter.of_consumer(f"tenant_{number}")
            reports.interrupted(it.first, LOST, 0.5, needs_repair=False)
            reports.expired(Expired(3, None))
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warned) == len({*warned}) == 200


def test_an_unexpected_error_is_an_error_with_its_traceback_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A privilege that is missing comes again each second, until somebody grants it."""
    reports = Harness().mailer()
    for error in (ValueError("1"), ValueError("2"), TypeError("3")):
        reports.unexpected("handler 'mailer' of log 'orders', bucket 7,", error)
    text = "handler 'mailer' of log 'orders', bucket 7, is interrupted by an unexpected error"
    lines = [
        (one.levelname, one.getMessage(), one.exc_info and str(one.exc_info[1]))
        for one in caplog.records
    ]
    assert lines == [("ERROR", text, "1"), ("ERROR", text, "3")]


def test_an_interruption_keeps_no_frames() -> None:
    """A stream may keep a thousand of them, and each frame would keep what it had at hand."""
    it = Harness()

    async def fail() -> None:
        raise ConnectionLostError from OSError()

    with pytest.raises(ConnectionLostError) as caught:
        fail().send(None)
    it.lose(it.first, caught.value)
    assert caught.value.__traceback__ is None


def test_an_incident_shows_no_words_of_an_error() -> None:
    """The cause may be an error of the user's, with any text."""
    secret = ValueError("hunter2")
    for incident in (Interrupted("mailer", secret, 0.5), HandlerEnded("mailer", None, secret)):
        assert "mailer" in repr(incident)
        assert "ValueError" in repr(incident)


def test_losses_and_ends_are_told() -> None:
    """With the Gap for the place of the loss; readers have neither dead letters nor handlers."""
    it = Harness()
    gap = it.mailer().expired(Expired(3, None))
    assert (gap.reason, gap.dropped) == (GapReason.EXPIRED, 3)
    position = Position("orders", 1, 2, 3)
    error = ValueError("bad")
    for reports in (it.mailer(), it.reporter.readers):
        reports.buried(position, 2, "ValueError: bad")
        reports.handler_ended(7, error)
    assert it.seen == [
        EventsExpired("mailer", None, 3),
        DeadLettered("mailer", position, 2, "ValueError: bad"),
        HandlerEnded("mailer", 7, error),
    ]
