"""A log behind a pooler in transaction mode: append() works, all else says why it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from asyncnotify import PoolerError
from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify.testing.server import PostgresServer
    from tests.network.conftest import NewPooler

Call: TypeAlias = "Callable[[Log], Awaitable[object]]"

REASON: Final = r"needs sessions of its own.*append\(\)"
REFUSED: Final[tuple[Call, ...]] = (
    lambda log: log.install(),
    lambda log: log.status(),
    lambda log: log.seek("mailer", "start"),
    lambda log: anext(log.consumer("mailer")),
    lambda log: anext(log.read(after="start")),
)


async def test_what_a_pooler_does_not_allow_is_refused_by_its_reason(
    new_pooler: NewPooler, pooled_server: PostgresServer
) -> None:
    """Whatever was called, no other call is spoken of; what is appended is there."""
    pooler = new_pooler(pool_mode="transaction")
    async with Log("orders", pooled_server.dsn) as direct:
        await direct.install()
        async with Log("orders", pooler.dsn) as log:
            for call in REFUSED:
                with pytest.raises(PoolerError, match=REASON):
                    await call(log)
            await log.append("things", "1")
        assert (await anext(direct.read(after="start"))).payload == "1"
