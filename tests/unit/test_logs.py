"""The loggers: one line for each record, and no more warnings than the limit allows."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from asyncnotify._logs import Log, WarningLimit, silenced

if TYPE_CHECKING:
    import pytest


class ManualClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


# -- the limit ------------------------------------------------------------------------------------


def test_the_same_trouble_is_allowed_once_in_the_interval() -> None:
    """However often it happens; another one is allowed at once."""
    clock = ManualClock()
    limit = WarningLimit(clock=clock)
    allowed = []
    for _ in range(180):
        allowed.append(limit.allows("lost"))
        clock.now += 1
    assert allowed.count(True) == 3
    assert limit.allows("refused")


def test_troubles_that_always_differ_exhaust_the_limit() -> None:
    """Who answers at the port may give another reason each time: ten a minute, and no memory."""
    clock = ManualClock()
    limit = WarningLimit(clock=clock)
    assert sum(limit.allows(f"reason {number}") for number in range(1_000)) == 10
    clock.now += 60
    assert limit.allows("reason 1000")


def test_what_is_said_once_is_never_said_again() -> None:
    """An endless interval; unless its cause is gone."""
    clock = ManualClock()
    limit = WarningLimit(math.inf, clock=clock)
    assert limit.allows("once")
    clock.now = 1e9
    assert not limit.allows("once")
    limit.forget("once")
    assert limit.allows("once")


# -- the lines ------------------------------------------------------------------------------------


def test_what_exceeds_the_limit_is_logged_at_a_lower_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At INFO, or where it would be a flood at DEBUG."""
    caplog.set_level(logging.DEBUG)
    log = Log("connection")
    for limit in (WarningLimit(), WarningLimit(beyond=logging.DEBUG)):
        for _ in range(2):
            log.warning(limit, "key", "the text of %s", "it")
    assert [record.levelname for record in caplog.records] == [
        *("WARNING", "INFO"),
        *("WARNING", "DEBUG"),
    ]
    assert {record.getMessage() for record in caplog.records} == {"the text of it"}


def test_every_level_is_one_line_by_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Texts among the arguments are escaped, numbers are left; the record names who logged."""
    caplog.set_level(logging.DEBUG)
    log, hostile = Log("connection"), "\x1b[2J\r\nforged\u2028"
    for write in (log.debug, log.info, log.error, log.exception, log.critical):
        write("%s of %d", hostile, 7)
    log.warning(WarningLimit(), "key", "%s of %d", hostile, 7)
    assert [record.levelno for record in caplog.records] == [10, 20, 40, 40, 50, 30]
    for record in caplog.records:
        assert (record.name, record.filename) == ("asyncnotify.connection", Path(__file__).name)
        assert record.getMessage() == r"\x1b[2J\r\nforged\u2028 of 7"


def test_an_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The one that is given, or the one that is being handled."""
    log = Log("handler")
    try:
        int("x")
    except ValueError as error:
        log.exception("handled")
        log.error("given", exc_info=error)  # noqa: TRY400 - what is tested
        log.critical("given", exc_info=error)
    kinds = [record.exc_info and record.exc_info[0] for record in caplog.records]
    assert kinds == [ValueError] * 3


def test_a_screen_can_silence_the_loggers_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """All that is not a bug; afterwards they log as before."""
    log = Log("connection")
    with silenced():
        log.error("lost")
        log.critical("a bug")
    log.error("lost again")
    assert [record.getMessage() for record in caplog.records] == ["a bug", "lost again"]


FIELDS = ("channel", "attempt", "delay", "pid", "target")


def test_each_record_has_every_field(caplog: pytest.LogCaptureFixture) -> None:
    """So a formatter may name them: None where one says nothing; texts are escaped there too."""
    log = Log("connection")
    log.error("nothing")
    log.error("all", channel="a\nb", attempt=2, delay=0.5, pid=7, target="joe@db")
    nothing, everything = caplog.records
    assert [getattr(nothing, name) for name in FIELDS] == [None] * 5
    assert [getattr(everything, name) for name in FIELDS] == [r"a\nb", 2, 0.5, 7, "joe@db"]
    text = logging.Formatter("%(channel)s %(pid)s %(message)s").format(everything)
    assert text == r"a\nb 7 all"
