from __future__ import annotations

import asyncio
import os
import threading
import warnings
from typing import TYPE_CHECKING

import pytest

from asyncnotify._errors import WrongLoopError
from asyncnotify._owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

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
