from __future__ import annotations

import asyncio
import copy
import os
import pickle
import sys
import threading
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from asyncnotify import BlockingListener, BlockingNotifier, Listener, Notifier
from asyncnotify._errors import WrongLoopError
from asyncnotify._owner import Owner, see_to_unclosed
from asyncnotify.lock import Leader, Lock, Locks
from asyncnotify.log import BlockingLog, Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.lock import Held

REFUSED = 42


async def here() -> Owner:
    """Return the place of the running loop."""
    return Owner()


async def test_r35_in_its_own_loop_a_listener_may_be_used() -> None:
    """By any task."""
    place = Owner()
    place.check()

    async def use() -> None:
        place.check()

    await asyncio.create_task(use())
    assert not place.is_other_process


def test_r35_in_another_loop_it_may_not() -> None:
    """A RuntimeError says that it belongs to another event loop."""
    place = asyncio.run(here())

    async def elsewhere() -> None:
        with pytest.raises(WrongLoopError, match="belongs to another event loop") as caught:
            place.check()
        assert "asyncio_default_fixture_loop_scope" in str(caught.value)
        assert "run_coroutine_threadsafe" not in str(caught.value)

    asyncio.run(elsewhere())


def test_r35_without_a_loop_it_cannot_begin() -> None:
    """Neither can a coroutine that something other than asyncio runs."""
    beginning = here()
    with pytest.raises(WrongLoopError, match=r"no event loop of asyncio .* use asyncio\.run\(\)"):
        beginning.send(None)


def test_r35_trio_is_named() -> None:
    """Where it runs the code: in place of a message that would speak of other loops."""
    trio = pytest.importorskip("trio")
    place = asyncio.run(here())

    async def use(call: Callable[[], object]) -> None:
        call()

    for call in (Owner, place.check):
        with pytest.raises(WrongLoopError, match=r"is run by trio, .* asyncio"):
            trio.run(use, call)
    with pytest.raises(WrongLoopError) as caught:
        place.check()
    assert "trio" not in str(caught.value)


def test_r35_without_a_loop_or_in_another_thread_it_may_not() -> None:
    """The error says how to get into the right one."""
    place = asyncio.run(here())
    texts: list[str] = []

    def use() -> None:
        with pytest.raises(WrongLoopError) as caught:
            place.check()
        texts.append(str(caught.value))

    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(texts) == 2
    assert all("run_coroutine_threadsafe" in text for text in texts)


async def test_r35_in_a_fork_it_may_not() -> None:
    """Not even in the copy of its own loop, which does not run; the error says what to do."""
    place = Owner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads
        child = os.fork()
    if not child:
        os._exit(_is_refused_here(place))
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
    assert os.waitstatus_to_exitcode(status) == REFUSED
    assert place.is_here


def _is_refused_here(place: Owner) -> int:
    """Return REFUSED if the check says that this is another process; never raises."""
    try:
        place.check()
    except WrongLoopError as error:
        clear = "start it in this process too" in str(error)
        return REFUSED if clear and place.is_other_process and not place.is_here else 1
    except BaseException:  # noqa: BLE001 - the copy of a test run must not go on
        return 2
    return 0


class Lost:
    """What a cell has replaced by another one."""


@pytest.fixture
def _in_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(get_ipython=object)
    monkeypatch.setitem(sys.modules, "IPython", module)


@pytest.mark.usefixtures("_in_ipython")
async def test_what_is_lost_in_ipython_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """In its own loop, from whatever thread the collector runs in; a line says so, no warning."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    async def close() -> None:
        closed.set()

    collecting = threading.Thread(target=see_to_unclosed, args=(Lost(), close, loop))
    collecting.start()
    collecting.join()
    await closed.wait()
    (record,) = (r for r in caplog.records if r.name.startswith("asyncnotify"))
    assert "is being closed, because nothing refers to it any more" in record.getMessage()


@pytest.mark.usefixtures("_in_ipython")
async def test_a_close_that_fails_in_ipython_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """As nobody awaits it."""

    async def close() -> None:
        raise LookupError

    see_to_unclosed(Lost(), close, asyncio.get_running_loop())
    async with asyncio.timeout(1):
        while "could not be closed" not in caplog.text:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    assert "LookupError" in caplog.text


@pytest.mark.usefixtures("_in_ipython")
def test_in_ipython_a_loop_that_is_closed_closes_nothing_more() -> None:
    """When the kernel ends, its sessions end with it, in silence."""
    loop = asyncio.new_event_loop()
    loop.close()

    async def close() -> None:
        raise AssertionError

    assert see_to_unclosed(Lost(), close, loop)


def test_elsewhere_what_is_lost_is_a_warning_and_runs_on() -> None:
    """Also where IPython is imported, and no shell of it runs."""

    async def close() -> None:
        raise AssertionError

    loop = asyncio.new_event_loop()
    with pytest.warns(ResourceWarning, match="was not closed"):
        assert not see_to_unclosed(Lost(), close, loop)
    loop.close()


async def lead(held: Held) -> None:
    """Lead for no time."""


DSN = "postgresql://127.0.0.1:1/nowhere"
OF_ONE_PROCESS: dict[str, Callable[[], object]] = {
    "Listener": lambda: Listener(DSN),
    "Notifier": lambda: Notifier(DSN),
    "BlockingListener": lambda: BlockingListener(DSN),
    "BlockingNotifier": lambda: BlockingNotifier(DSN),
    "Stream": lambda: Listener(DSN).stream("orders"),
    "BlockingStream": lambda: BlockingListener(DSN).stream("orders"),
    "BlockingEventStream": lambda: BlockingListener(DSN).events(),
    "EventStream": lambda: Listener(DSN).events(),
    "Log": lambda: Log("orders", DSN),
    "BlockingLog": lambda: BlockingLog("orders", DSN),
    "LogStream": lambda: Log("orders", DSN).read(),
    "BlockingIncidentStream": lambda: BlockingLog("orders", DSN).incidents(),
    "Locks": lambda: Locks(DSN),
    "Lock": lambda: Lock(DSN, "name"),
    "Leader": lambda: Leader("name", lead, DSN),
}


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", OF_ONE_PROCESS)
async def test_what_belongs_to_one_process_is_not_copied(
    name: str, duplicate: Callable[[object], object]
) -> None:
    """The error says what to do: two objects would share a connection, or a process have none."""
    thing = OF_ONE_PROCESS[name]()
    with pytest.raises(TypeError, match=rf"class {name} cannot be pickled or copied.*make another"):
        duplicate(thing)
