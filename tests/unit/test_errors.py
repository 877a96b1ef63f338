from __future__ import annotations

import copy
import errno
import pickle
import re
import socket
import ssl
from typing import TYPE_CHECKING, TypeAlias

import pytest

import asyncnotify
from asyncnotify import _errors
from asyncnotify._errors import (
    AlreadyEnteredError,
    AsyncNotifyError,
    BufferOverflowError,
    ChannelDirectionError,
    ChannelNameError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    ConnectTimeoutError,
    ListenTimeoutError,
    NotifyTimeoutError,
    NotStartedError,
    PayloadDecodeError,
    PayloadError,
    PayloadTooLargeError,
    PoolerError,
    WrongLoopError,
    describe_error,
    mark_as_callers,
    without_frames,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES: list[AsyncNotifyError] = [
    AsyncNotifyError("something happened"),
    ChannelNameError("x" * 64, "is 64 bytes; at most 63 are allowed"),
    ChannelDirectionError("orders", "decode"),
    PayloadError("orders", "contains a NUL character"),
    PayloadTooLargeError("orders", 8_000, 7_999),
    PayloadDecodeError("orders", "cannot be decoded: JSONDecodeError"),
    ConnectError("cannot connect to joe@db:5432/app"),
    ConfigurationError("the DSN must begin with postgresql://"),
    ConnectTimeoutError("not connected within 30 s"),
    PoolerError("db is a connection pooler in transaction mode"),
    ConnectionLostError("the server closed the connection"),
    ListenTimeoutError(("orders", "events"), 2.5, "reconnecting"),
    NotifyTimeoutError("not sent: the call waited for more than 5 s behind other calls"),
    BufferOverflowError(100, 3),
    NotStartedError("use `async with`"),
    ClosedError("the listener is closed"),
    AlreadyEnteredError("the stream of 'orders' has been entered already"),
    WrongLoopError("the listener belongs to another event loop"),
]

NAMES = [type(error).__name__ for error in EXAMPLES]
DUPLICATES: list[Callable[[AsyncNotifyError], AsyncNotifyError]] = [
    lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 - ours
    copy.copy,
    copy.deepcopy,
]
BRANCH = re.compile(r" {4}(?P<stem>[│├└─ ]*)(?P<name>\w+Error)(?: \((?P<builtin>\w+)\))?(?: |$)")

Tree: TypeAlias = dict[str, tuple[str | None, str | None]]


def drawn_tree() -> Tree:
    """Return of each error in the drawing: what it hangs on, and the builtin beside it."""
    tree: Tree = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        if branch := BRANCH.match(line):
            path[len(branch["stem"]) // 4 :] = [branch["name"]]
            tree[path[-1]] = (path[-2] if len(path) > 1 else None, branch["builtin"])
    return tree


def actual_tree() -> Tree:
    """Return the same of the classes themselves."""
    tree: Tree = {}
    for name, kind in vars(_errors).items():
        if isinstance(kind, type) and issubclass(kind, AsyncNotifyError):
            ours = [b.__name__ for b in kind.__bases__ if issubclass(b, AsyncNotifyError)]
            builtins = [b.__name__ for b in kind.__bases__ if b.__module__ == "builtins"]
            root = kind is AsyncNotifyError
            tree[name] = (
                (None, None)
                if root
                else (ours[0] if ours else None, builtins[0] if builtins else None)
            )
    return tree


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """Every error is drawn, where it hangs, with the builtin that it also is."""
    assert len(actual_tree()) == len(EXAMPLES)
    assert drawn_tree() == actual_tree()


def test_every_error_is_public() -> None:
    """What may be raised can be caught by a name of the package."""
    assert actual_tree().keys() <= set(asyncnotify.__all__)


@pytest.mark.parametrize("error", EXAMPLES, ids=NAMES)
@pytest.mark.parametrize("duplicate", DUPLICATES, ids=["pickle", "copy", "deepcopy"])
def test_an_error_survives_pickling_and_copying(
    error: AsyncNotifyError, duplicate: Callable[[AsyncNotifyError], AsyncNotifyError]
) -> None:
    """Its type, text, arguments and attributes cross a process boundary."""
    twin = duplicate(error)
    assert twin is not error
    assert (type(twin), str(twin), repr(twin)) == (type(error), str(error), repr(error))
    assert (twin.args, vars(twin)) == (error.args, vars(error))


@pytest.mark.parametrize("error", EXAMPLES, ids=NAMES)
def test_an_error_says_something(error: AsyncNotifyError) -> None:
    """The text is one line and no tuple of arguments."""
    assert str(error)
    assert not str(error).startswith("(")
    assert "\n" not in str(error)


def test_the_data_of_an_error_stands_in_its_attributes() -> None:
    """Nobody has to read them out of the text."""
    too_large = PayloadTooLargeError("orders", 8_000, 7_999)
    assert (too_large.channel, too_large.size, too_large.limit) == ("orders", 8_000, 7_999)
    timeout = ListenTimeoutError(("orders",), 2.5, "reconnecting")
    assert (timeout.channels, timeout.timeout) == (("orders",), 2.5)
    overflow = BufferOverflowError(100, 3)
    assert (overflow.limit, overflow.dropped) == (100, 3)


def test_the_text_of_an_error_says_what_matters() -> None:
    """Which channel, which limit, how long, and what has become of the call."""
    assert str(ListenTimeoutError(("a", "b"), 2.5, "reconnecting")) == (
        "not listening on 'a', 'b' after 2.5 s: the listener is reconnecting;"
        " the subscription has been withdrawn"
    )
    assert str(BufferOverflowError(100, 3)) == (
        "the consumer fell behind: its buffer of 100 notifications overflowed by 3;"
        " the subscription has ended"
    )
    assert "at most 7999" in str(PayloadTooLargeError("orders", 8_000, 7_999))


def test_a_channel_name_of_any_length_makes_a_short_text() -> None:
    """The name in the text is cut; whole it stands in the attribute."""
    error = ChannelNameError("x" * 1_000_000, "is too long")
    assert len(str(error)) < 200
    assert len(str(error.channel)) == 1_000_000


def test_an_error_that_is_no_system_call_has_no_errno() -> None:
    """Code that compares the errno of an OSError finds none."""
    error = ListenTimeoutError(("orders",), 2.5, "reconnecting")
    assert error.args == (("orders",), 2.5, "reconnecting")
    assert error.errno is None


# -- texts that are not ours ----------------------------------------------------------------------

HOSTILE = "\x1b]0;title\x07\r\n\u2028\u202e"
HOSTILE_EXAMPLES: list[BaseException] = [
    ChannelNameError(HOSTILE, HOSTILE),
    ChannelDirectionError(HOSTILE, "decode"),
    PayloadError(HOSTILE, HOSTILE),
    PayloadTooLargeError(HOSTILE, 8_000, 7_999),
    PayloadDecodeError(HOSTILE, HOSTILE),
    ListenTimeoutError((HOSTILE,), 2.5, "reconnecting"),
    BufferOverflowError(100, 3),
    *(type(error)(HOSTILE) for error in EXAMPLES if len(error.args) == 1),
]


@pytest.mark.parametrize("error", HOSTILE_EXAMPLES, ids=lambda error: type(error).__name__)
def test_no_text_of_ours_acts_on_a_terminal(error: BaseException) -> None:
    """Whatever its parts hold, an error's text is one line that is printable."""
    assert str(error).isprintable()
    assert describe_error(error).isprintable()


def test_every_error_has_its_hostile_example() -> None:
    """None is left out above."""
    assert {type(error) for error in HOSTILE_EXAMPLES} == {type(error) for error in EXAMPLES}


class OfTheServer(Exception):  # noqa: N818 - as the driver makes one of a server's answer
    """With what the server sends along."""

    severity = "FATAL"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("secret"), None),
        (TimeoutError("secret"), None),
        (ConnectError("secret"), None),
        (RuntimeError("secret"), None),
        (OSError(errno.ECONNREFUSED, "secret", "secret"), "ConnectionRefusedError: "),
        (socket.gaierror(socket.EAI_NONAME, "secret"), None),
        (ssl.SSLError(1, "secret"), None),
        (OfTheServer("no such role"), "OfTheServer: no such role"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_callers_function_raises_is_not_told_in_its_words(
    error: Exception, text: str | None
) -> None:
    """One rule for every type: what the server or the system says of it, or the place."""
    own_words = describe_error(error)
    mark_as_callers(error)
    told = describe_error(error)
    assert "secret" not in told
    if text is None:
        assert told == f"{type(error).__name__} at an unknown place"
    else:
        assert told.startswith(text)
    assert own_words.startswith(type(error).__name__)


def test_the_place_of_a_callers_error_is_told() -> None:
    """So it can be found, in a function that says nothing of itself."""
    error = LookupError("secret")
    try:
        raise error
    except LookupError:
        mark_as_callers(error)
    assert re.fullmatch(r"LookupError at .*test_errors\.py:\d+", describe_error(error))


def test_a_text_without_an_end_is_cut() -> None:
    """Who answers at the port may say anything; our own texts are left whole."""
    assert len(describe_error(OSError("x" * 1_000_000))) < 600
    assert len(describe_error(ConnectError("x" * 1_000))) > 1_000


# -- frames ---------------------------------------------------------------------------------------


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """Return an error that has passed through a call."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_the_causes_of_a_refusal_are_without_frames() -> None:
    """Their texts say all; a defect of the caller's keeps the way to it, and so do its causes."""
    theirs = raised(LookupError("theirs"), raised(KeyError("deeper")))
    mark_as_callers(theirs)
    error = raised(ConnectError("ours"), raised(OSError("met"), theirs))
    without_frames(error)
    assert error.__traceback__ is None
    met = error.__cause__
    assert met is not None
    assert met.__traceback__ is None
    assert theirs.__traceback__ is not None
    assert theirs.__cause__ is not None
    assert theirs.__cause__.__traceback__ is not None


def test_errors_that_refer_to_each_other_are_no_trap() -> None:
    """The chain of causes need not end."""
    one, two = raised(OSError("one")), raised(OSError("two"))
    one.__cause__, two.__cause__ = two, one
    without_frames(one)
    assert (one.__traceback__, two.__traceback__) == (None, None)
