from __future__ import annotations

import asyncio
import functools
import inspect
import json
import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import PayloadDecodeError, PayloadError
from asyncnotify._interrupts import is_interrupt
from asyncnotify._logs import WarningLimit
from asyncnotify._model import Notification
from asyncnotify._subscriptions.decoding import Undecodable, decoding_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

LIMIT = WarningLimit()
SIGNAL = signal.SIGTERM


class TimeLimitError(Exception):
    """What a job's time limit raises."""


def of_two(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    raise TimeLimitError


def of_any(*arguments: object) -> None:
    """Handle a signal, whose arguments do not matter."""
    raise TimeLimitError


def through_another(number: int, frame: FrameType | None) -> None:
    """Handle a signal by calling another function."""
    of_two(number, None)


def walking(number: int, frame: FrameType | None) -> None:
    """Handle a signal, and look where it came."""
    while frame is not None:
        frame = frame.f_back
    raise TimeLimitError


class Death:
    """Handles a signal by a method, as rq does."""

    def penalty(self, number: int, frame: FrameType | None) -> None:
        """Handle it."""
        raise TimeLimitError


HANDLERS: list[Callable[[int, FrameType | None], Any]] = [
    of_two,
    of_any,
    walking,
    through_another,
    Death().penalty,
    functools.partial(of_any, "more"),
]


@pytest.fixture(params=HANDLERS, ids=lambda handler: str(getattr(handler, "__name__", "partial")))
def limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """A handler of a signal, which raises."""
    before = signal.signal(SIGNAL, request.param)
    yield
    signal.signal(SIGNAL, before)


def interrupted(text: object) -> Any:
    """Code a payload, and be interrupted in that."""
    signal.raise_signal(SIGNAL)
    return text


def failing(text: object) -> Any:
    """Fail, in a function that is called with a frame."""

    def fail(frame: FrameType | None, more: tuple[object, ...]) -> None:
        raise ValueError(text)

    frame = inspect.currentframe()
    fail(frame and frame.f_back, ())


@pytest.mark.usefixtures("limited")
def test_r56_the_limit_of_a_job_is_no_wrong_payload() -> None:
    """Raised in a function that codes, it passes as it is; what was to be decoded stays."""
    channel = Channel("numbers", encode=interrupted, decode=interrupted)
    for code in (channel.encode, channel.decode):
        with pytest.raises(TimeLimitError):
            code("1")
    box = LatestMailbox()
    box.release_without_gap()
    box.put(Notification("numbers", "1", 7))
    decoding = decoding_of(
        Subscriber(["numbers"], box), box.peek, [channel], LIMIT, wants_gaps=True
    )
    assert decoding is not None
    with pytest.raises(TimeLimitError):
        decoding.take()
    with pytest.raises(TimeLimitError):
        decoding.take_many(10, 1.0)
    assert box.take() == Notification("numbers", "1", 7)
    assert not decoding.has_failed


@pytest.mark.parametrize(
    "decode",
    [failing, json.loads, msgspec.json.decode, int, bytes.fromhex],
    ids=lambda function: function.__name__,
)
def test_what_a_decoder_raises_is_no_interrupt(decode: Callable[[str], object]) -> None:
    """Also if it calls functions with frames."""
    channel = Channel("numbers", encode=failing, decode=decode)
    with pytest.raises(PayloadDecodeError):
        channel.decode("{")
    with pytest.raises(PayloadError):
        channel.encode("{")
    box = LatestMailbox()
    box.release_without_gap()
    box.put(Notification("numbers", "{", 7))
    decoding = decoding_of(
        Subscriber(["numbers"], box), box.peek, [channel], LIMIT, wants_gaps=True
    )
    assert decoding is not None
    assert isinstance(decoding.take(), Undecodable)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_ends_the_process_is_an_interrupt(error: BaseException) -> None:
    """Whoever has raised it."""
    assert is_interrupt(error)


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError(), GeneratorExit()])
def test_an_error_that_was_never_raised_is_none(error: BaseException) -> None:
    """It comes from nowhere."""
    assert not is_interrupt(error)
