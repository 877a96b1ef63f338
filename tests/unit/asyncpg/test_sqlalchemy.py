from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

URL = "postgresql+asyncpg://alice:secret@db.example:5433/shop"


class Creator:
    """A function of the caller's that makes the connections; records its arguments."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, *_: object, **arguments: Any) -> FakeConnection:
        """Make a connection."""
        self.calls.append(arguments)
        return FakeConnection()


def engine_of(creator: Creator, **options: Any) -> AsyncEngine:
    """Return an engine whose connections this function makes."""
    return create_async_engine(URL, connect_args={"async_creator_fn": creator, **options})


@pytest.mark.parametrize("engine", [None, object(), URL])
def test_what_is_no_async_engine_is_refused(engine: object) -> None:
    """The error names the type."""
    with pytest.raises(TypeError, match=f"AsyncEngine.*{type(engine).__name__}"):
        EngineConnect(engine)


def test_a_sync_engine_is_refused() -> None:
    """It would need a thread for each step."""
    engine = create_async_engine(URL)
    with pytest.raises(TypeError, match="AsyncEngine"):
        EngineConnect(engine.sync_engine)


def test_the_target_holds_no_password() -> None:
    """User, host, port and database, for logs and errors."""
    assert EngineConnect(create_async_engine(URL)).target == "alice@db.example:5433/shop"


async def test_each_connection_is_asked_for_anew() -> None:
    """With the arguments that the engine has at that moment, such as a token that rotates."""
    creator = Creator()
    engine = engine_of(creator)
    tokens = iter(["first", "second"])

    def rotate(_dialect: object, _record: object, _args: object, named: dict[str, Any]) -> None:
        named["password"] = next(tokens)

    event.listen(engine.sync_engine, "do_connect", rotate)
    connect = EngineConnect(engine)
    first, second = await connect(), await connect()
    assert first is not second
    assert [call["password"] for call in creator.calls] == ["first", "second"]


async def test_the_engines_pool_stays_as_it_is() -> None:
    """Nothing is taken from it, nor given to it, and no function stays on its events."""
    creator = Creator()
    engine = engine_of(creator)
    before = engine.pool
    status = before.status()
    await EngineConnect(engine)()
    assert engine.pool is before
    assert before.status() == status
    assert len(creator.calls) == 1


async def test_what_only_sqlalchemy_understands_is_left_out() -> None:
    """Its cache sizes are no arguments of the driver."""
    creator = Creator()
    engine = engine_of(creator, prepared_statement_cache_size=0)
    await EngineConnect(engine)()
    (call,) = creator.calls
    assert "prepared_statement_cache_size" not in call
    assert (call["host"], call["port"]) == ("db.example", 5433)
