"""Checks of arguments: each rule once, the same for the asyncio and the blocking classes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from math import inf, isfinite
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_OF_ADD_LISTENER: Final = (
    "; callbacks of asyncpg's add_listener take four: here the one Notification n has n.pid,"
    " n.channel and n.payload"
)


def check_seconds(name: str, value: object, *, or_none: bool = False) -> None:
    """Raise ValueError unless it is a positive, finite number of seconds, or None and allowed."""
    if value is None and or_none:
        return
    number = _number(value)
    if number is None or number <= 0:
        wanted = "a positive number of seconds" + " or None" * or_none
        msg = f"{name} must be {wanted}, not {value!r}"
        raise ValueError(msg)


def check_timeout(name: str, value: object) -> None:
    """Raise ValueError unless the value is a finite number of seconds, 0 included, or None."""
    if value is None:
        return
    number = _number(value)
    if number is None or number < 0:
        msg = f"{name} must be a number of seconds or None, not {value!r}"
        raise ValueError(msg)


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless the value is a whole number, at least 1."""
    check_whole(name, value, minimum=1)


def check_whole(name: str, value: object, *, minimum: int | None = None) -> None:
    """Raise ValueError unless the value is a whole number, and at least so large."""
    whole = value if isinstance(value, int) and not isinstance(value, bool) else None
    if whole is None or (minimum is not None and whole < minimum):
        bound = "" if minimum is None else f", at least {minimum}"
        msg = f"{name} must be a whole number{bound}, not {value!r}"
        raise ValueError(msg)


def type_name(value: object) -> str:
    """Return how messages name the type of a value: with its package, unless that is Python's."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"


def check_retry(connection: object, *, retry: object) -> None:
    """Raise TypeError unless retry is a bool, and False where there is a connection."""
    check_flag("retry", retry)
    if retry and connection is not None:
        msg = "retry= cannot be combined with connection=: only a whole transaction can be retried"
        raise TypeError(msg)


def check_pairs(
    pairs: object, *, may_be_async: bool, name: str = "pairs", kind: str = "pairs"
) -> None:
    """Raise TypeError unless it can be iterated over, and may hold pairs, or others of a kind."""
    kinds = (Iterable, AsyncIterable) if may_be_async else (Iterable,)
    if not isinstance(pairs, kinds):
        msg = f"{name} must be an iterable of {kind}, not of type {type(pairs).__name__}"
        raise TypeError(msg)
    if isinstance(pairs, Mapping | str | bytes):
        remedy = "its items()" if isinstance(pairs, Mapping) else "a list of (channel, payload)"
        msg = f"{name} is of type {type(pairs).__name__}, which has no {kind} in it: give {remedy}"
        raise TypeError(msg)


def check_number(name: str, value: object, *, minimum: float, maximum: float = inf) -> None:
    """Raise ValueError unless the value is a finite number within these bounds."""
    number = _number(value)
    if number is None or not minimum <= number <= maximum:
        bounds = f", at least {minimum}" if maximum == inf else f" between {minimum} and {maximum}"
        msg = f"{name} must be a number{bounds}, not {value!r}"
        raise ValueError(msg)


_MEANT: Final = {
    "db": "database",
    "dbname": "database",
    "hostname": "host",
    "keepalives": "keepalive",
    "reconnect": "backoff",
    "retry": "backoff",
    "username": "user",
}
"""Names that other libraries have for an argument."""


_OF_POOLS: Final = {
    "init",
    "max_inactive_connection_lifetime",
    "max_queries",
    "max_size",
    "min_size",
    "reset",
    "setup",
}
"""Arguments of asyncpg.create_pool that asyncpg.connect does not have."""


def unknown_argument(name: str, known: Iterable[str]) -> str:
    """Return what to say of an unknown keyword argument: the name of the nearest known one."""
    if name in _OF_POOLS:
        return (
            f"unexpected keyword argument {name!r}: it is one of a pool, which Notifier and Log"
            " take as pool=; a listener has one connection"
        )
    near = [_MEANT.get(name, ""), *difflib.get_close_matches(name, known, n=1)]
    meant = next((one for one in near if one in known), None)
    msg = f"unexpected keyword argument {name!r}; it is none of asyncpg.connect either"
    return f"{msg}: did you mean {meant}=?" if meant else msg


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless the value is True or False."""
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, not {value!r}"
        raise TypeError(msg)


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless the value is an object of this class, or None."""
    if value is not None and not isinstance(value, kind):
        what = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        msg = f"{name} must be {_with_article(kind)} or None, not {what}"
        raise TypeError(msg)


def check_present(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless the value is an object of this class."""
    if not isinstance(value, kind):
        what = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        msg = f"{name} must be {_with_article(kind)}, not {what}"
        raise TypeError(msg)


def check_iterable(name: str, value: object, meant: str) -> None:
    """Raise TypeError unless the value can be iterated over; ``meant`` says what it holds."""
    if not isinstance(value, Iterable):
        msg = f"{name} must be {meant}, not of type {type_name(value)}"
        raise TypeError(msg)


def check_mapping(name: str, value: object) -> None:
    """Raise TypeError unless the value is a mapping, or None."""
    if value is not None and not isinstance(value, Mapping):
        msg = f"{name} must be a mapping of names to values, not of type {type_name(value)}"
        raise TypeError(msg)


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"


def check_names(name: str, value: object) -> None:
    """Raise TypeError unless the value is an iterable of texts, and not itself a text."""
    if isinstance(value, str) or not isinstance(value, Collection):
        what = f"the text {value!r}" if isinstance(value, str) else f"of type {type_name(value)}"
        msg = f"{name} must be a list of names, not {what}"
        raise TypeError(msg)
    if not all(isinstance(one, str) and one for one in value):
        msg = f"{name} must be a list of names, and one of them is empty, or no text"
        raise TypeError(msg)


def _number(value: object) -> float | None:
    """Return a finite number as it is; None for NaN, infinity, a bool and any other type."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if isfinite(value) else None
    except OverflowError:  # an int beyond every float
        return None


_CALLED_WITH: Final[dict[str, tuple[str, ...]]] = {
    "handler": ("the Notification",),
    "resync": ("the Gap",),
    "on_error": ("the error", "the Notification or Gap"),
    "on_event": ("the event",),
    "on_incident": ("the incident",),
    "connect": (),
    "password": (),
    "ssl": (),
}


def check_callback(name: str, function: object) -> None:
    """
    Raise TypeError unless the function, async or not, runs when it is called as it will be.

    Args:
        name: The name of the argument: one of those that are called back.
        function: The value of the argument.
    """
    check_function(name, function)
    check_takes(name, function, *_CALLED_WITH[name])


def check_callbacks(**functions: object) -> None:
    """Check each function that is not None, under its name, as ``check_callback()`` does."""
    for name, function in functions.items():
        if function is not None:
            check_callback(name, function)


def check_several_middleware(value: object) -> tuple[Any, ...]:
    """Return the elements of a list or tuple; raise TypeError for anything else."""
    if not isinstance(value, list | tuple):
        msg = f"middleware must be a list of async functions, not of type {type(value).__name__}"
        raise TypeError(msg)
    return tuple(value)


def check_middleware(function: object) -> None:
    """Raise TypeError unless it is an async function that takes a Notification and call_next."""
    check_function("a middleware", function)
    if not is_async(function):
        msg = "a middleware must be an async function: it awaits call_next(notification)"
        raise TypeError(msg)
    check_takes("a middleware", function, "the Notification", "call_next")


def check_on_event(function: object) -> None:
    """Raise TypeError unless the function is a plain one that takes an event, or None."""
    check_callbacks(on_event=function)
    _check_plain("on_event", function, "listener.events()")


def check_on_incident(function: object) -> None:
    """Raise TypeError unless the function is a plain one that takes an incident, or None."""
    check_callbacks(on_incident=function)
    _check_plain("on_incident", function, "log.incidents()")


def _check_plain(name: str, function: object, iterate: str) -> None:
    if is_async(function):
        msg = (
            f"{name} must be a plain function: it is called, and not awaited; coroutines iterate"
            f" over {iterate}"
        )
        raise TypeError(msg)


def check_backoff(function: object) -> None:
    """Raise TypeError unless calling the function returns an iterator, as far as it says."""
    if isinstance(function, int | float):
        msg = f"backoff must be callable, not {function!r}: for example ExponentialBackoff(cap=5)"
        raise TypeError(msg)
    check_callable("backoff", function)
    if isinstance(function, type) and not hasattr(function, "__next__"):
        msg = (
            f"backoff is the class {function.__name__}, and calling a class only makes an object:"
            f" give an object, as {function.__name__}()"
        )
        raise TypeError(msg)
    if is_async(function) or _matches(function, inspect.isasyncgenfunction):
        msg = "backoff must be a plain function: it is called, and not awaited"
        raise TypeError(msg)
    check_takes("backoff", function)


def check_coding(name: str, function: object) -> None:
    """Raise TypeError unless the function, or the class, turns one thing into another at once."""
    check_returns(name, function, "the payload" if name == "encode" else "the text")


def check_returns(name: str, function: object, *arguments: str) -> None:
    """Raise TypeError unless a call of the function, or of the class, returns what it makes."""
    check_callable(name, function)
    check_runs(name, function)
    if is_async(function):
        msg = f"{name} must be a plain function: it is called, and not awaited"
        raise TypeError(msg)
    check_takes(name, function, *arguments)


def check_context(function: object) -> None:
    """Raise TypeError unless the function takes nothing and returns its result at once."""
    check_function("context", function)
    if is_async(function):
        msg = "context must be a plain function: it is called, and not awaited"
        raise TypeError(msg)
    check_takes("context", function)


def check_callable(name: str, function: object) -> None:
    """Raise TypeError unless the object can be called."""
    if not callable(function):
        msg = f"{name} must be callable, not of type {type(function).__name__}"
        if function is None or inspect.isawaitable(function):
            msg += ": give the function itself, not what a call of it returns"
        raise TypeError(msg)


def check_function(name: str, function: object) -> None:
    """Raise TypeError unless the object can be called, and a call runs it."""
    check_callable(name, function)
    if isinstance(function, type):
        msg = (
            f"{name} is the class {function.__name__}, and calling a class only makes an object:"
            " give a function, or an object that can be called"
        )
        raise TypeError(msg)
    check_runs(name, function)


def check_runs(name: str, function: object) -> None:
    """Raise TypeError for a generator function: calling it runs nothing of its body."""
    generators = inspect.isgeneratorfunction, inspect.isasyncgenfunction
    if any(_matches(function, is_generator) for is_generator in generators):
        msg = f"{name} contains a `yield`, so calling {name} would run nothing: remove the `yield`"
        if name == "handler":
            msg += "; for several notifications at a time use listener.stream(…).batches()"
        raise TypeError(msg)


def check_ran(name: str, result: object) -> None:
    """Raise TypeError for a generator that a function has returned: nothing of its body has run."""
    if inspect.isawaitable(result):
        return
    if isinstance(result, GeneratorType | AsyncGeneratorType):
        msg = (
            f"{name} returned a generator, {result.__name__}(), of whose body nothing has run:"
            " call a function without `yield` there"
        )
        raise TypeError(msg)


def check_takes(name: str, function: object, *arguments: str) -> None:
    """Raise TypeError unless the function takes these arguments, as far as its signature says."""
    try:
        signature = inspect.signature(cast("Callable[..., object]", function))
    except (TypeError, ValueError):
        return  # some functions written in C have no signature
    try:
        signature.bind(*arguments)
    except TypeError as error:
        wanted = f"{len(arguments)} argument{'' if len(arguments) == 1 else 's'}"
        meant = f" ({', '.join(arguments)})" if arguments else ""
        hint = f"; define it with {wanted}"
        if _takes_four(signature) and len(arguments) == 1:
            hint = _OF_ADD_LISTENER
        msg = f"{name} is called with {wanted}{meant}: {error}{hint}"
        raise TypeError(msg) from None


def check_plain_function(name: str, function: object, *arguments: str) -> None:
    """Raise TypeError unless a call with these arguments runs the function to its end."""
    check_function(name, function)
    if is_async(function):
        msg = f"{name} must be a plain function: nothing would await what a call of it returns"
        raise TypeError(msg)
    check_takes(name, function, *arguments)


def _takes_four(signature: inspect.Signature) -> bool:
    try:
        signature.bind(None, None, None, None)
    except TypeError:
        return False
    return True


def is_async(function: object) -> bool:
    """Return whether the function is an ``async def``, or an object whose ``__call__`` is one."""
    return _matches(function, inspect.iscoroutinefunction)


def _matches(function: object, test: Callable[[object], bool]) -> bool:
    """Test a function, and the ``__call__`` of an object that is not a function."""
    return test(function) or test(getattr(type(function), "__call__", None))  # noqa: B004 - the method itself is needed
