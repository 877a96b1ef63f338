"""What signal handlers raise at whatever point, forks under threads, and starts that fail."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.machine import scaled

pytestmark = pytest.mark.timeout(180)
LIMIT = scaled(150.0)  # seconds for a program that takes 20 on an idle machine

PRELUDE = """
import faulthandler, os, random, signal, sys, threading, time, traceback
from asyncnotify import *

dsn, what, limit = sys.argv[1:]
limit = float(limit)  # seconds
faulthandler.dump_traceback_later(0.8 * limit, exit=True)  # a program that hangs says where
armed = False
rung = 0

class Alarm(Exception):
    pass

def report(unraisable):
    '''Say what a callback has swallowed, whole: what is raised here would cut that short.'''
    sys.__unraisablehook__(unraisable)

sys.unraisablehook = report

def is_reporting(frame):
    while frame is not None and frame.f_code is not report.__code__:
        frame = frame.f_back
    return frame is not None

def ring(_, frame):
    global rung
    if armed and not is_reporting(frame):
        rung += 1
        raise Alarm

signal.signal(signal.SIGALRM, ring)

def end_child(call):
    '''End a fork after a call. By itself it would not: faulthandler waits for its lost thread.'''
    try:
        call()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def interrupted(call, after, again):
    '''Call it, and raise in it after so many seconds, or later: some callbacks swallow it.'''
    global armed
    try:
        signal.setitimer(signal.ITIMER_REAL, after, again)
        armed = True
        call()
        armed = False
    except Alarm:
        armed = False
"""

STORM = """
stop, sent, got = threading.Event(), [0], []

def send():
    with BlockingNotifier(dsn) as notifier:
        while not stop.is_set():
            count = random.choice([1, 1, 1, 5, 100])
            sent[0] += notifier.notify_many(("orders", str(sent[0] + n)) for n in range(count))
        notifier.notify("orders", "end")

def get():
    while True:
        got.append(stream.get())

def get_briefly():
    while True:
        try:
            got.append(stream.get(0.0005))
        except TimeoutError:
            pass

def iterate():
    for item in stream:
        got.append(item)

take = {"get": get, "timeout": get_briefly, "for": iterate}[what]
with BlockingListener(dsn) as listener, listener.stream("orders", buffer=100_000) as stream:
    sender = threading.Thread(target=send)
    sender.start()
    while rung < 7_000:
        interrupted(take, random.uniform(0.00002, 0.0008), 0.005)
    signal.setitimer(signal.ITIMER_REAL, 0)
    stop.set()
    while (item := stream.get(limit)).payload != "end":
        got.append(item)
    sender.join()
assert [item.payload for item in got] == [str(n) for n in range(sent[0])]
"""

COROUTINE = """
import asyncio

COUNT = 50_000
got = []

def ring_in_consumer(_, frame):
    global rung
    if is_reporting(frame):
        return
    while frame is not None:  # an event loop that is interrupted itself may lose its callbacks
        if armed and frame.f_code is consume.__code__:
            rung += 1
            raise Alarm
        frame = frame.f_back

async def consume(stream):
    global armed
    armed = True
    try:
        if "batches" in what:
            async for batch in stream.batches(100):
                got.extend(batch)
                if len(got) == COUNT:
                    break
        else:
            async for item in stream:
                got.append(item)
                if len(got) == COUNT:
                    break
    finally:
        armed = False

async def main():
    channel = "orders" if "text" in what else Channel("orders", decode=str.strip)
    pairs = [("orders", str(n)) for n in range(COUNT)]
    async with Listener(dsn) as listener, Notifier(dsn) as notifier:
        async with listener.stream(channel, buffer=COUNT) as stream:
            while rung < 600:
                got.clear()
                await notifier.notify_many(pairs)
                while stream.stats().backlog < COUNT:
                    await asyncio.sleep(0.01)  # polls: no event tells of it
                signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
                while len(got) < COUNT:
                    try:
                        await asyncio.wait_for(consume(stream), limit)
                    except Alarm:
                        pass
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert [n.payload for n in got] == [payload for _, payload in pairs]
                assert (stream.stats().backlog, stream.stats().decode_errors) == (0, 0)

signal.signal(signal.SIGALRM, ring_in_consumer)
asyncio.run(main())
"""

STARTS = """
def threads():
    return [t for t in threading.enumerate() if t.name.startswith("asyncnotify")]

def start():
    listener = BlockingListener(dsn, close_timeout=limit / 30)
    interrupted(listener.start, random.uniform(0.00001, 0.004), 0)
    listener.close()

while rung < 300:
    start()
for thread in threads():
    thread.join(limit / 8)
assert not threads(), threads()
with BlockingListener(dsn) as listener:
    assert listener.is_connected
"""

FORKS = """
def notify():
    try:
        notifier.notify("orders", "1")
    except WrongLoopError:
        if n % 10 == 0:
            notifier.start()
            notifier.notify("orders", "1")

for n in range(300):
    notifier = BlockingNotifier(dsn)
    first = threading.Thread(target=notifier.notify, args=("orders",))
    first.start()
    time.sleep(random.uniform(0, 0.003))  # so that the fork comes at any point
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.setitimer(signal.ITIMER_REAL, limit / 15)
        end_child(notify)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, (n, status)
    first.join()
    notifier.close()
"""

WINDOW = """
from asyncnotify._blocking import portal

attach = portal.attach
begun, may_attach = threading.Event(), threading.Event()

def attach_late(user):
    begun.set()
    may_attach.wait()
    attach(user)

portal.attach = attach_late
notifier = BlockingNotifier(dsn)
first = threading.Thread(target=notifier.notify, args=("orders",), daemon=True)
first.start()
begun.wait()
"""
"""Another thread's first call has made what leads to the loop, and not attached it yet."""

FORK_IN_WINDOW = """
def start():
    portal.attach = attach
    try:
        notifier.notify("orders")
    except WrongLoopError:
        notifier.start()
        notifier.notify("orders")
    else:
        raise AssertionError

if (child := os.fork()) == 0:
    end_child(start)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
may_attach.set()
first.join()
notifier.close()
"""

CALL_IN_WINDOW = """
from asyncnotify._blocking.gateway import Gateway

really_open = Gateway.open

def open_after(self, *args):
    may_attach.set()
    return really_open(self, *args)

Gateway.open = open_after
notifier.notify("orders")
first.join()
notifier.close()
"""

INTERRUPT_IN_WINDOW = """
from asyncnotify._blocking import portal

attach = portal.attach

def interrupt(_):
    portal.attach = attach
    raise KeyboardInterrupt

for calls_again in True, False:
    portal.attach = interrupt
    notifier = BlockingNotifier(dsn)
    try:
        notifier.notify("orders")
    except KeyboardInterrupt:
        if calls_again:
            notifier.notify("orders")
    else:
        raise AssertionError
    began = time.monotonic()
    notifier.close(timeout=limit)
    assert time.monotonic() - began < limit / 2
"""

FILES = """
import resource

def attempt(limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with listener:
            return True
    except ConnectError:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
listener = BlockingListener(dsn, start_timeout=0.2)
with listener:
    pass  # what is imported late needs files too
used = max(map(int, os.listdir("/proc/self/fd")))
results = [attempt(used + more) for more in range(10)]
assert not results[0], results
assert attempt(soft)
assert threading.active_count() == 1
"""

THREADS = """
import _thread

def refuse(*_):
    raise RuntimeError("can't start new thread")

listener, notifier = BlockingListener(dsn), BlockingNotifier(dsn)
start = _thread.start_new_thread
for module, name in ((_thread, "start_new_thread"), (threading, "_start_new_thread")):
    if not hasattr(module, name):
        continue
    setattr(module, name, refuse)
    for call in (listener.start, notifier.start, lambda: notifier.notify("orders")):
        try:
            call()
        except ConnectError as error:
            assert "can't start new thread" in str(error)
        else:
            raise AssertionError(call)
    setattr(module, name, start)
with listener, notifier:
    notifier.notify("orders")
"""


def run(script: str, dsn: str, what: str = "") -> None:
    """Run a program, which has to end in time and without complaint."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + script, dsn, what, str(LIMIT)]
    # coverage is not prepared for interrupts at any point of its own code
    unmeasured = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, env=unmeasured
    )
    swallowed = "Exception ignored" in ended.stderr and "Alarm" in ended.stderr
    assert ended.returncode == 0, ended.stderr
    # That start() keeps trying is a WARNING, which Python prints where no logging is configured
    lines = [line for line in ended.stderr.splitlines() if "start() keeps trying" not in line]
    assert swallowed or not lines, ended.stderr


@pytest.mark.parametrize("how", ["get", "timeout", "for"])
def test_r56_an_item_that_was_taken_is_returned_or_put_back(dsn: str, how: str) -> None:
    """In 7,000 interrupts by a timer at any point, each item comes once and in order."""
    run(STORM, dsn, how)


@pytest.mark.parametrize("how", ["text", "typed", "text batches", "typed batches"])
def test_r56_nor_does_a_coroutine_lose_what_it_took(dsn: str, how: str) -> None:
    """What a signal handler raises in ``async for``, or in a decoder, leaves the item."""
    run(COROUTINE, dsn, how)


def test_r56_an_interrupted_start_leaves_no_thread(dsn: str) -> None:
    """Wherever start() is interrupted, close() ends what it began."""
    run(STARTS, dsn)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_r55_no_fork_under_threads_hangs(dsn: str) -> None:
    """Of 300 forks during another thread's first call no child hangs; start() begins anew there."""
    run(FORKS, dsn)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_r55_a_fork_before_another_threads_start_is_told_as_any_other(dsn: str) -> None:
    """That what it was about to start belongs to the parent, not that it was closed."""
    run(WINDOW + FORK_IN_WINDOW, dsn)


def test_r57_a_call_waits_for_another_threads_start(dsn: str) -> None:
    """Whatever that has done by then."""
    run(WINDOW + CALL_IN_WINDOW, dsn)


def test_r56_a_call_begins_anew_after_an_interrupted_start(dsn: str) -> None:
    """And close() does not wait for what was never begun."""
    run(INTERRUPT_IN_WINDOW, dsn)


@pytest.mark.skipif(sys.platform != "linux", reason="it counts the open files in /proc")
def test_r57_a_start_without_file_descriptors_fails(dsn: str) -> None:
    """However few there are, start() ends; with enough, the same listener starts."""
    run(FILES, dsn)


def test_r57_a_start_without_threads_fails(dsn: str) -> None:
    """Whichever thread the system refuses, every call says so, and later ones succeed."""
    run(THREADS, dsn)
