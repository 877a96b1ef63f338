"""``end_streams_on_signal()``: on the signal streams end, and whoever handles it learns of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import AlreadyEnteredError, BlockingListener, Listener
from asyncnotify.ext.shutdown import end_streams_on_signal
from asyncnotify.log import BlockingLog, Log
from asyncnotify.testing.fake import FakeServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNAL = signal.SIGUSR1


class Streams:
    """What has streams: it notes the calls."""

    def __init__(self, calls: list[object]) -> None:
        self._calls = calls

    def end_streams(self, *, also_new: bool = False) -> None:
        """Note it."""
        self._calls.append(also_new)


class Server:
    """A handler of signals, as a server has one: it notes the calls, too."""

    def __init__(self, calls: list[object]) -> None:
        self._calls = calls

    def __call__(self, number: int, _frame: object = None) -> None:
        """Note it."""
        self._calls.append(signal.Signals(number))


@pytest.fixture
def calls() -> list[object]:
    """The calls, in their order."""
    return []


@pytest.fixture
def streams(calls: list[object]) -> Streams:
    """What has streams."""
    return Streams(calls)


@pytest.fixture
def server(calls: list[object]) -> Iterator[Server]:
    """The server's handler, which is installed."""
    handler = Server(calls)
    before = signal.signal(SIGNAL, handler)
    yield handler
    signal.signal(SIGNAL, before)


# -- handlers -------------------------------------------------------------------------------------


def test_streams_end_and_then_the_servers_handler_is_called(
    streams: Streams, server: Server, calls: list[object]
) -> None:
    """Within the context; behind it the former handler is back."""
    with end_streams_on_signal(streams, signals=[SIGNAL]):
        signal.raise_signal(SIGNAL)
        assert calls == [True, SIGNAL]
    assert signal.getsignal(SIGNAL) is server
    signal.raise_signal(SIGNAL)
    assert calls == [True, SIGNAL, SIGNAL]


def test_the_signals_to_stop_are_meant_unless_others_are_given(streams: Streams) -> None:
    """Ctrl-C, and what process managers send."""
    stopping = [signal.SIGINT, signal.SIGTERM]
    before = [signal.getsignal(number) for number in stopping]
    with end_streams_on_signal(streams):
        for number, handler in zip(stopping, before, strict=True):
            assert signal.getsignal(number) is not handler
    assert [signal.getsignal(number) for number in stopping] == before


@pytest.mark.usefixtures("server")
def test_contexts_may_be_nested(streams: Streams, calls: list[object]) -> None:
    """Each ends its streams; in whatever order they are left, the server's handler is called."""
    outer, inner = (end_streams_on_signal(streams, signals=[SIGNAL]) for _ in range(2))
    with outer, inner:
        signal.raise_signal(SIGNAL)
    assert calls == [True, True, SIGNAL]
    calls.clear()
    outer.__enter__()
    with inner:
        outer.__exit__(None, None, None)
        signal.raise_signal(SIGNAL)
    signal.raise_signal(SIGNAL)
    assert calls == [True, SIGNAL, SIGNAL]


@pytest.mark.usefixtures("server")
def test_a_handler_that_was_installed_later_stays(streams: Streams, calls: list[object]) -> None:
    """Also one that calls those before it: what is left of the context passes the signal on."""
    with end_streams_on_signal(streams, signals=[SIGNAL]):
        before: Any = signal.getsignal(SIGNAL)

        def later(number: int, frame: object) -> None:
            calls.append("later")
            before(number, frame)

        signal.signal(SIGNAL, later)
    assert signal.getsignal(SIGNAL) is later
    signal.raise_signal(SIGNAL)
    assert calls == ["later", SIGNAL]


@pytest.mark.usefixtures("server")
def test_a_context_may_be_used_again_but_not_within_itself(
    streams: Streams, calls: list[object]
) -> None:
    """As the lifespan of an application may be run again."""
    context = end_streams_on_signal(streams, signals=[SIGNAL])
    for _ in range(2):
        with context:
            with pytest.raises(AlreadyEnteredError), context:
                pass
            signal.raise_signal(SIGNAL)
    assert calls == [True, SIGNAL] * 2


def test_a_signal_that_is_ignored_ends_no_later_streams(
    streams: Streams, server: Server, calls: list[object]
) -> None:
    """The process goes on, or its parent ends it: later streams may serve for a long time."""
    signal.signal(SIGNAL, signal.SIG_IGN)
    with end_streams_on_signal(streams, signals=[SIGNAL]):
        signal.raise_signal(SIGNAL)
    assert calls == [False]
    assert signal.getsignal(SIGNAL) is signal.SIG_IGN
    signal.signal(SIGNAL, server)


def test_a_signal_that_nobody_handles_ends_the_process() -> None:
    """As it does without the context; Ctrl-C raises KeyboardInterrupt."""
    program = """
import signal, sys
from asyncnotify.ext.shutdown import end_streams_on_signal
class Streams:
    def end_streams(self, *, also_new=False):
        print("ended", flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
with end_streams_on_signal(Streams()):
    signal.raise_signal(int(sys.argv[1]))
    print("goes on")
"""
    for number, said in ((signal.SIGTERM, b""), (signal.SIGINT, b"KeyboardInterrupt")):
        command = [sys.executable, "-c", program, str(int(number))]
        ran = subprocess.run(command, capture_output=True, check=False, timeout=scaled(50))
        assert (ran.returncode, ran.stdout) == (-number, b"ended\n")
        assert said in ran.stderr


# -- targets --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
def test_a_function_says_at_the_signal_what_has_streams(calls: list[object]) -> None:
    """Each start of an application may make a listener of its own."""
    present: list[Streams] = []
    with end_streams_on_signal(lambda: present[-1], signals=[SIGNAL]):
        present.append(Streams(calls))
        signal.raise_signal(SIGNAL)
    assert calls == [True, SIGNAL]


@pytest.mark.usefixtures("server")
def test_an_error_keeps_no_other_from_the_signal(
    streams: Streams, calls: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the other streams end, and the server stops."""
    present: list[Streams] = []
    with end_streams_on_signal(lambda: present[-1], streams, signals=[SIGNAL]):
        signal.raise_signal(SIGNAL)
    assert calls == [True, SIGNAL]
    assert "IndexError" in caplog.text


@pytest.mark.parametrize("cls", [Listener, BlockingListener])
def test_listeners_are_taken(cls: type[Listener | BlockingListener]) -> None:
    """Of either face, also before they run."""
    with end_streams_on_signal(cls("postgresql://db/app")):
        pass


def test_logs_are_taken() -> None:
    """Of either face."""
    with end_streams_on_signal(Log("orders"), BlockingLog("orders")):
        pass


def test_what_cannot_be_right_is_refused(streams: Streams) -> None:
    """Where it is given, and not when the signal comes."""
    wrong: Any = "orders"
    with pytest.raises(TypeError, match="at least one"):
        end_streams_on_signal()
    with pytest.raises(TypeError, match="not of type str"):
        end_streams_on_signal(streams, wrong)
    with pytest.raises(ValueError, match="SIGKILL"):
        end_streams_on_signal(streams, signals=[signal.SIGKILL])
    unknown: Any
    for unknown in (4711, "TERM"):
        with pytest.raises(ValueError, match=rf"as signal\.SIGTERM, not {unknown!r}"):
            end_streams_on_signal(streams, signals=[unknown])


@pytest.mark.usefixtures("server")
def test_in_another_thread_nothing_happens(
    streams: Streams, calls: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """No handler of signals can be installed there, and one line says so: test clients do that."""
    caplog.set_level(logging.INFO, "asyncnotify")

    def enter() -> None:
        with end_streams_on_signal(streams, signals=[SIGNAL]):
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert calls == [SIGNAL]
    assert "not the main thread" in caplog.text


# -- event loops ----------------------------------------------------------------------------------


def by_signal_module(handler: Server) -> None:
    """Handle the signal as uvicorn does."""
    signal.signal(SIGNAL, handler)


def by_the_loop(handler: Server) -> None:
    """Handle the signal as hypercorn, granian and aiohttp do."""
    asyncio.get_running_loop().add_signal_handler(SIGNAL, handler, SIGNAL)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("handle", [by_signal_module, by_the_loop])
def test_a_loop_that_has_nothing_to_do_is_woken(
    loop: str, handle: Callable[[Server], None], calls: list[object]
) -> None:
    """Streams end, and the server's handler is called, whoever has installed it."""
    factory = None
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    before = signal.getsignal(SIGNAL)
    fake = FakeServer()

    async def serve() -> None:
        handle(Server(calls))
        async with (
            Listener(fake.dsn, heartbeat=3600) as listener,
            end_streams_on_signal(listener, signals=[SIGNAL]),
            listener.stream("orders") as stream,
        ):
            ringing = threading.Timer(0.1, os.kill, (os.getpid(), SIGNAL))
            ringing.start()
            assert [item async for item in stream] == []
            ringing.join()
            assert [item async for item in listener.stream("orders")] == []
        while not calls:  # noqa: ASYNC110 - a handler of signals cannot set an event
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve())
    signal.signal(SIGNAL, before)
    assert calls == [SIGNAL]


class OnlyOpenStreams:
    """The streams of a listener that are open, and no later ones: they may end again and again."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def end_streams(self, *, also_new: bool = False) -> None:
        """End them."""
        self._listener.end_streams()


async def read_for_a_while(fake: FakeServer, listener: Listener) -> bool:
    """Take notifications from a stream, 20 or as many as come; return whether it has ended."""
    async with listener.stream("orders", "other") as stream:
        for number in range(20):
            fake.notify("orders", str(number))
            if await anext(stream, None) is None:
                return True
    return False


@pytest.mark.usefixtures("server")
def test_signals_may_come_at_any_point() -> None:
    """Some hundreds, while notifications arrive and streams come and go: nothing breaks."""
    fake = FakeServer()
    stopped = threading.Event()

    def ring() -> None:
        while not stopped.wait(0.001):
            os.kill(os.getpid(), SIGNAL)

    async def serve() -> None:
        async with Listener(fake.dsn) as listener:
            with end_streams_on_signal(OnlyOpenStreams(listener), signals=[SIGNAL]):
                ringing = threading.Thread(target=ring)
                ringing.start()
                ends = [await read_for_a_while(fake, listener) for _ in range(300)]
                stopped.set()
                ringing.join()
            assert any(ends)
            assert listener.channels == frozenset()

    with asyncio.Runner() as runner:
        runner.run(serve())
