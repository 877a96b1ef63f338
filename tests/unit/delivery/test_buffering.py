from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from asyncnotify._delivery.bounded import BoundedMailbox
from asyncnotify._delivery.buffering import DEFAULT_BUFFER, Buffering
from asyncnotify._delivery.latest import LatestMailbox
from asyncnotify._delivery.router import Router
from asyncnotify._model import Gap, GapReason, Notification
from tests.unit.fake_sources import NO_LOOP, at


@pytest.mark.parametrize("overflow", ["drop", "", 5, [], "DROP_OLDEST"])
def test_an_unknown_policy_is_refused_with_the_known_ones(overflow: Any) -> None:
    """The ValueError lists what may be chosen."""
    with pytest.raises(ValueError, match=r"'drop_oldest', 'drop_newest', 'fail', not"):
        Buffering(1, overflow, latest=False)


def test_a_buffer_that_is_too_small_is_refused_at_once() -> None:
    """Before it is known whether anything will ever wait there."""
    with pytest.raises(ValueError, match="buffer"):
        Buffering(0)


@pytest.mark.parametrize("options", [{"buffer": 5}, {"overflow": "drop_oldest"}])
def test_r48_latest_is_not_combined_with_what_has_no_effect_then(options: Any) -> None:
    """A size or a policy given as well would have no effect."""
    with pytest.raises(TypeError, match=r"leave out buffer= and overflow="):
        Buffering(**options, latest=True)


@pytest.mark.parametrize("latest", [1, 0, None, "false"])
def test_r48_latest_is_true_or_false(latest: Any) -> None:
    """A text from a configuration file would be true, whatever is written there."""
    with pytest.raises(TypeError, match="latest must be True or False"):
        Buffering(latest=latest)


def test_none_stands_for_the_default() -> None:
    """Both options may be passed on as None."""
    mailbox = Buffering().new_mailbox(("a",), Router(NO_LOOP))
    assert isinstance(mailbox, BoundedMailbox)
    assert mailbox.limit == DEFAULT_BUFFER


def test_the_default_buffer_holds_one_read_of_the_socket() -> None:
    """21,845 of the smallest notifications, of 12 bytes each, are in 256 KiB."""
    assert DEFAULT_BUFFER > 256 * 1024 / 12


def test_latest_makes_a_mailbox_that_conflates() -> None:
    """With latest=True there is no buffer."""
    assert isinstance(Buffering(latest=True).new_mailbox(("a",), Router(NO_LOOP)), LatestMailbox)


@pytest.mark.parametrize(("channels", "label"), [(("a",), "a"), (("a", "b"), None)])
def test_a_bounded_mailbox_knows_its_limit_channel_and_delivery(
    channels: tuple[str, ...], label: str | None
) -> None:
    """Its overflow tells the one channel, or none of several, and when delivery was last good."""
    delivery = Router(NO_LOOP)
    delivery.verify(at(datetime(2026, 1, 1, tzinfo=UTC)))
    mailbox = Buffering(2, "drop_oldest", latest=False).new_mailbox(channels, delivery)
    assert isinstance(mailbox, BoundedMailbox)
    mailbox.release(Gap(label, GapReason.START))
    assert mailbox.take() == Gap(label, GapReason.START)
    for number in range(2):
        mailbox.put(Notification("a", str(number), 7))
    with pytest.raises(
        AttributeError, match="call_soon"
    ):  # it tells the router, which has no loop here
        mailbox.put(Notification("a", "3", 7))
    assert mailbox.trim() == 1
    assert mailbox.take() == Gap(label, GapReason.OVERFLOW, datetime(2026, 1, 1, tzinfo=UTC), 1)
