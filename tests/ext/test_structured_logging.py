"""That what logs objects and not lines gets the fields of our records."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify import Listener, Notification
from asyncnotify.testing.fake import FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator

structlog = pytest.importorskip("structlog")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where structlog writes JSON, one object a line, of all records of asyncnotify."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logger = logging.getLogger("asyncnotify")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield text
    logger.removeHandler(handler)
    logger.setLevel(before)


async def test_structlog_shows_the_fields_as_keys(lines: io.StringIO) -> None:
    """The channel of a handler that raised, the server of a connection; never the payload."""
    server, failed = FakeServer(), asyncio.Event()

    def handler(_: Notification[Any]) -> None:
        raise ConnectionError

    async with Listener(server.dsn) as listener:
        await listener.listen("orders", handler, on_error=lambda _, __: failed.set())
        await listener.notify("orders", "secret")
        await failed.wait()
    records = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert all(one.keys() >= {"channel", "attempt", "delay", "pid", "target"} for one in records)
    (raised,) = [one for one in records if "raised" in one["event"]]
    assert raised["channel"] == "orders"
    assert "ConnectionError" in raised["exception"]
    assert {one["target"] for one in records} == {None, server.target}
    assert "secret" not in lines.getvalue()
