"""Streams and consumers that are closed: nobody enters them without learning it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import ClosedError
from asyncnotify.log import Log
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.log._names import Names

WAYS: Final[dict[str, tuple[Callable[[Log], Any], str]]] = {
    "stream": (lambda log: log.read(after="now"), r"^the stream has been closed; make another"),
    "consumer": (lambda log: log.consumer("mailer"), r"^consumer 'mailer' has been closed$"),
}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_closed_cannot_be_entered(
    dsn: str, installed: Names, way: str, when: str
) -> None:
    """Also where another task closes it while the server is asked."""
    make, message = WAYS[way]
    async with Log("orders", dsn) as log:
        readable = make(log)
        if when == "before":
            await readable.aclose()
        entering = asyncio.ensure_future(readable.__aenter__())
        if when == "meanwhile":
            await asyncio.sleep(0)
            assert not entering.done()
            await readable.aclose()
        with pytest.raises(ClosedError, match=message):
            async with asyncio.timeout(scaled(20)):
                await entering
