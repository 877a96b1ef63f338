from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify._channels.channel import Channel
from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.registry import Subscriber
from asyncnotify._errors import PayloadDecodeError
from asyncnotify._logs import WarningLimit
from asyncnotify._model import Gap, GapReason, Notification, Reread
from asyncnotify._subscriptions.decoding import (
    DecodeErrors,
    Decoding,
    Undecodable,
    decoder_of,
    decoding_of,
)
from tests.unit.fake_sources import TrimmingSource, at

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._delivery.mailbox import Item
    from asyncnotify._subscriptions.decoding import Taken

LIMIT: Final = WarningLimit()
NUMBERS: Final = Channel("numbers", int)
GAP: Final = Gap("numbers", GapReason.RECONNECT)
EARLY: Final = datetime(2026, 1, 1, tzinfo=UTC)


def number_of(text: str) -> int | Reread:
    """Return a number; "*" says "read again", and so does "*3", for three changes."""
    if text.startswith("*"):
        return Reread(int(text[1:]) if text[1:] else None)
    return int(text)


REREADS: Final = Channel("numbers", decode=number_of)


class Interrupted(BaseException):
    """What nobody expects."""


class ManualClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Return what it was set to."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """What tells decode errors the time."""
    made = ManualClock()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    return made


def failing_with(error: BaseException) -> Channel[str]:
    """Return a channel that decodes nothing."""

    def fail(_: str) -> str:
        raise error

    return Channel("numbers", encode=str, decode=fail)


def decoder(*channels: Channel[Any]) -> Callable[[Item], Taken]:
    """Return the decoder of channels that have one."""
    decode = decoder_of(channels)
    assert decode is not None
    return decode


def decoding(subscriber: Subscriber, *channels: Channel[Any], gaps: bool = True) -> Decoding:
    """Return what takes from a subscription, and decodes."""
    made = decoding_of(subscriber, subscriber.mailbox.peek, channels, LIMIT, wants_gaps=gaps)
    assert made is not None
    return made


def taking(made: Decoding) -> Callable[[], Taken | None]:
    """Return a function that takes the next item; what cannot be decoded is reported at once."""

    def take() -> Taken | None:
        item = made.take()
        assert made.has_failed == isinstance(item, Undecodable)
        return made.failure() if isinstance(item, Undecodable) else item

    return take


def undecodable(reason: str = "cannot be decoded: ValueError", pid: int = 7) -> Undecodable:
    """Return what could not be decoded."""
    error = PayloadDecodeError("numbers", reason)
    error.__cause__ = ValueError("secret")
    return Undecodable(error, Notification("numbers", "secret", pid))


# -- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "channels", [(), (Channel("a"),), (Channel("a", str), Channel("b"))], ids=repr
)
def test_text_needs_no_decoder(channels: tuple[Channel[Any], ...]) -> None:
    """Where every payload is its text there is nothing to call: the mailbox is taken from."""
    assert decoder_of(channels) is None
    subscriber = Subscriber(["a"], LatestMailbox())
    assert (
        decoding_of(subscriber, subscriber.mailbox.peek, channels, LIMIT, wants_gaps=True) is None
    )


def test_a_payload_is_replaced_by_its_value() -> None:
    """A notification keeps its channel, pid and class; the one that arrived is not changed."""
    arrived = Notification("numbers", "7", 42)
    decoded = decoder(NUMBERS)(arrived)
    assert decoded == Notification("numbers", 7, 42)
    assert type(decoded) is Notification
    assert arrived.payload == "7"


def test_each_channel_is_decoded_as_it_says() -> None:
    """Of several the name of the notification decides; text and gaps pass as they are."""
    decode = decoder(NUMBERS, Channel("text"), Channel("rows", list))
    text = Notification("text", "7", 1)
    assert decode(text) is text
    assert decode(GAP) is GAP
    assert decode(Notification("rows", "[7]", 1)) == Notification("rows", [7], 1)
    assert decode(Notification("numbers", "7", 1)) == Notification("numbers", 7, 1)


def test_a_channel_that_nobody_named_is_left_as_it_is() -> None:
    """What arrives under another name, though it should not, is not decoded by guess."""
    stranger = Notification("other", "7", 1)
    assert decoder(NUMBERS)(stranger) is stranger


@pytest.mark.parametrize("text", ["", "x", "1.5", "true", "9" * 5_000, "[" * 5_000, "\ud800"])
def test_r44_what_cannot_be_decoded_is_a_value_of_its_own(text: str) -> None:
    """It holds the error, which names its channel and holds nothing of the text, and the text."""
    arrived = Notification("numbers", text, 42)
    taken = decoder(NUMBERS)(arrived)
    assert isinstance(taken, Undecodable)
    assert taken.notification is arrived
    assert type(taken.error) is PayloadDecodeError
    assert taken.error.channel == "numbers"
    assert len(str(taken.error)) < 120


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        RecursionError("secret"),
        UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret"),
        asyncio.CancelledError("secret"),
        GeneratorExit("secret"),
        StopIteration("secret"),
        StopAsyncIteration("secret"),
        Interrupted("secret"),
        PayloadDecodeError("numbers", "secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_r44_whatever_a_decoder_raises_is_the_cause(error: BaseException) -> None:
    """It is kept for on_error, and its text is in no message."""
    taken = decoder(failing_with(error))(Notification("numbers", "x", 1))
    assert isinstance(taken, Undecodable)
    assert taken.error.__cause__ is error
    assert type(error).__name__ in str(taken.error)
    assert "secret" not in f"{taken.error} {taken.error!r}"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_r25_exit_and_interrupt_pass(error: BaseException) -> None:
    """They end the program, and are no matter of a payload."""
    decode = decoder(failing_with(error))
    with pytest.raises(type(error)) as caught:
        decode(Notification("numbers", "x", 1))
    assert caught.value is error


def test_what_is_taken_is_decoded() -> None:
    """An empty mailbox gives nothing; each item is decoded when it is taken, not before."""
    calls: list[str] = []

    def decode(text: str) -> int:
        calls.append(text)
        return int(text)

    channel = Channel("numbers", encode=str, decode=decode)
    box = LatestMailbox()
    take = taking(decoding(Subscriber(["numbers"], box), channel))
    box.release(GAP)
    for text in ("1", "2", "3"):
        box.put(Notification("numbers", text, 1))
    assert calls == []
    assert take() is GAP
    assert take() == Notification("numbers", 3, 1)
    assert take() is None
    assert calls == ["3"]


@pytest.mark.parametrize("wants_gaps", [True, False])
def test_r46_what_cannot_be_decoded_is_a_gap_in_its_place(*, wants_gaps: bool) -> None:
    """One Gap behind each run of such payloads, before what follows; for those that want gaps."""
    channel = Channel("numbers", int)
    source = TrimmingSource()
    source.verified_at = at(datetime(2026, 1, 1, tzinfo=UTC))
    box = BoundedMailbox(100, "drop_oldest", channel="numbers", source=source)
    subscriber = Subscriber(["numbers"], box)
    subscriber.begin()
    for text in ("1", "x", "y", "2", "z"):
        box.put(Notification("numbers", text, 1))
    take = taking(decoding(subscriber, channel, gaps=wants_gaps))
    items = list(iter(take, None))
    gap = ["undecodable"] if wants_gaps else []
    assert [described(i) for i in items] == ["start", 1, "x", "y", *gap, 2, "z", *gap]
    gaps = [item for item in items if isinstance(item, Gap)][1:]
    assert all(gap.since == datetime(2026, 1, 1, tzinfo=UTC) for gap in gaps)
    assert box.gaps == (3 if wants_gaps else 1)
    assert subscriber.decode_errors == 3


Parts = tuple[BoundedMailbox | LatestMailbox, Subscriber, Decoding]


@pytest.fixture(params=["bounded", "latest"])
def parts(request: pytest.FixtureRequest) -> Parts:
    """A typed channel and others into one mailbox that has begun, and what takes from it."""
    source = TrimmingSource()
    box = (
        BoundedMailbox(100, "drop_oldest", channel=None, source=source)
        if request.param == "bounded"
        else LatestMailbox()
    )
    subscriber = Subscriber(["numbers", "texts"], box)
    subscriber.begin()
    made = decoding(subscriber, NUMBERS, Channel("texts"))
    assert described(made.take()) == "start"
    return box, subscriber, made


def lose_and_listen_again(subscriber: Subscriber) -> None:
    """Lose the connection, and have it back."""
    subscriber.interrupt(GapReason.RECONNECT, None)
    subscriber.begin()


def test_r46_no_gap_overtakes_what_follows_a_payload_that_cannot_be_decoded(parts: Parts) -> None:
    """While resync fails, a newer gap is taken only if it comes next, also behind such a one."""
    box, subscriber, made = parts
    take = taking(made)
    box.put(Notification("numbers", "x", 1))
    box.put(Notification("texts", "before the loss", 1))
    lose_and_listen_again(subscriber)
    assert [described(take()) for _ in range(2)] == ["x", "undecodable"]
    assert box.take_gap() is None
    assert [described(take()) for _ in range(2)] == ["before the loss", "reconnect"]


def test_a_gap_of_such_payloads_merges_with_a_neighbour_while_resync_fails(parts: Parts) -> None:
    """As any other gap: nothing stands between them."""
    box, subscriber, made = parts
    take = taking(made)
    box.put(Notification("numbers", "x", 1))
    lose_and_listen_again(subscriber)
    assert [described(take()) for _ in range(2)] == ["x", "undecodable"]
    assert box.take_gap() == Gap(None, GapReason.RECONNECT)
    assert take() is None


def test_r23_nothing_is_left_of_a_subscription_that_is_ended_at_such_a_gap(parts: Parts) -> None:
    """What follows the gap is discarded with the buffer: no call of the handler is owed."""
    box, _, made = parts
    take = taking(made)
    box.put(Notification("numbers", "x", 1))
    box.put(Notification("texts", "behind", 1))
    assert [described(take()) for _ in range(2)] == ["x", "undecodable"]
    box.end(discard=True)
    assert take() is None


def test_what_follows_such_a_payload_waits_in_the_buffer(parts: Parts) -> None:
    """So a consumer that looks whether something waits finds the gap, and what is behind it."""
    box, _, made = parts
    take = taking(made)
    box.put(Notification("numbers", "x", 1))
    box.put(Notification("texts", "behind", 1))
    for left, expected in ((2, "x"), (1, "undecodable"), (0, "behind")):
        assert described(take()) == expected
        assert len(box) == left
        assert box.readable == bool(left)
    assert (box.taken, box.gaps) == (4, 2)


def test_items_and_lists_of_a_typed_stream_may_be_taken_in_turn(parts: Parts) -> None:
    """A list begins where the last item ended, also in the middle of such payloads."""
    box, _, made = parts
    take = taking(made)
    box.put(Notification("numbers", "x", 1))
    box.put(Notification("texts", "behind", 1))
    assert described(take()) == "x"
    found = made.take_many(10, 1.0)
    assert [described(item) for item in found] == ["undecodable", "behind"]
    assert (box.taken, box.gaps) == (4, 2)


@pytest.mark.parametrize("payloads", ["xy", "x"])
def test_r28_such_gaps_do_not_count_against_the_buffer(payloads: str) -> None:
    """A buffer of three holds three notifications beside the gap, and then drops."""
    source = TrimmingSource()
    box = BoundedMailbox(3, "drop_oldest", channel="numbers", source=source)
    subscriber = Subscriber(["numbers"], box)
    subscriber.begin()
    take = taking(decoding(subscriber, NUMBERS))
    assert described(take()) == "start"
    for text in payloads:
        box.put(Notification("numbers", text, 1))
        assert described(take()) == text
    for text in "123":
        box.put(Notification("numbers", text, 1))
    assert box.dropped == 0
    box.put(Notification("numbers", "4", 1))
    assert box.dropped == 1


def described(item: Any) -> object:
    """Return what is seen of an item."""
    if isinstance(item, Gap):
        return str(item.reason)
    return item.notification.payload if isinstance(item, Undecodable) else item.payload


# -- "read again" ----------------------------------------------------------------------------------


def begun(*texts: str) -> Subscriber:
    """Return a subscription that has begun, and holds notifications of these texts."""
    source = TrimmingSource()
    source.verified_at = at(EARLY)
    box = BoundedMailbox(100, "drop_oldest", channel="numbers", source=source)
    subscriber = Subscriber(["numbers"], box, gaps_wanted=False)
    subscriber.begin()
    for text in texts:
        box.put(Notification("numbers", text, 7))
    return subscriber


def seen(made: Decoding, *, together: bool) -> list[object]:
    """Return what a consumer sees of all that waits, taken one by one or as a list."""
    if together:
        items: list[Any] = [*made.take_many(100, 10.0)]
    else:
        taken = list(iter(taking(made), None))
        items = [item for item in taken if isinstance(item, Notification | Gap)]
    return [item if isinstance(item, Gap) else item.payload for item in items]


def reread(count: int | None, since: datetime | None = EARLY) -> Gap:
    """Return the Gap in the place of payloads that say "read again"."""
    return Gap("numbers", GapReason.REREAD, since, count)


UNKNOWN: Final = Gap("numbers", GapReason.UNDECODABLE, EARLY)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("texts", "expected", "counts"),
    [
        ("*", [reread(None)], (0, 1, 0)),
        ("1 *3 2", [1, reread(3), 2], (2, 1, 0)),
        ("1 *3 *4 2 *5", [1, reread(7), 2, reread(5)], (2, 3, 0)),
        ("*3 * *4 1", [reread(None), 1], (1, 3, 0)),
        ("*3 *4 x *5 y z 1 *6", [reread(7), UNKNOWN, reread(5), UNKNOWN, 1, reread(6)], (1, 4, 3)),
        ("x *0", [UNKNOWN, reread(0)], (0, 1, 1)),
        ("*-1 *9999999999999999999", [UNKNOWN], (0, 0, 2)),
    ],
)
def test_a_payload_that_says_read_again_is_a_gap_in_its_place(
    texts: str, expected: list[object], counts: tuple[int, int, int], *, together: bool
) -> None:
    """One for each run of them, with the sum of what they count; its since is what is known."""
    subscriber = begun(*texts.split())
    made = decoding(subscriber, REREADS)
    assert seen(made, together=together) == expected
    subscriber.gaps_taken = sum(isinstance(item, Gap) for item in expected)
    stats = subscriber.stats()
    assert (stats.delivered, stats.rereads, stats.decode_errors) == counts


@pytest.mark.parametrize("together", [False, True])
def test_nobody_is_told_to_read_again_who_wants_no_gaps(
    caplog: pytest.LogCaptureFixture, *, together: bool
) -> None:
    """It is counted, and a WARNING says so once a minute, with the sender, not with the payload."""
    subscriber = begun("1", "*3", "*", "2", "*4")
    made = decoding_of(
        subscriber, subscriber.mailbox.peek, [REREADS], WarningLimit(), wants_gaps=False
    )
    assert made is not None
    assert seen(made, together=together) == [1, 2]
    stats = subscriber.stats()
    assert (stats.rereads, stats.delivered, stats.decode_errors, stats.gaps) == (3, 2, 0, 1)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning == (
        "a payload on channel 'numbers' says \"read again\", for 3 changes, and this subscription"
        " takes no Gaps: pass resync= to listen(), or gaps=True to stream() (sent by backend 7)"
    )


def test_who_is_told_to_read_again_needs_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The sender does so on purpose."""
    assert seen(decoding(begun("*3"), REREADS), together=False) == [reread(3)]
    assert not caplog.records


def test_with_latest_a_newer_payload_replaces_one_that_says_read_again() -> None:
    """As it replaces any other; the time is unknown then, so that everything has to be read."""
    subscriber = Subscriber(["numbers"], LatestMailbox(), gaps_wanted=False)
    subscriber.begin()
    for text in ("*3", "2", "*4"):
        subscriber.mailbox.put(Notification("numbers", text, 7))
    assert seen(decoding(subscriber, REREADS), together=False) == [reread(4, None)]
    assert (subscriber.stats().rereads, subscriber.stats().conflated) == (1, 2)


# -- counting and telling -------------------------------------------------------------------------


def test_each_error_counts_and_is_not_delivered() -> None:
    """In its subscription's numbers an error is not among what was delivered."""
    box = LatestMailbox()
    subscriber = Subscriber(["numbers"], box)
    subscriber.begin()
    box.put(Notification("numbers", "x", 1))
    made = decoding(subscriber, NUMBERS, gaps=False)
    assert described(made.take()) == "start"
    subscriber.gaps_taken += 1
    assert described(made.take()) == described(made.take()) == "x"
    assert described(made.failure()) == "x"
    stats = subscriber.stats()
    assert (stats.decode_errors, stats.delivered, stats.gaps) == (1, 0, 1)


def test_r44_the_log_tells_of_it_once_a_minute(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Their number is up to others: one line a minute, which says how many it has left out."""
    errors = DecodeErrors()
    for second in range(1, 601):
        clock.now += 1.0
        errors.log(undecodable(pid=second))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 10
    assert messages[0].endswith("(sent by backend 1)")
    assert messages[1].endswith("(sent by backend 61); 59 more since the last line")
    assert messages[9].endswith("(sent by backend 541); 59 more since the last line")
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert {record.name for record in caplog.records} == {"asyncnotify.handler"}


def test_after_a_quiet_minute_nothing_was_left_out(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A line says of others only where there were others."""
    errors = DecodeErrors()
    errors.log(undecodable())
    clock.now += 60.0
    errors.log(undecodable())
    assert not any("more" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2


def test_each_subscription_has_lines_of_its_own(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One subscription's errors do not keep those of another out of the log."""
    for _ in range(3):
        errors = DecodeErrors()
        errors.log(undecodable())
        errors.log(undecodable())
    assert len(caplog.records) == 3


def test_r43_the_line_holds_nothing_of_the_payload(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in its text, and no traceback that would quote it."""
    DecodeErrors().log(undecodable())
    (record,) = caplog.records
    assert record.exc_info is None
    assert "secret" not in logging.Formatter().format(record) + repr(vars(record))
    assert record.getMessage() == (
        "payload on channel 'numbers' cannot be decoded: ValueError (sent by backend 7)"
    )


@pytest.mark.parametrize("keeps_context", [True, False])
def test_handlers_get_what_a_notification_was_sent_with(*, keeps_context: bool) -> None:
    """Streams do not: they look at the exact class of what they take."""
    carrying = Channel("a", dict, context=lambda: "00-ab")
    box = BoundedMailbox(10, "drop_oldest", channel="a", source=TrimmingSource())
    subscriber = Subscriber(["a"], box)
    decoding = decoding_of(
        subscriber,
        box.peek,
        iter([carrying]),
        WarningLimit(),
        wants_gaps=False,
        keeps_context=keeps_context,
    )
    assert decoding is not None
    subscriber.begin()
    box.put(Notification("a", carrying.encode({"id": 1}), 7))
    box.put(Notification("a", '{"id": 2}', 7))
    assert isinstance(decoding.take(), Gap)  # the one at the start
    taken = [decoding.take(), decoding.take()]
    assert taken == [Notification("a", {"id": 1}, 7), Notification("a", {"id": 2}, 7)]
    contexts = [one.context for one in taken if isinstance(one, Notification)]
    assert contexts == ["00-ab" if keeps_context else None, None]
