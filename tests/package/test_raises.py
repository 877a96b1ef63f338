"""That `Raises:` of the docstrings is complete, and that a mistake is refused where it is made."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import asyncnotify
from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    Channel,
    ConnectError,
    ExponentialBackoff,
    Keepalive,
    Listener,
    Notifier,
)
from tests.support.docstrings import exception_named, public_callables, raised_by, raised_names
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DSN: Final = "postgresql://127.0.0.1:1/nowhere"


class Pool:
    """What is taken for a pool, and is none."""


def generator(*_: object) -> Iterator[float]:
    """Run nothing when called."""
    yield 1.0


async def async_generator(*_: object) -> AsyncIterator[float]:
    """Run nothing when called."""
    yield 1.0


async def coroutine(*_: object) -> None:
    """Be awaited."""


async def one_argument(_: object) -> None:
    """Take less than a middleware is called with."""


def of_five(a: int, b: int, c: int, d: int, e: int) -> None:
    """Take more than anything is called with."""


SECONDS = [0, -1, math.nan, math.inf, True, "5", b"5", [5]]
TIMEOUT = [-1, math.nan, math.inf, True, "5", b"5", [5]]
COUNT = [0, -1, 1.5, math.nan, True, "5", [5]]
FLAG = [1, 0, None, "no"]
CHANNEL = ["", "x" * 64, "é" * 32, "a\0b", "\ud800", b"orders", None, 5, ["orders"]]
FUNCTION = [5, "print", generator, async_generator, of_five, Pool]
CODING = [5, "str", generator, async_generator, coroutine, of_five]

WRONG: Final[dict[str, list[Any]]] = {
    "backoff": [None, 5, ExponentialBackoff, coroutine, async_generator, of_five, Pool],
    "buffer": COUNT,
    "cap": SECONDS,
    "channel": CHANNEL,
    "channels": CHANNEL,
    "close_timeout": [*SECONDS, None],
    "compress": FLAG,
    "concurrency": COUNT,
    "connect": [*FUNCTION, Pool(), DSN],
    "connect_timeout": [*SECONDS, None],
    "connection": [5, Pool(), DSN],
    "context": [5, "str", generator, async_generator, coroutine, of_five, Pool],
    "count": [*COUNT, 128],
    "decode": CODING,
    "dsn": [5, DSN.encode(), Pool()],
    "encode": CODING,
    "engine": [5, None, DSN, create_async_engine("postgresql+psycopg://")],
    "factor": [*SECONDS, 0.5],
    "function": [*FUNCTION, None, print, one_argument],
    "gaps": FLAG,
    "also_new": FLAG,
    "handler": [*FUNCTION, None],
    "heartbeat": SECONDS,
    "heartbeat_timeout": [*SECONDS, None],
    "idle": [*COUNT, 40_000],
    "in_thread": FLAG,
    "initial": [*SECONDS, 6],
    "interval": [*COUNT, 40_000],
    "keepalive": [3, True, Keepalive],
    "keys": [5, [], [b"short"], ["x" * 16], b"0123456789abcdef"],
    "kind": [Pool, object()],
    "latest": FLAG,
    "limit": [*COUNT, None],
    "middleware": [5, "trace", coroutine, [5], [None], [print], [one_argument]],
    "name": CHANNEL,
    "max_connection_age": SECONDS,
    "on_error": FUNCTION,
    "on_event": [*FUNCTION, coroutine],
    "operation_timeout": [*SECONDS, None],
    "overflow": ["drop", 5, [], True],
    "pairs": [5, None, len],
    "payload": ["\0", "\ud800", "x" * 8000, b"x", 5, None],
    "pool": [5, Pool(), DSN],
    "queue": [*COUNT, None],
    "resync": FUNCTION,
    "retry": FLAG,
    "retry_timeout": [*SECONDS, None],
    "server": FLAG,
    "slow_after": SECONDS,
    "start_timeout": SECONDS,
    "timeout": TIMEOUT,
    "unique": FLAG,
    "user_timeout": [*COUNT, 10**10],
}
WRONG_THERE: Final[dict[str, list[Any]]] = {
    "Channel.decode(payload)": [b"x", 5, None],  # whatever text has arrived is the payload
    "Reread(count)": [*COUNT[1:], 2**63],  # senders may count to 0
}
NEEDED: Final[dict[str, Any]] = {
    "channel": "orders",
    "engine": create_async_engine("postgresql+asyncpg://127.0.0.1:1/nowhere"),
    "handler": print,
    "name": "orders",
    "pairs": (),
}
TOGETHER: Final[list[tuple[str, dict[str, Any]]]] = [
    *((face, {"nonsense": 1}) for face in ("Listener", "Notifier")),
    *((face, {"timeout": 1}) for face in ("Listener", "Notifier")),
    *((face, {"pool": Pool()}) for face in ("Listener", "BlockingListener", "BlockingNotifier")),
    *((face, {"password": 5}) for face in ("Listener", "Notifier")),
    *((face, {"connect": coroutine, "dsn": DSN}) for face in ("Listener", "BlockingNotifier")),
    *((face, {"connect": coroutine, "user": "joe"}) for face in ("BlockingListener", "Notifier")),
    ("Listener.from_sqlalchemy", {"nonsense": 1}),
    ("BlockingListener.from_sqlalchemy", {"connect": coroutine}),
    ("Notifier.from_sqlalchemy", {"dsn": DSN}),
    *((f"{face}.listen", {"latest": True, "buffer": 5}) for face in ("Listener",)),
    ("BlockingListener.on", {"latest": True, "overflow": "fail"}),
    ("Listener.stream", {"latest": True, "overflow": "drop_oldest"}),
    ("Listener.stream", {"channels": ()}),
    ("BlockingListener.stream", {"channels": ("orders", Channel("orders", int))}),
    ("Listener.listen", {"nonsense": 1}),
    ("BlockingListener.listen", {"handler": coroutine}),
    ("BlockingListener.stream", {"on_error": coroutine}),
    ("Notifier.notify", {"connection": Pool(), "retry": True}),
    ("Channel", {"kind": int, "encode": str, "decode": int}),
    ("Channel", {"kind": int, "encode": str}),
    ("Channel", {"encode": dict}),
    ("Channel", {"kind": None, "decode": int}),
    *(
        (f"{face}.{method}", {"channel": Channel("orders", encode=str)})
        for face in ("Listener", "BlockingListener")
        for method in ("listen", "on")
    ),
    *(
        (f"{face}.stream", {"channels": ("jobs", Channel("orders", encode=str))})
        for face in ("Listener", "BlockingListener")
    ),
    *(
        (f"{face}.notify", {"channel": Channel("orders", decode=int)})
        for face in ("Listener", "BlockingListener", "Notifier", "BlockingNotifier")
    ),
]

CALLABLES = dict(public_callables())
REFUSING = [
    name
    for name, thing in CALLABLES.items()
    if name.rpartition(".")[0] or raised_names(thing)  # errors and events are not for users to make
]


def subject(name: str) -> Any:
    """Return an object of a class, which has never touched the network."""
    listeners = {"Listener": Listener, "BlockingListener": BlockingListener}
    if name in listeners:
        return listeners[name](DSN)
    if name in {"Notifier", "BlockingNotifier"}:
        return getattr(asyncnotify, name)(DSN, start_timeout=scaled(0.1))
    made: dict[str, Any] = {
        "Channel": Channel("orders"),
        "Stream": Listener(DSN).stream("orders"),
        "BlockingStream": BlockingListener(DSN).stream("orders"),
        "BlockingEventStream": BlockingListener(DSN).events(),
    }
    return made[name]


async def call(name: str, arguments: dict[str, Any]) -> None:
    """Call a public callable with these arguments, and with what it needs besides."""
    thing, (cls, _, method) = CALLABLES[name], name.partition(".")
    if method:
        thing = getattr(asyncnotify if method == "from_sqlalchemy" else subject(cls), method, None)
        thing = thing or getattr(getattr(asyncnotify, cls), method)
    needed = {
        parameter.name: NEEDED.get(parameter.name, "orders")
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    named = {**needed, **arguments}
    if isinstance(named.get("channels", ()), tuple) and method == "stream":
        result = thing(*named.pop("channels", ("orders",)), **named)
    elif method == "stream":
        result = thing(named.pop("channels"), **named)
    else:
        result = thing(**named)
    if method == "on":
        result(print)
    elif inspect.isawaitable(result):
        await result


def parameters(name: str) -> list[str]:
    """Return the names of what a callable may be given, without what it passes on."""
    found = inspect.signature(CALLABLES[name]).parameters.values()
    return [p.name for p in found if p.name not in {"self", "cls"} and p.kind is not p.VAR_KEYWORD]


def wrong_calls(name: str) -> Iterator[dict[str, Any]]:
    """Yield wrong arguments for a callable, one at a time."""
    for parameter in parameters(name):
        known = WRONG_THERE.get(f"{name}({parameter})") or WRONG.get(parameter, [])
        yield from ({parameter: value} for value in known)


@pytest.mark.parametrize("name", CALLABLES)
def test_r48_what_is_listed_is_known_to_users(name: str) -> None:
    """Every exception under `Raises:` is public, or one of Python's own."""
    names = raised_names(CALLABLES[name])
    assert not [listed for listed in names if exception_named(listed) is None]
    assert len(names) == len(set(names))


def test_r48_no_argument_is_forgotten() -> None:
    """For each argument of each public callable there are values that it must not be given."""
    known = {parameter for name in REFUSING for parameter in parameters(name)}
    of_special_methods = {"exc_type", "exc", "traceback"}
    assert known - of_special_methods == set(WRONG)


@pytest.mark.parametrize("name", [n for n in REFUSING if any(wrong_calls(n))])
async def test_r48_a_wrong_argument_is_refused_before_any_io(name: str) -> None:
    """By a TypeError or ValueError that the docstring lists, also where nothing is running yet."""
    taken: list[object] = []
    for arguments in wrong_calls(name):
        try:
            await call(name, arguments)
        except raised_by(CALLABLES[name]) as error:
            if isinstance(error, TypeError | ValueError) and not isinstance(error, ConnectError):
                continue
            taken.append((arguments, error))
        else:
            taken.append(arguments)
    assert taken == []


@pytest.mark.parametrize(("name", "arguments"), TOGETHER)
async def test_r48_what_does_not_go_together_is_refused(
    name: str, arguments: dict[str, Any]
) -> None:
    """By a TypeError that the docstring lists."""
    with pytest.raises(TypeError):
        await call(name, arguments)
    assert TypeError in raised_by(CALLABLES[name])


def test_r48_a_class_of_delays_is_told_to_be_called() -> None:
    """The likeliest mistake: ExponentialBackoff instead of ExponentialBackoff()."""
    with pytest.raises(TypeError, match=r"give an object, as ExponentialBackoff\(\)"):
        Notifier(backoff=ExponentialBackoff)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    BlockingNotifier(backoff=lambda: iter([1.0]))
