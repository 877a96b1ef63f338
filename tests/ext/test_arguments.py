"""What cannot be right is refused when it is given, by an error that says what is wrong."""

from __future__ import annotations

import contextlib
import importlib
import signal
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from asyncnotify import Listener, Notifier
from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from asyncnotify.log import LogStatus

pytest.importorskip("aiohttp")
pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")
pytest.importorskip("sse_starlette")

from aiohttp import web
from starlette.websockets import WebSocket

aiohttp, opentelemetry, prometheus, starlette, doctor, fanout, shutdown = (
    cast("Any", importlib.import_module(f"asyncnotify.{name}"))
    for name in (
        "ext.aiohttp",
        "ext.opentelemetry",
        "ext.prometheus",
        "ext.starlette",
        "doctor",
        "ext.fanout",
        "ext.shutdown",
    )
)
"""As those see them who check no types."""

DSN: Final = "postgresql://nowhere/"
LISTENER: Final = Listener(DSN)
STREAM: Final = LISTENER.stream("orders")


async def coroutine_function() -> Listener:
    """Return a listener to who awaits it."""
    return LISTENER


async def undecorated(_: object) -> AsyncIterator[None]:
    """Lack the decorator that makes it a context manager."""
    yield


async def without_yield(_: object) -> None:
    """Be no context manager."""


@contextlib.asynccontextmanager
async def of_none() -> AsyncGenerator[None]:
    """Lack the argument."""
    yield


def no_logs() -> list[LogStatus]:
    """Return what is known of no log."""
    return []


WRONG: Final[dict[str, tuple[Callable[[], object], str]]] = {
    "aiohttp: no application": (
        lambda: aiohttp.setup(None, LISTENER),
        "app must be an Application, not NoneType",
    ),
    "aiohttp: no application for a log": (
        lambda: aiohttp.setup_log(5, Log("orders", DSN)),
        "app must be an Application, not int",
    ),
    "aiohttp: a coroutine function": (
        lambda: aiohttp.setup(web.Application(), coroutine_function),
        "source must be a plain function",
    ),
    "aiohttp: a class": (
        lambda: aiohttp.setup(web.Application(), Listener),
        "source is the class Listener",
    ),
    "aiohttp: no key": (
        lambda: aiohttp.setup(web.Application(), LISTENER, key=5),
        "key must be an AppKey, not int",
    ),
    "starlette: no DSN": (
        lambda: starlette.lifespan(5),
        "dsn must be a str",
    ),
    "starlette: a notifier": (
        lambda: starlette.lifespan(Notifier(DSN)),
        "dsn must be a str.*Notifier",
    ),
    "starlette: two listeners": (
        lambda: starlette.lifespan(LISTENER, DSN),
        "two of type Listener: .* inner=",
    ),
    "starlette: no lifespan within": (
        lambda: starlette.lifespan(DSN, inner=5),
        "inner must be callable, not of type int",
    ),
    "starlette: a lifespan without its decorator": (
        lambda: starlette.lifespan(DSN, inner=undecorated),
        "@contextlib.asynccontextmanager",
    ),
    "starlette: a lifespan without yield": (
        lambda: starlette.lifespan(DSN, inner=without_yield),
        "`yield`.*@contextlib.asynccontextmanager",
    ),
    "starlette: a lifespan without an argument": (
        lambda: starlette.lifespan(DSN, inner=of_none),
        "inner is called with 1 argument",
    ),
    "starlette: no headers": (
        lambda: starlette.sse(STREAM, headers=5),
        "headers must be a mapping",
    ),
    "starlette: no request": (
        lambda: starlette.get_listener(LISTENER),
        "connection must be .* HTTPConnection, not Listener",
    ),
    "prometheus: nothing": (prometheus.Collector, "nothing to collect"),
    "opentelemetry: no tracers": (
        lambda: opentelemetry.instrument(Listener(DSN), tracer_provider=5),
        "tracer_provider must be a TracerProvider of OpenTelemetry or None, not int",
    ),
    "opentelemetry: no meters": (
        lambda: opentelemetry.observe_logs(no_logs, meter_provider=5),
        "meter_provider must be a MeterProvider of OpenTelemetry or None, not int",
    ),
    "opentelemetry: no client": (
        lambda: opentelemetry.instrument(Listener(DSN), client_id=5),
        "client_id must be a str or None, not int",
    ),
    "fanout: no listener": (
        lambda: fanout.Fanout(Notifier(DSN)),
        "listener must be a Listener, .* not asyncnotify.Notifier",
    ),
    "shutdown: no list": (
        lambda: shutdown.end_streams_on_signal(LISTENER, signals=signal.SIGTERM),
        r"signals must be a list .*signal\.SIGTERM",
    ),
    "doctor: no report": (
        lambda: doctor.as_text(None),
        "report must be a Report, not NoneType",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_told_when_it_is_given(wrong: str) -> None:
    """By a TypeError that names the argument, what was given and what is needed."""
    call, told = WRONG[wrong]
    with pytest.raises(TypeError, match=told):
        call()


@pytest.mark.parametrize("seconds", [None, 0, -1, "5"])
def test_the_seconds_between_comments_are_checked(seconds: Any) -> None:
    """None would not switch the comments off."""
    with pytest.raises(ValueError, match="ping must be a positive number of seconds"):
        starlette.sse(STREAM, ping=seconds)


@pytest.mark.parametrize("channels", [None, 5, LISTENER, iter(["orders"]), "orders", []])
async def test_channels_that_are_no_list_are_told(channels: Any) -> None:
    """A generator too: it would be empty after the check."""
    with pytest.raises(TypeError, match="channels must be a list of names or Channels"):
        await fanout.Fanout(LISTENER).check(channels, "client")


async def test_a_request_of_another_kind_is_told() -> None:
    """Where the parts of a framework are confused."""
    with pytest.raises(TypeError, match="request must be a Request, not Listener"):
        await aiohttp.health(LISTENER)
    with pytest.raises(TypeError, match="fanout must be a Fanout, not Listener"):
        await starlette.websocket(socket(), LISTENER, ["orders"], None)


def socket() -> WebSocket:
    """Return a WebSocket that nobody has opened."""
    nothing: Any = None
    return WebSocket({"type": "websocket"}, receive=nothing, send=nothing)
