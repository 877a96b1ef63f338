from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._arguments import (
    check_backoff,
    check_callback,
    check_callbacks,
    check_coding,
    check_count,
    check_flag,
    check_iterable,
    check_kind,
    check_mapping,
    check_names,
    check_number,
    check_pairs,
    check_plain_function,
    check_present,
    check_seconds,
    check_timeout,
    check_whole,
    is_async,
    unknown_argument,
)
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._keepalive import Keepalive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

NO_NUMBERS = [float("nan"), float("inf"), float("-inf"), True, "5", b"5", None, [1], 10**400]


@pytest.mark.parametrize("value", [0, -1, *NO_NUMBERS])
def test_r48_seconds_that_are_none_are_refused(value: object) -> None:
    """The ValueError names the argument and what it was given."""
    with pytest.raises(ValueError, match=r"^heartbeat must be a positive number of seconds, not "):
        check_seconds("heartbeat", value)


@pytest.mark.parametrize("value", [-1, *(value for value in NO_NUMBERS if value is not None)])
def test_r48_a_timeout_that_is_none_is_refused(value: object) -> None:
    """Below 0, or no finite number: a timer made of it would upset the event loop."""
    with pytest.raises(ValueError, match=r"^timeout must be a number of seconds or None, not "):
        check_timeout("timeout", value)


@pytest.mark.parametrize("value", [0, -1, 1.5, 1.0, "1", None, float("inf"), True])
def test_r48_a_count_that_is_no_whole_number_from_1_on_is_refused(value: object) -> None:
    """The ValueError names the argument and what it was given."""
    with pytest.raises(ValueError, match="buffer must be a whole number, at least 1, not"):
        check_count("buffer", value)


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, True])
def test_r48_a_whole_number_may_have_another_bound_or_none(value: object) -> None:
    """The ValueError says which."""
    with pytest.raises(ValueError, match="count must be a whole number, at least 0, not"):
        check_whole("count", value, minimum=0)
    check_whole("count", 0, minimum=0)
    check_whole("number", -1)
    with pytest.raises(ValueError, match=r"number must be a whole number, not 1\.5"):
        check_whole("number", 1.5)


@pytest.mark.parametrize("value", [-0.1, 1.1, *NO_NUMBERS])
def test_r48_a_number_out_of_its_bounds_is_refused(value: object) -> None:
    """The ValueError says both, or the one that there is."""
    with pytest.raises(ValueError, match="usage must be a number between 0 and 1, not"):
        check_number("usage", value, minimum=0, maximum=1)
    check_number("usage", 0, minimum=0, maximum=1)
    check_number("usage", 1, minimum=0, maximum=1)
    with pytest.raises(ValueError, match="factor must be a number, at least 2, not"):
        check_number("factor", value, minimum=2)


def test_a_count_from_1_on_is_taken() -> None:
    """1 is the smallest, and there is no largest."""
    check_count("buffer", 1)
    check_count("buffer", 10**12)


@pytest.mark.parametrize("value", [0.001, 1, 10**6])
def test_a_number_of_seconds_is_taken(value: float) -> None:
    """Whole or not; a timeout may also be 0, or None for ever."""
    check_seconds("heartbeat", value)
    for timeout in (value, 0, 0.0, None):
        check_timeout("timeout", timeout)


# -- callables ------------------------------------------------------------------------------------


def plain(item: object) -> None:
    """Take one argument."""


async def coroutine(item: object) -> None:
    """Take one argument, and be awaited."""


def generator(item: object) -> Iterator[object]:
    """Run nothing when called."""
    yield item


async def async_generator(item: object) -> AsyncIterator[object]:
    """Run nothing when called."""
    yield item


def of_asyncpg(connection: object, pid: int, channel: str, payload: str) -> None:
    """Take what add_listener's callbacks are called with."""


def with_option(item: object, option: object = None) -> None:
    """Take one argument, or two."""


def with_option_that_is_needed(item: object, *, option: object) -> None:
    """Take one argument, and an option that nobody gives."""


class Methods:
    """Callables that are no functions."""

    def method(self, item: object) -> None:
        """Take one argument."""

    def generator(self, item: object) -> Iterator[object]:
        """Run nothing when called."""
        yield item

    async def __call__(self, item: object) -> None:
        """Take one argument, and be awaited."""


class CallableGenerator:
    """An object that can be called, and runs nothing."""

    def __call__(self, item: object) -> Iterator[object]:
        """Run nothing when called."""
        yield item


TAKEN: list[Callable[..., object]] = [
    plain,
    coroutine,
    Methods().method,
    Methods(),
    [].append,
    print,
    with_option,
    lambda *items: None,
    functools.partial(of_asyncpg, None, 1, "a"),
    functools.partial(coroutine),
]


@pytest.mark.parametrize("function", TAKEN)
def test_a_function_that_takes_the_notification_is_taken(function: object) -> None:
    """Functions, methods, partial ones, objects that can be called, some that are written in C."""
    check_callback("handler", function)


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        Methods().generator,
        CallableGenerator(),
        functools.partial(generator),
    ],
)
def test_r48_a_generator_is_refused(function: object) -> None:
    """Calling it runs nothing of its body: the TypeError says that the `yield` has to go."""
    with pytest.raises(TypeError, match="handler contains a `yield`"):
        check_callback("handler", function)


def test_r48_a_class_is_refused() -> None:
    """Calling it makes an object, and no more."""
    with pytest.raises(TypeError, match="resync is the class Methods"):
        check_callback("resync", Methods)


@pytest.mark.parametrize("function", [None, 5, "plain", object()])
def test_r48_what_cannot_be_called_is_refused(function: object) -> None:
    """The TypeError names its type."""
    with pytest.raises(TypeError, match="handler must be callable, not of type"):
        check_callback("handler", function)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("handler", lambda: None),
        ("handler", with_option_that_is_needed),
        ("resync", lambda: None),
        ("on_error", plain),
        ("on_event", lambda: None),
        ("connect", plain),
    ],
)
def test_r48_a_function_that_takes_other_arguments_is_refused(name: str, function: object) -> None:
    """The TypeError says what it is called with."""
    with pytest.raises(TypeError, match=rf"^{name} is called with \d argument"):
        check_callback(name, function)


def test_r48_a_callback_of_asyncpg_is_told_what_to_take_instead() -> None:
    """It takes four arguments, the likeliest mistake of those who come from add_listener."""
    with pytest.raises(TypeError, match=r"add_listener take four: here .* has n\.pid"):
        check_callback("handler", of_asyncpg)


def test_callbacks_that_are_not_given_are_not_checked() -> None:
    """None stands for none; another one is checked under its own name."""
    check_callbacks(resync=None, on_error=None)
    with pytest.raises(TypeError, match="on_error is called with 2 arguments"):
        check_callbacks(resync=plain, on_error=plain)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, False),
        (coroutine, True),
        (functools.partial(coroutine), True),
        (Methods(), True),
        (Methods().method, False),
        (async_generator, False),
        (print, False),
        (None, False),
    ],
)
def test_what_makes_a_coroutine_is_async(function: Any, *, expected: bool) -> None:
    """Functions, partial ones, and objects with an async ``__call__``."""
    assert is_async(function) is expected


@pytest.mark.parametrize(
    "backoff",
    [
        ExponentialBackoff(),
        itertools.count,
        lambda: iter([1.0]),
        functools.partial(itertools.repeat, 30),
    ],
)
def test_what_returns_an_iterator_is_a_backoff(backoff: object) -> None:
    """Also a class, if its objects are iterators."""
    check_backoff(backoff)


@pytest.mark.parametrize("coding", [int, str, bytes.fromhex, ascii, [].append])
def test_a_class_may_code(coding: object) -> None:
    """As may anything else that takes one argument, and is not async."""
    check_coding("decode", coding)


def test_none_stands_for_no_object_of_a_class() -> None:
    """Anything else is named by its type, or as the class that has not been called."""
    check_kind("keepalive", None, Keepalive)
    check_kind("keepalive", Keepalive(), Keepalive)
    with pytest.raises(TypeError, match=r"^keepalive must be a Keepalive or None, not int"):
        check_kind("keepalive", 3, Keepalive)
    with pytest.raises(TypeError, match="not the class Keepalive"):
        check_kind("keepalive", Keepalive, Keepalive)


async def test_pairs_may_be_asynchronous_where_that_can_be_awaited() -> None:
    """Threads take them from what can be iterated over without an event loop."""
    pairs = async_generator(5)
    check_pairs(pairs, may_be_async=True)
    check_pairs([], may_be_async=False)
    for wrong, told in (
        ({"a": "b"}, r"of type dict, .* its items\(\)"),
        ("ab", r"of type str, .* a list"),
    ):
        with pytest.raises(TypeError, match=told):
            check_pairs(wrong, may_be_async=True)
    with pytest.raises(TypeError, match=r"pairs must be an iterable .* not of type async_g"):
        check_pairs(pairs, may_be_async=False)
    await pairs.aclose()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


OTHER_KINDS: dict[str, tuple[Callable[[], None], str]] = {
    "a number for a flag": (
        lambda: check_flag("eager", 1),
        "eager must be True or False, not 1",
    ),
    "nothing for an object": (
        lambda: check_present("keepalive", None, Keepalive),
        "keepalive must be a Keepalive, not NoneType",
    ),
    "a class for an object": (
        lambda: check_present("backoff", Keepalive, ExponentialBackoff),
        "backoff must be an ExponentialBackoff, not the class Keepalive",
    ),
    "a number for several": (
        lambda: check_iterable("signals", 15, "a list of signals"),
        "signals must be a list of signals, not of type int",
    ),
    "a list for a mapping": (
        lambda: check_mapping("headers", []),
        "headers must be a mapping of names to values, not of type list",
    ),
    "a text for names": (
        lambda: check_names("channels", "orders"),
        "channels must be a list of names, not the text 'orders'",
    ),
    "a number for names": (
        lambda: check_names("channels", 5),
        "channels must be a list of names, not of type int",
    ),
    "an empty name": (
        lambda: check_names("channels", ["orders", ""]),
        "channels must be a list of names, and one of them is empty, or no text",
    ),
    "a coroutine function": (
        lambda: check_plain_function("source", async_function),
        "source must be a plain function: nothing would await what a call of it returns",
    ),
    "a function of none": (
        lambda: check_plain_function("source", list[int].clear, "app", "state"),
        "source is called with 2 arguments (app, state): ",
    ),
}


async def async_function() -> None:
    """Do nothing."""


def of_one(_: object) -> None:
    """Do nothing."""


@pytest.mark.parametrize("wrong", OTHER_KINDS)
def test_r48_another_kind_is_refused(wrong: str) -> None:
    """The TypeError names the argument, what it must be, and what it was given."""
    call, said = OTHER_KINDS[wrong]
    with pytest.raises(TypeError) as refused:
        call()
    assert str(refused.value).startswith(said)


def test_what_is_of_its_kind_is_taken() -> None:
    """None as well, for what may be left out."""
    check_flag("eager", value=True)
    check_present("keepalive", Keepalive(), Keepalive)
    check_iterable("signals", iter([15]), "a list of signals")
    check_mapping("headers", None)
    check_mapping("headers", {})
    check_names("channels", ("orders",))
    check_plain_function("source", of_one, "app")


def test_r48_an_argument_of_a_pool_is_known_as_one() -> None:
    """A listener has one connection; of another argument the nearest one is named."""
    assert "it is one of a pool" in unknown_argument("min_size", ["host"])
    assert unknown_argument("hoste", ["host"]).endswith("did you mean host=?")
    assert unknown_argument("xyz", ["host"]).endswith("none of asyncpg.connect either")
