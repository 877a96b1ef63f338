from __future__ import annotations

import inspect
from typing import Any, Generic, get_args, get_type_hints

import pytest

import asyncnotify.typing
from asyncnotify import BlockingListener, Listener, Notification
from asyncnotify.typing import (
    HandlerOptions,
    ListenOptions,
    Overflow,
    StreamOptions,
    SubscriptionOptions,
)

ALL: list[Any] = [HandlerOptions, ListenOptions, StreamOptions]
OF_ONE_METHOD = {"gaps", "in_thread"}
"""What makes another type of the result, and what one of the faces only takes."""

OPTIONS = list(zip(["on", "listen", "stream"], ALL, strict=True))


def test_what_it_defines_and_passes_on_is_listed() -> None:
    """All of it is public, and sorted."""
    public = {name for name in vars(asyncnotify.typing) if not name.startswith("_")}
    assert public - {"TypedDict"} == set(asyncnotify.typing.__all__)
    assert asyncnotify.typing.__all__ == sorted(asyncnotify.typing.__all__)


@pytest.mark.parametrize("face", [Listener, BlockingListener])
@pytest.mark.parametrize(("method", "options"), OPTIONS)
def test_the_options_are_what_the_methods_take_by_keyword(
    face: Any,
    method: str,
    options: Any,
) -> None:
    """Same names, same types; so `help()` and the type checkers say the same."""
    function = getattr(face, method)
    by_keyword = {
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in OF_ONE_METHOD
    }
    hints = get_type_hints(function)
    assert {name: hints[name] for name in by_keyword} == get_type_hints(options)
    assert not options.__required_keys__


def test_every_option_is_described() -> None:
    """By the class that has it, or by one of those that it extends."""
    described = "".join(inspect.getdoc(options) or "" for options in [*ALL, SubscriptionOptions])
    for name in {name for options in ALL for name in get_type_hints(options)}:
        assert f"    {name}: " in described, name


def test_overflow_is_a_choice_of_three() -> None:
    """The words that `overflow=` takes."""
    assert get_args(Overflow) == ("drop_oldest", "drop_newest", "fail")


def test_a_notification_is_a_plain_named_tuple_when_the_program_runs() -> None:
    """What type checkers are told, that its fields are those of a frozen dataclass, holds of it."""
    assert Notification.__mro__ == (Notification, tuple, Generic, object)
    assert Notification._fields == Notification.__match_args__ == ("channel", "payload", "pid")
    assert tuple(inspect.signature(Notification).parameters) == Notification._fields
    notification = tuple.__new__(Notification, ("orders", "1", 7))
    assert notification == Notification(channel="orders", payload="1", pid=7)
    assert notification._replace(pid=8)._asdict() == {"channel": "orders", "payload": "1", "pid": 8}
    with pytest.raises(AttributeError):
        notification.payload = "2"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
