from __future__ import annotations

import asyncio
import os
import threading

import pytest

from asyncnotify._errors import WrongLoopError
from asyncnotify._place import Place


async def here() -> Place:
    """Return the place of the running loop."""
    return Place()


async def test_r35_in_its_own_loop_a_listener_may_be_used() -> None:
    """By any task."""
    place = Place()
    place.check()

    async def use() -> None:
        place.check()

    await asyncio.create_task(use())
    assert not place.is_other_process


def test_r35_in_another_loop_it_may_not() -> None:
    """A RuntimeError says that it belongs to another event loop."""
    place = asyncio.run(here())

    async def elsewhere() -> None:
        with pytest.raises(WrongLoopError, match="belongs to another event loop"):
            place.check()

    asyncio.run(elsewhere())


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


async def test_r35_in_a_fork_it_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the copy of its own loop; the error says what to do instead."""
    place = Place()
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert place.is_other_process
    with pytest.raises(WrongLoopError, match="make and start one in each process"):
        place.check()
