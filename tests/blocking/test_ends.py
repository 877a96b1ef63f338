"""Ctrl-C, ends without close(), forks, and what tries to keep close() from returning."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify import BlockingListener, BlockingNotifier, ConnectionLost, State
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncnotify.testing.server import PostgresServer

WAIT_LIMIT = scaled(20.0)

SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncnotify'"

PRELUDE = """
import logging, os, signal, sys, threading
from asyncnotify import *

logging.basicConfig(level=logging.ERROR)

def say(*words):
    print(*words, flush=True)

def interruptible(wait):
    '''Call what Ctrl-C may end, which elsewhere would hit the script itself.'''
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        wait()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    except KeyboardInterrupt:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        say("interrupted")
    else:
        say("not interrupted")

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
dsn, what = sys.argv[1:]
listener = BlockingListener(dsn, close_timeout=20)
never = threading.Event()
"""

INTERRUPTED = """
long = dict(connect_timeout=60, operation_timeout=60)  # without Ctrl-C
listener = BlockingListener(dsn, **long, heartbeat_timeout=60)
other = BlockingListener(dsn, **long, heartbeat_timeout=60, close_timeout=60)
notifier = BlockingNotifier(dsn, **long)
with listener, other:
    stream = listener.stream("orders").__enter__()
    listener.listen("old", print)
    other.listen("slow", lambda n: never.wait())
    other.notify("slow")
    while other.stats().delivered == 0:
        pass
    wait = {
        "next": lambda: next(stream),
        "get": lambda: stream.get(60),
        "enter": lambda: listener.stream("more").__enter__(),
        "listen": lambda: listener.listen("more", print),
        "first": lambda: next(listener.stream("more")),
        "unlisten": lambda: listener.unlisten("old"),
        "notify": lambda: listener.notify("more"),
        "many": lambda: notifier.notify_many([("more", "1")]),
        "start": BlockingListener(dsn, **long).start,
        "close": other.close,
    }[what]
    say("ready")
    sys.stdin.readline()
    say("waiting")
    interruptible(wait)
    sys.stdin.readline()
    never.set()
    assert listener.channels == ({"orders"} if what == "unlisten" else {"orders", "old"})
    listener.wait_connected(20)
    listener.unlisten("none")
    listener.notify("orders", "1")
    assert stream.get(20).payload == "1"
    notifier.notify("orders", "2")
    assert next(stream).payload == "2"
notifier.close()
say("closed", listener.state, other.state)
"""

STORM = """
notifier = BlockingNotifier(dsn)
stop, sent, got = threading.Event(), [0], []

def take():
    while True:
        got.append(next(stream))

def send():
    while not stop.wait(0.005):
        notifier.notify("orders", str(sent[0]))
        sent[0] += 1
    notifier.notify("orders", "end")
    notifier.close()

with listener, listener.stream("orders") as stream:
    sender = threading.Thread(target=send)
    sender.start()
    say("waiting")
    for _ in range(25):
        interruptible(take)
    stop.set()
    while not got or got[-1].payload != "end":
        got.append(next(stream))
    sender.join()
assert [n.payload for n in got] == [*map(str, range(sent[0])), "end"]
say("closed")
"""

ENDS = """
def take():
    for item in listener.stream("orders", gaps=True):
        say(item.reason if isinstance(item, Gap) else item.payload)
        if not isinstance(item, Gap) and item.payload == "end":
            break

listener.start()
listener.listen("slow", lambda n: (say("slow"), never.wait()))
say("ready")
if what == "handler":
    listener.notify("slow")
    sys.stdin.readline()
if what == "daemon":
    threading.Thread(target=take, daemon=True).start()
    sys.stdin.readline()
if what == "thread":
    threading.Thread(target=take).start()
if what == "notifier":
    BlockingNotifier(dsn).notify("orders")
if what == "raises":
    sys.exit(3)
"""

FORKED = """
lazy = BlockingNotifier(dsn)
opened = BlockingNotifier(dsn)
events = listener.events()
with listener, opened, listener.stream("orders") as stream:
    subscription = listener.listen("more", print)
    for i in range(3):
        opened.notify("orders", str(i))
    while stream.stats().backlog < 3:
        pass
    assert next(stream).payload == "0"  # the others are fetched as well
    child = os.fork()
    if child == 0:
        for call in (
            lambda: listener.notify("orders"),
            lambda: listener.listen("orders", print),
            lambda: listener.stream("orders").get(1),
            lambda: next(stream),
            listener.close,
            stream.close,
            subscription.cancel,
            lambda: opened.notify("orders"),
            opened.close,
        ):
            try:
                call()
            except WrongLoopError as error:
                assert "process" in str(error)
            else:
                say("a call in the child went through")
        assert listener.stats().state == listener.state == "new"  # nothing runs in this process
        assert not listener.is_connected
        assert not subscription.active
        listener.start()
        opened.start()
        assert events.get(20).backend_pid == listener.health()["backend_pid"]
        with listener.stream("child") as own:
            opened.notify("child", "1")
            assert own.get(20).payload == "1"
            listener.notify("child", "2")
            assert own.get(20).payload == "2"
        lazy.notify("orders", "from the child")
        lazy.close()
        if what == "exit":
            os._exit(0)
        sys.exit(7)  # through the blocks, which have nothing to close here
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if what == "exit" else 7)
    listener.notify("orders", "end")
    assert [stream.get(20).payload for _ in range(4)] == ["1", "2", "from the child", "end"]
say("closed")
"""


class Program:
    """A script that runs in a process of its own."""

    def __init__(self, script: str, dsn: str, what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PRELUDE + script, dsn, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout

    def expect(self, line: str) -> None:
        """Read a line, which has to be this one."""
        said = self._stdout.readline().strip()
        assert said == line, (said, self.process.stderr and self.process.stderr.read())

    def go_on(self) -> None:
        """Let it go on."""
        self._stdin.write("\n")
        self._stdin.flush()

    def until_it_sleeps(self) -> None:
        """Return when its main thread waits for something."""
        pid = self.process.pid
        stat = Path(f"/proc/{pid}/task/{pid}/stat")
        while (
            stat.exists() and stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] != "S"
        ):
            pass

    def interrupt(self) -> None:
        """Press Ctrl-C while it waits."""
        self.until_it_sleeps()
        self.process.send_signal(signal.SIGINT)

    def end(self, code: int = 0) -> None:
        """Wait until it ends by itself, without complaint."""
        _, said = self.process.communicate(timeout=WAIT_LIMIT)
        # That start() keeps trying is a WARNING, which Python prints where no logging is configured
        complaints = [line for line in said.splitlines() if "start() keeps trying" not in line]
        assert (self.process.returncode, complaints) == (code, [])

    def kill(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def run() -> Iterator[Callable[..., Program]]:
    """What starts a program, which ends with the test."""
    programs: list[Program] = []

    def start(script: str, dsn: str, what: str = "") -> Program:
        programs.append(Program(script, dsn, what))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def sessions(server: PostgresServer) -> list[int]:
    """Return the process ids of asyncnotify's sessions."""
    return asyncio.run(read_sessions(server.dsn))


async def read_sessions(dsn: str) -> list[int]:
    """Return the process ids of asyncnotify's sessions."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "tests"})
    try:
        return [row["pid"] for row in await connection.fetch(SESSIONS)]
    finally:
        await connection.close(timeout=5)


# -- Ctrl-C ---------------------------------------------------------------------------------------

WAITS = ("next", "get", "enter", "listen", "first", "unlisten", "notify", "many", "start", "close")


@pytest.mark.parametrize("wait", WAITS)
def test_an_interrupt_gets_out_of_every_wait(
    own_server: PostgresServer, run: Callable[..., Program], wait: str
) -> None:
    """Ctrl-C ends each call at once; what it waited for is withdrawn, and all is usable."""
    program = run(INTERRUPTED, own_server.dsn, wait)
    program.expect("ready")
    backends = sessions(own_server)
    own_server.freeze()
    for backend in backends:
        own_server.freeze_backend(backend)
    program.go_on()
    program.expect("waiting")
    began = time.monotonic()
    program.interrupt()
    program.expect("interrupted")
    assert time.monotonic() - began < scaled(2.5)  # without it, a minute
    own_server.thaw()
    for backend in backends:
        own_server.thaw_backend(backend)
    program.go_on()
    program.expect("closed closed closed")
    program.end()


def test_interrupts_lose_no_item(dsn: str, run: Callable[..., Program]) -> None:
    """However often waiting for an item is interrupted, each comes once and in order."""
    program = run(STORM, dsn)
    program.expect("waiting")
    for _ in range(25):
        program.interrupt()
        program.expect("interrupted")
    program.expect("closed")
    program.end()


# -- the end of the interpreter -------------------------------------------------------------------


@pytest.mark.parametrize(("what", "code"), [("nothing", 0), ("daemon", 0), ("raises", 3)])
def test_a_program_ends_without_close(
    dsn: str, run: Callable[..., Program], what: str, code: int
) -> None:
    """A program that forgets to close ends all the same, and its sessions with it."""
    program = run(ENDS, dsn, what)
    program.expect("ready")
    if what == "daemon":
        program.expect("start")
        program.go_on()
    program.end(code)


def test_a_program_ends_though_a_handler_blocks(dsn: str, run: Callable[..., Program]) -> None:
    """A handler that never returns does not keep the interpreter from ending."""
    program = run(ENDS, dsn, "handler")
    program.expect("ready")
    program.expect("slow")
    program.go_on()
    program.end()


def test_a_program_ends_with_an_open_notifier(dsn: str, run: Callable[..., Program]) -> None:
    """A notifier that was opened by its first call need not be closed."""
    program = run(ENDS, dsn, "notifier")
    program.expect("ready")
    program.end()


@pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 2),
    reason="these start no thread once the main one has ended: no name can be looked up",
)
def test_threads_go_on_when_the_main_thread_has_ended(
    own_server: PostgresServer, run: Callable[..., Program]
) -> None:
    """A thread that takes from a stream is served further, also across an outage, by host name."""
    dsn = own_server.dsn
    program = run(ENDS, dsn.replace("127.0.0.1", "localhost"), "thread")
    program.expect("ready")
    program.expect("start")
    program.until_it_sleeps()  # the main thread waits for the other one
    with BlockingNotifier(dsn, server_settings={"application_name": "tests"}) as notifier:
        notifier.notify("orders", "1")
        program.expect("1")
        own_server.restart()
        program.expect("reconnect")
        notifier.notify("orders", "end", retry=True)
        program.expect("end")
    program.end()


@pytest.mark.parametrize("what", ["exit", "sys.exit"])
def test_r35_a_fork_is_told_so(dsn: str, run: Callable[..., Program], what: str) -> None:
    """Until a forked process starts its own, every call says why, and does the parent no harm."""
    program = run(FORKED, dsn, what)
    program.expect("closed")
    program.end()


class LastResort:
    """Ends what it has when it is collected, in whatever thread that happens."""

    def __init__(self, *ends: Callable[[], object]) -> None:
        self._ends = ends

    def __del__(self) -> None:
        for end in self._ends:
            end()


def test_a_last_resort_in_the_thread_of_a_loop_ends_everything(
    dsn: str, notifier: BlockingNotifier
) -> None:
    """A ``__del__`` that runs where a loop does blocks nothing and raises nothing."""
    listener = BlockingListener(dsn)
    listener.start()
    stream = listener.stream("orders").__enter__()
    subscription = listener.listen("users", print)

    async def collect(*ends: Callable[[], object]) -> None:
        LastResort(*ends)

    asyncio.run(collect(stream.close, subscription.cancel))
    deadline = time.monotonic() + WAIT_LIMIT
    while listener.channels:
        assert time.monotonic() < deadline
    assert not subscription.active
    with pytest.raises(EOFError):
        stream.get()
    asyncio.run(collect(listener.close, notifier.close))
    while listener.state is not State.CLOSED:
        assert time.monotonic() < deadline


# -- bounds ---------------------------------------------------------------------------------------


def seconds_to_close(listener: BlockingListener, timeout: float) -> float:
    """Return how long close() takes."""
    began = time.monotonic()
    listener.close(timeout)
    return time.monotonic() - began


def test_r31_close_is_bounded_while_the_server_is_frozen(own_server: PostgresServer) -> None:
    """A server that answers nothing does not delay close() beyond its timeout."""
    listener = BlockingListener(own_server.dsn)
    listener.start()
    listener.notify("orders")
    own_server.freeze()
    try:
        assert seconds_to_close(listener, 0.5) < 0.5 + 0.5 + scaled(0.5)
        assert listener.state is State.CLOSED
    finally:
        own_server.thaw()


def test_r31_close_is_bounded_during_the_start(own_server: PostgresServer) -> None:
    """close() ends a start() that hangs in another thread."""
    listener = BlockingListener(own_server.dsn)
    outcome: list[BaseException] = []

    def start() -> None:
        try:
            listener.start()
        except RuntimeError as error:
            outcome.append(error)

    own_server.freeze()
    try:
        thread = threading.Thread(target=start)
        thread.start()
        while listener.state is not State.CONNECTING:
            pass
        assert seconds_to_close(listener, 0.5) < 0.5 + 0.5 + scaled(0.5)
        thread.join(WAIT_LIMIT)
        assert [type(error).__name__ for error in outcome] == ["ClosedError"]
    finally:
        own_server.thaw()


def test_r31_close_is_bounded_while_handlers_block(dsn: str, notifier: BlockingNotifier) -> None:
    """Handlers that do not return are left to their threads; none is called any more."""
    release, calls = threading.Event(), threading.Semaphore(0)
    listener = BlockingListener(dsn)
    listener.start()

    def block(n: object) -> None:
        calls.release()
        release.wait(WAIT_LIMIT)

    for _ in range(20):
        listener.listen("orders", block)
    notifier.notify_many([("orders", "1"), ("orders", "2")])
    for _ in range(20):
        assert calls.acquire(timeout=WAIT_LIMIT)
    try:
        assert seconds_to_close(listener, 0.2) < 0.2 + 0.5 + scaled(0.5)
        assert listener.state is State.CLOSED
    finally:
        release.set()
    assert not calls.acquire(timeout=0.05)


def test_r31_close_is_bounded_while_the_loop_is_blocked(own_server: PostgresServer) -> None:
    """An on_event that blocks the event loop delays no close() by more than its timeout."""
    blocked, release = threading.Event(), threading.Event()

    def on_event(event: Any) -> None:
        if isinstance(event, ConnectionLost):
            blocked.set()
            release.wait(WAIT_LIMIT)

    listener = BlockingListener(own_server.dsn, on_event=on_event)
    other = BlockingListener(own_server.dsn)  # in the same loop
    listener.start()
    other.start()
    own_server.kill()
    try:
        assert blocked.wait(WAIT_LIMIT)
        for one in (listener, other):
            assert seconds_to_close(one, 0.2) < 0.2 + 0.5 + scaled(0.5)
    finally:
        release.set()
    for one in (listener, other):
        one.close()
        assert one.state is State.CLOSED


def test_many_runs_leave_nothing(dsn: str) -> None:
    """Threads and open files are as many after fifty runs as before."""
    files = Path("/proc/self/fd")
    listener = BlockingListener(dsn)

    def left() -> tuple[int, int]:
        return threading.active_count(), len(list(files.iterdir())) if files.exists() else 0

    before = left()
    for _ in range(50):
        with listener:
            listener.listen("orders", print)
    assert left() == before
